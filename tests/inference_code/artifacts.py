"""Tiny artifacts made on the spot, and the real server on them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import inference_code
from inference_code.artifact import manifest as m

BUCKET = 28


class TinyDepth(torch.nn.Module):
    """[batch, 3, h, w] -> [batch, h, w]: a map that follows the picture, its middle row included."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([0.5, 0.3, 0.2]).reshape(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels * self.weights).sum(1) + 3


class Sums(torch.nn.Module):
    """Two inputs, nested outputs."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sum(1), n * 2


SUMS_STRUCTURE = {
    "kind": "dict",
    "entries": [
        ["sum", {"kind": "tensor", "index": 0}],
        ["more", {"kind": "tuple", "items": [{"kind": "tensor", "index": 1}, {"kind": "constant", "value": "x"}]}],
    ],
}
LONE = {"kind": "tensor", "index": 0}


def tensor(name: str, value: torch.Tensor) -> m.TensorDescription:
    return m.TensorDescription(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))


def output(name: str, value: torch.Tensor, batch: int) -> m.TensorDescription:
    """An output that counts its items along its first axis, if it does."""
    return dataclasses.replace(tensor(name, value), item_axis=0 if value.shape[:1] == (batch,) else None)


def add_graph(
    folder: Path,
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    names: tuple[str, ...] = ("output",),
    *,
    structure: Mapping[str, Any] = LONE,
    bucket: Mapping[str, Any] | None = None,
    role: str = "main",
) -> m.PackagedVariant:
    """Trace `module` into the artifact `folder` and describe it."""
    examples = tuple(inputs.values())
    batch = examples[0].shape[0]
    bucket = bucket or {"n": 1}
    name = f"graphs/{role}-{'x'.join(str(size) for size in examples[0].shape)}.pt"
    (folder / "graphs").mkdir(parents=True, exist_ok=True)
    traced = torch.jit.trace(module.eval(), examples, check_trace=False)
    torch.jit.save(traced, str(folder / name))
    with torch.no_grad():
        found = module(*examples)
    leaves = found if isinstance(found, tuple) else (found,)
    return m.PackagedVariant(
        role=role,
        bucket=bucket,
        batch_size=batch,
        file=name,
        inputs=tuple(tensor(key, value) for key, value in inputs.items()),
        outputs=tuple(output(key, value, batch) for key, value in zip(names, leaves, strict=True)),
        structure=structure,
    )


def finish(folder: Path, graphs: tuple[m.PackagedVariant, ...], task_name: str, **changes: Any) -> Path:
    """Write the manifest of an artifact whose other files are all in `folder`."""
    files = {
        path.relative_to(folder).as_posix(): m.file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != m.FILE_NAME
    }
    task_entry = changes.pop("task", m.TaskEntry(task_name, {}))
    values: dict[str, Any] = {
        "name": "tiny",
        "rehearsal": True,
        "stand_in": False,
        "target": "inf1",
        "digests": m.Digests("a" * 64, "b" * 64),
        "task": task_entry,
        "handler": None,
        "graphs": graphs,
        "versions": {"torch": str(torch.__version__)},
        "cores_per_copy": 1,
        "environment": {},
        "files": files,
    }
    m.write(m.ArtifactManifest(**(values | changes)), folder / m.FILE_NAME)
    return folder


def change_manifest(folder: Path, **changes: Any) -> None:
    m.write(dataclasses.replace(m.read(folder), **changes), folder / m.FILE_NAME)


def depth_artifact(folder: Path, *, sizes: tuple[tuple[int, int], ...] = ((BUCKET, BUCKET),), **changes: Any) -> Path:
    graphs = tuple(
        add_graph(folder, TinyDepth(), {"pixels": torch.zeros(batch, 3, *size)}, bucket={"image": list(size)})
        for size in sizes
        for batch in (1, 4)
    )
    return finish(folder, graphs, "depth-estimation", **changes)


def sums_artifact(folder: Path, *, batches: tuple[int, ...] = (1, 4), **changes: Any) -> Path:
    graphs = tuple(
        add_graph(
            folder,
            Sums(),
            {"x": torch.zeros(batch, 3), "n": torch.zeros(batch, 2, dtype=torch.int64)},
            ("sum", "more.0"),
            structure=SUMS_STRUCTURE,
        )
        for batch in batches
    )
    return finish(folder, graphs, "tensor", **changes)


def doubling_artifact(folder: Path, handler: str | None = None, files: Mapping[str, str] | None = None) -> Path:
    """A model of one input [3] that doubles; with the text of a user's handler file and of its siblings."""

    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    graph = add_graph(folder, Doubling(), {"x": torch.zeros(2, 3)})
    if handler is None:
        return finish(folder, (graph,), "tensor")
    sources = {"my_handler.py": handler, **(files or {})}
    for name, text in sources.items():
        path = folder / "code/handler/models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return finish(folder, (graph,), "of my own", handler="handler/models/my_handler.py")


# Pictures ------------------------------------------------------------------------------------------------------------


def gradient(height: int = 30, width: int = 40) -> np.ndarray[Any, Any]:
    """uint8 [height, width, 3]: brighter to the right and, in green, downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = columns * 255 // max(width - 1, 1)
    green = rows * 255 // max(height - 1, 1)
    return np.stack([red, green, np.full_like(red, 60)], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def read_npy(body: bytes) -> np.ndarray[Any, Any]:
    return np.load(io.BytesIO(body), allow_pickle=False)  # type: ignore[no-any-return]


# The server ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Server:
    """`python -m inference_code.server` on an artifact, in a process of its own."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        *arguments: str,
        python: str = sys.executable,
    ) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [python, *command(folder, "--port", "0", *arguments)[1:]],
                stdout=subprocess.PIPE,
                stderr=stream,
                env=child_environment(environment),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.process.wait(30)
            raise AssertionError(f"the server did not start: {log.read_text()}")
        self.url = line.removeprefix("listening on ").strip()
        self.lines: list[dict[str, Any]] = []  # what it writes on standard output, complete after stop
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith(b"listening on "):  # said again by a server that was started again
                self.lines.append(json.loads(line))

    def request(
        self, path: str = "/invocations", body: bytes | None = None, method: str | None = None, **headers: str
    ) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Response(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, dict(error.headers), error.read())

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(60)
        self._reader.join(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "inference_code.server", "--model-dir", str(folder), *arguments]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    root = str(Path(inference_code.__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENDPOINT_", "NEURON_RT_"))}
    return kept | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", **(more or {})}
