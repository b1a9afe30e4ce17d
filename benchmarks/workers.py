"""A thread a core in one process against a process a core (--processes), with the same server, handler and load.

    python -m benchmarks.workers                   both layouts, three kinds of work; about a minute and a half
    python -m benchmarks.workers --write           also put the table into docs/benchmarks.md
    python -m benchmarks.workers --kinds torch --connections 4 --seconds 1 --busy

Kinds of work: `torch`, a network on the CPU, whose operators leave the interpreter's lock; `accelerator`, a call that
takes 10 ms and no processor, as a chip's does if its runtime leaves the lock; `python`, a handler whose preprocess
holds the lock for some milliseconds. No graph takes more than one item, so that batching plays no part.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import document
from benchmarks.peers import HOME, Case, Running, SkippedError, environment, started
from benchmarks.serving import Load, Result, by_asyncio, by_wrk, check_answer, console, free_ports, observe
from tests.inference_code import artifacts

CORES = os.cpu_count() or 1

# A call of the device takes 10 ms and no processor, on each core by itself. Python runs this file at its start; the
# parent of several processes shall not load torch for it.
_CHIP = """
import sys
if "--processes" not in sys.orig_argv:
    import time
    from inference_code.execution import model as runtime
    _call = runtime._call
    runtime._call = lambda *arguments: (time.sleep(0.010), _call(*arguments))[1]
"""
_PYTHON = """
import numpy as np
from inference_code.codecs.npy import read_npy

def preprocess(request):
    total = 0
    for number in range(40_000):
        total += number % 7
    return read_npy(request.body) + total % 2

def postprocess(outputs, item):
    return outputs
"""


class Network(torch.nn.Module):
    """[batch, 3, 96, 96] -> [batch, 16]: some milliseconds of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (3, 32, 64, 64)
        convolutions = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)]
        self.layers = torch.nn.Sequential(*convolutions, torch.nn.Conv2d(64, 16, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(pixels).mean((2, 3))
        return found


def cases(folder: Path) -> dict[str, Case]:
    """Each kind of work."""
    network, small = np.random.default_rng(0).random((3, 96, 96), np.float32), np.ones(3, np.float32)
    found = {}
    for kind, body in (("torch", network), ("accelerator", small), ("python", small)):
        model = folder / kind
        module = Network() if kind == "torch" else torch.nn.Identity()
        graph = artifacts.add_graph(model, module, {"input": torch.zeros(1, *body.shape)})
        package = model / "code" / "inference_code"
        shutil.copytree(document.ROOT / "inference_code", package, ignore=shutil.ignore_patterns("__pycache__"))
        if kind == "python":
            (model / "code" / "handler").mkdir()
            (model / "code" / "handler" / "slow.py").write_text(_PYTHON)
        handler = "handler/slow.py" if kind == "python" else None
        artifacts.finish(model, (graph,), "tensor", handler=handler)
        path = folder / f"{kind}.body"
        path.write_bytes(artifacts.npy(body))
        found[kind] = Case(kind, model, path, "application/x-npy", kind == "accelerator")
    return found


def threads(case: Case, port: int, log: Path) -> Running:
    """One process with a thread for each core."""
    return _server(case, 1, port, log)


def processes(case: Case, port: int, log: Path) -> Running:
    """A process for each core. The port is open when all of them have loaded the model."""
    return _server(case, CORES, port, log)


LAYOUTS: dict[str, Callable[[Case, int, Path], Running]] = {"threads": threads, "processes": processes}


def _server(case: Case, count: int, port: int, log: Path) -> Running:
    variables = environment(case) | {"ENDPOINT_WORKERS": str(CORES)}
    if case.accelerator:
        chip = log.parent / "chip"
        chip.mkdir(exist_ok=True)
        (chip / "sitecustomize.py").write_text(_CHIP)
        variables["PYTHONPATH"] = f"{chip}{os.pathsep}{variables['PYTHONPATH']}"
    command = [sys.executable, "-m", "inference_code.server", "--model-dir", str(case.model), "--port", str(port)]
    return started([*command, *(["--processes", str(count)] if count > 1 else [])], variables, port, log)


def measure(layout: str, case: Case, connections: Sequence[int], seconds: float, load: Load) -> list[Result]:
    """Start, warm up, measure each number of connections, end. Raises SkippedError."""
    log = HOME / "logs" / f"workers-{layout}-{case.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    running = LAYOUTS[layout](case, free_ports(), log)
    try:
        check_answer(layout, case, running)
        memory = running.memory() / 1e6
        load(case, running, max(connections), min(seconds, 1.0))
        name = f"{CORES} {layout}"
        return [observe(name, case, running, memory, number, seconds, load) for number in connections]
    finally:
        running.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 1: nothing could be measured; 2: wrong use, or the machine is busy."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["torch", "accelerator", "python"]
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=kinds)
    options = document.options(parser, arguments, seconds=4.0)
    unknown = sorted(set(options.kinds) - set(kinds))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(kinds)}")
    folder = HOME / "workers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    built = cases(folder)
    has_wrk = shutil.which("wrk") is not None
    results: list[Result] = []
    skipped: dict[str, str] = {}
    for kind in options.kinds:
        for layout in LAYOUTS:
            console.print(f"{kind}: {layout}")
            try:
                load = by_wrk if has_wrk else by_asyncio
                results += measure(layout, built[kind], options.connections, options.seconds, load)
            except SkippedError as error:
                skipped[f"{kind}, {layout}"] = str(error)
                console.print(f"[bold red]SKIPPED {kind}, {layout}[/]: {error}", markup=True)
    client = "wrk" if has_wrk else "a client on asyncio (wrk is not installed)"
    text = document.table(results, client, skipped, "layout")
    console.print(text, markup=False)
    if options.write and results:
        document.put("workers", text)
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
