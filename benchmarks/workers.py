"""A thread a core in one process against a process a core, with the same server, handler and load.

    python -m benchmarks.workers                   both layouts, three kinds of work; about a minute and a half
    python -m benchmarks.workers --write           also put the table into docs/serving.md
    python -m benchmarks.workers --kinds torch --connections 4 --seconds 1 --busy

Kinds of work: `torch`, a network on the CPU, whose operators leave the interpreter's lock; `accelerator`, a call that
takes 10 ms and no processor, as a chip's does if its runtime leaves the lock; `python`, a handler whose preprocess
holds the lock for some milliseconds. Each process listens on a socket of its own (SO_REUSEPORT), so that the kernel
spreads the connections: of one that they share, the first to wake up would take them all. No graph takes more than one
item, so that batching plays no part.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import document
from benchmarks.peers import HOME, Case, Running, SkippedError, environment, started
from benchmarks.serving import Load, Result, by_asyncio, by_wrk, check_answer, console, free_ports, observe
from tests.inference_code import artifacts

CORES = os.cpu_count() or 1
_START_SECONDS = 120

# A call of the device takes 10 ms and no processor, on each core by itself.
_CHIP = """
import time
from inference_code import runtime
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
_PROCESSES = """
import os, socket, subprocess, sys
model, port, count, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
ended, held = os.pipe()
children = []
for _ in range(count):
    listener = socket.create_server(("127.0.0.1", port), backlog=2048, reuse_port=True)
    given = ["--model-dir", model, "--inherit", f"{listener.fileno()},{ended}"]
    children.append(subprocess.Popen([sys.executable, "-c", start, *given], pass_fds=(listener.fileno(), ended)))
    listener.close()
sys.exit(max(child.wait() for child in children))
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


def cases(folder: Path) -> dict[str, tuple[Case, str]]:
    """Each kind of work, with the source that runs before its server."""
    network, small = np.random.default_rng(0).random((3, 96, 96), np.float32), np.ones(3, np.float32)
    found = {}
    for kind, body in (("torch", network), ("accelerator", small), ("python", small)):
        model = folder / kind
        module = Network() if kind == "torch" else torch.nn.Identity()
        graph = artifacts.add_graph(model, module, {"input": torch.zeros(1, *body.shape)})
        shutil.copytree(document.ROOT / "inference_code", model / "code" / "inference_code")
        if kind == "python":
            (model / "code" / "handler").mkdir()
            (model / "code" / "handler" / "slow.py").write_text(_PYTHON)
        handler = "handler/slow.py" if kind == "python" else None
        artifacts.finish(model, (graph,), "tensor", handler=handler)
        path = folder / f"{kind}.body"
        path.write_bytes(artifacts.npy(body))
        case = Case(kind, model, path, "application/x-npy", kind == "accelerator")
        found[kind] = (case, _CHIP if kind == "accelerator" else "")
    return found


def threads(case: Case, prelude: str, port: int, log: Path) -> Running:
    """One process with a thread for each core."""
    command = [sys.executable, "-c", _start(prelude), "--model-dir", str(case.model), "--port", str(port)]
    return started(command, environment(case) | {"ENDPOINT_WORKERS": str(CORES)}, port, log)


def processes(case: Case, prelude: str, port: int, log: Path) -> Running:
    """A process for each core on one socket. Ready when all of them have loaded the model."""
    command = [sys.executable, "-c", _PROCESSES, str(case.model), str(port), str(CORES), _start(prelude)]
    running = started(command, environment(case), port, log)
    end = time.monotonic() + _START_SECONDS
    while log.read_text(errors="replace").count("listening on ") < CORES:
        if time.monotonic() > end or running.process.poll() is not None:
            running.stop()
            raise SkippedError(f"not all processes became ready (the log is {log})")
        time.sleep(0.05)
    return running


LAYOUTS: dict[str, Callable[[Case, str, int, Path], Running]] = {"threads": threads, "processes": processes}


def _start(prelude: str) -> str:
    return f"{prelude}\nimport sys\nfrom inference_code.server import main\nsys.exit(main())"


def measure(
    layout: str, case: Case, prelude: str, connections: Sequence[int], seconds: float, load: Load
) -> list[Result]:
    """Start, warm up, measure each number of connections, end. Raises SkippedError."""
    log = HOME / "logs" / f"workers-{layout}-{case.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    running = LAYOUTS[layout](case, prelude, free_ports(), log)
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
        case, prelude = built[kind]
        for layout in LAYOUTS:
            console.print(f"{kind}: {layout}")
            try:
                load = by_wrk if has_wrk else by_asyncio
                results += measure(layout, case, prelude, options.connections, options.seconds, load)
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
