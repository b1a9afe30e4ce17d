"""Our image path against two reference preprocessings, and the codecs of an answer against each other.

    python -m benchmarks.preprocess                 JPEG of 12 megapixels to the model's input
    python -m benchmarks.preprocess --repeats 3
    python -m benchmarks.preprocess --write         also put the tables into docs/benchmarks.md

Measured by turns, medians, one thread each: our path (codecs/images.py, at a reduced size where the model's is
smaller), transformers' image processor of Depth Anything V2, and its own repository's preprocessing (OpenCV: cubic
resize, normalise). OpenCV is no part of the project: pip takes it from requirements/preprocess.txt into
build/benchmarks/opencv, and where it cannot the path is left out, with a word. Beside the times stands how far each
is from our own path with the full decoding, on the scale of 0 to 255.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import document
from benchmarks.serving import machine, quiet
from inference_code.codecs.images import decode, encode_png16
from inference_code.codecs.json_text import write_json
from inference_code.codecs.npy import write_npy
from inference_code.settings import Limits

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 518
MANY = Limits(pixels=100_000_000)
console = Console(highlight=False)
Array = np.ndarray[Any, Any]


def photograph(width: int = 4000, height: int = 3000) -> bytes:
    """A JPEG of 12 megapixels: the example photograph enlarged, with the grain of a sensor."""
    with Image.open(ROOT / "examples" / "photographs" / "coffee.jpg") as image:
        large = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1)).astype(np.float32)
    stream = io.BytesIO()
    Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def normalised(values: Array) -> Array:
    """ImageNet's mean and deviation, as every path applies them."""
    mean, std = (np.asarray(three, np.float32).reshape(3, 1, 1) for three in (MEAN, STD))
    return np.ascontiguousarray((values - mean) / std, np.float32)


def ours(body: bytes) -> Array:
    """What the task depth-estimation does."""
    return normalised(decode(body, MANY, lambda *_: (SIDE, SIDE)).resized(SIDE, SIDE))


def full(body: bytes) -> Array:
    """The same without the reduced decoding."""
    return normalised(decode(body, MANY).resized(SIDE, SIDE))


def by_transformers() -> Callable[[bytes], Array]:
    """transformers' image processor."""
    from transformers import DPTImageProcessor  # noqa: PLC0415  (takes seconds)

    processor = DPTImageProcessor(
        size={"height": SIDE, "width": SIDE}, resample=3, do_rescale=True, image_mean=list(MEAN), image_std=list(STD)
    )

    def run(body: bytes) -> Array:
        found = processor(Image.open(io.BytesIO(body)).convert("RGB"), return_tensors="np")["pixel_values"][0]
        return np.asarray(found, np.float32)

    return run


def by_opencv() -> Callable[[bytes], Array]:
    """Depth Anything V2's own: decode, to 0..1, cubic resize without antialiasing, normalise."""
    import cv2  # noqa: PLC0415  (no part of the project)

    cv2.setNumThreads(1)

    def run(body: bytes) -> Array:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        values = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) / 255.0
        return normalised(cv2.resize(values, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1))

    return run


def without_opencv() -> str:
    """Why OpenCV cannot be imported; empty when it can. Installs it where it is missing."""
    home = ROOT / "build" / "benchmarks" / "opencv"
    if not (home / "cv2").is_dir():
        lock = ROOT / "requirements" / "preprocess.txt"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        command = [*pip, "--target", str(home), "-r", str(lock)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            return f"pip cannot install it: {run.stderr.strip().splitlines()[-1:]}"
    sys.path.append(str(home))
    return ""


def seconds(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median of each, taken by turns after one call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


Rows = list[tuple[str, ...]]  # the headings first


def preprocessing(repeats: int) -> Rows:
    """The paths from a JPEG to the model's input."""
    body = photograph()
    paths: dict[str, Callable[[bytes], Array]] = {"ours": ours, "ours, full decoding": full}
    paths["transformers"] = by_transformers()
    reason = without_opencv()
    if reason:
        console.print(f"[bold red]SKIPPED OpenCV[/]: {reason}")
    else:
        paths["OpenCV (the model's repository)"] = by_opencv()
    found = seconds({name: lambda path=path: path(body) for name, path in paths.items()}, repeats)  # type: ignore[misc]
    reference = full(body)
    rows: Rows = [("path", "ms", "ours is faster by", "mean difference", "largest")]
    for name, path in paths.items():
        apart = np.abs(path(body) - reference) * np.asarray(STD, np.float32).reshape(3, 1, 1) * 255
        times = f"{found[name] / found['ours']:.2f}"
        rows.append((name, f"{found[name] * 1000:.1f}", times, f"{apart.mean():.2f}", f"{apart.max():.1f}"))
    return rows


def codecs(repeats: int) -> Rows:
    """The forms of an answer, for a depth map of 518 x 686."""
    down, right = np.mgrid[0:518, 0:686].astype(np.float32)
    depth = (np.sin(down / 60) + np.cos(right / 80) + 2).astype(np.float32)
    forms: dict[str, Callable[[], bytes]] = {
        "application/x-npy": lambda: write_npy(depth),
        "image/png (16 bits)": lambda: encode_png16(depth, {}),
        "application/json": lambda: write_json(depth, MANY),
    }
    found = seconds(forms, repeats)
    forms_of_answers: Rows = [("form of the answer", "ms", "bytes")]
    forms_of_answers += [(name, f"{found[name] * 1000:.1f}", str(len(write()))) for name, write in forms.items()]
    return forms_of_answers


def shown(rows: Rows) -> Table:
    """For the terminal."""
    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table


def markdown(rows: Rows) -> str:
    """For the page."""
    lines = [rows[0], tuple("---" for _ in rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 2: wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=9, help="whose median counts; default: %(default)s")
    parser.add_argument("--busy", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; at least 1")
    if options.busy and options.write:
        parser.error("--write is only for a machine that is not busy")
    busy = os.getloadavg()[0] if options.busy else quiet(300)
    if busy > (os.cpu_count() or 1) / 4 and not options.busy:
        parser.error(f"the machine is busy (load {busy:.1f}): figures would be worthless; wait, or say --busy")
    torch.set_num_threads(1)
    tables = [preprocessing(options.repeats), codecs(options.repeats)]
    for rows in tables:
        console.print(shown(rows))
    if options.write:
        size = f"a JPEG of 4000 x 3000 to {SIDE} x {SIDE}, one thread"
        where = f"Measured on {date.today().isoformat()} on {machine()}; {size}."
        goal = "The goal: 3 times as fast as either reference. Differences, from our full decoding, are on 0 to 255."
        document.put("preprocess", "\n\n".join([where, *map(markdown, tables), goal]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
