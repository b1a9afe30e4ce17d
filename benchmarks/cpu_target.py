"""Target cpu: the forms in which a graph could be served, and how its workers share a processor.

    python -m benchmarks.cpu_target                 all models, batch 1 and 8, one and two threads
    python -m benchmarks.cpu_target --models bert,resnet --batches 1 --turns 20
    python -m benchmarks.cpu_target --write         also put the tables into docs/benchmarks.md

Measured by turns, one call of each form after the other: the least time, and the median of what a call's threads spent
of processors, which others on the machine change less; their ratio to ours is the speed. Forms: the model in
eager PyTorch; its trace, frozen, as it is (original) and as this project serves it (ours: the lowered graph); the same
after torch.jit.optimize_for_inference, which no file can hold; AOTInductor with its constants folded, which needs a C++
compiler where it is built. The error is the largest difference from eager, as a share of the maximum.

The second table is of ours: calls at once x threads of each (OMP_NUM_THREADS), in processes of their own, by turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the container; before torch reads it

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import document
from benchmarks.peers import HOME, ROOT
from benchmarks.preprocess import Rows, markdown, shown
from benchmarks.serving import machine, whole_list
from compile.definition import checked_inputs
from compile.frontend import weights
from compile.ir.flat_module import flat_module
from compile.lowering.for_target import lowered
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from compile.targets.cpu import trace_for_cpu
from endpoint_spec import EndpointSpec

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "base-uncased", {"tokens": 128}),
    "resnet": ("resnet", "resnet50", {"image": [224, 224]}),
    "dinov2": ("dinov2", "small", {"image": [224, 224]}),
    "depth": ("depth_anything_v2", "vits", {"image": [252, 252]}),
}
OURS = "ours: lowered, frozen"
SHARES = ((1, 2), (2, 1), (2, 2))  # calls at once, threads of each
console = Console(highlight=False)
Form = Callable[..., Any]
# Calls a graph from several threads for some seconds, on inputs of torch.rand or zeros; prints calls a second and the
# median milliseconds.
WORKER = """
import json, statistics, sys, threading, time, torch
graph, inputs = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2])
count, seconds, times = int(sys.argv[3]), float(sys.argv[4]), []
def call(until):
    with torch.no_grad():
        while time.perf_counter() < until:
            began = time.perf_counter()
            graph(*inputs)
            times.append(time.perf_counter() - began)
for length in (seconds / 2, seconds):
    times.clear()
    threads = [threading.Thread(target=call, args=(time.perf_counter() + length,)) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(json.dumps([len(times) / seconds, 1000 * statistics.median(times)]))
"""


def made(model: str, batch: int) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The model, its lowered graph, and two sets of inputs: an example and a reference."""
    family, variant, bucket = MODELS[model]
    spec = EndpointSpec.model_validate(
        {
            "name": model,
            "model": {"family": family, "variant": variant, "weights": "random:0"},
            "compile": {"target": "cpu", "buckets": [bucket], "batch_sizes": [batch]},
        }
    ).located(ROOT / "endpoints" / f"{model}.yaml", ROOT)
    planned = plan(spec, rehearse=False)
    weights.fill(spec, planned.definition, resolve(planned, Silent()).weights)
    (one,) = planned.variants
    graph = planned.definition.graphs[one.role]
    example, references = checked_inputs(graph, one.role, one.bucket, one.batch)
    flat, tensors = flat_module(graph.module, example), tuple(example.values())
    return flat, lowered(flat, tensors, "cpu").device, tensors, tuple(references[0].values())


def forms(flat: torch.nn.Module, low: torch.nn.Module, example: tuple[Tensor, ...], scratch: Path) -> dict[str, Form]:
    """Every form, by name."""
    names = [str(place) for place in range(len(example))]
    original, _ = trace_for_cpu(flat, example, names, optimize=True)
    ours, _ = trace_for_cpu(low, example, names, optimize=True)
    torch.jit.save(ours, str(scratch / "ours.pt"))
    optimized = torch.jit.optimize_for_inference(trace_for_cpu(low, example, names, optimize=True)[0])
    found: dict[str, Form] = {"eager": flat, OURS: ours, "original, frozen": original}
    found["ours, optimize_for_inference"] = optimized
    exported = torch.export.export(flat, example)
    package = torch._inductor.aoti_compile_and_package(
        exported, package_path=str(scratch / "graph.pt2"), inductor_configs={"freezing": True}
    )
    found["AOTInductor"] = torch._inductor.aoti_load_package(package)
    return found


def leaves(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else list(answer)


def error(answer: Any, expected: Any) -> float:
    """The largest difference of any output, as a share of its maximum."""
    pairs = zip(leaves(answer), leaves(expected), strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def compared(model: str, batch: int, found: dict[str, Form], inputs: tuple[Tensor, ...], turns: int) -> Rows:
    """A row for each form and number of threads."""
    rows: Rows = []
    expected = found["eager"](*inputs)
    errors = {name: error(form(*inputs), expected) for name, form in found.items()}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for turn in range(turns + 2):
            for name, form in found.items():
                began, spent = time.perf_counter(), time.process_time()
                form(*inputs)
                if turn >= 2:
                    times[name].append((time.perf_counter() - began, time.process_time() - spent))
        figures_of = {name: _figures(took) for name, took in times.items()}
        for name, (least, spent) in figures_of.items():
            speeds = [own / one for own, one in zip(figures_of[OURS], (least, spent), strict=True)]
            figures = (f"{least:.1f}", f"{spent:.1f}", f"{speeds[0]:.2f}", f"{speeds[1]:.2f}", f"{errors[name]:.0e}")
            rows.append((model, str(batch), str(threads), name, *figures))
    return rows


def _figures(took: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Milliseconds: the least of the clock's, and the median of the processors'."""
    clock, processors = zip(*took, strict=True)
    return 1000 * min(clock), 1000 * statistics.median(processors)


def shared(model: str, inputs: tuple[Tensor, ...], scratch: Path, turns: int) -> Rows:
    """A row for each way to share two processors."""
    torch.save(inputs, scratch / "inputs")
    taken: dict[tuple[int, int], list[tuple[float, float]]] = {share: [] for share in SHARES}
    for _ in range(turns):
        for calls, threads in SHARES:
            command = [sys.executable, "-c", WORKER, scratch / "ours.pt", scratch / "inputs", str(calls), "3"]
            given = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(command, env=given, check=True, capture_output=True, text=True)
            taken[calls, threads].append(tuple(json.loads(done.stdout)))
    rows: Rows = []
    for (calls, threads), figures in taken.items():
        rates, times = zip(*figures, strict=True)
        rows.append((model, str(calls), str(threads), f"{max(rates):.1f}", f"{min(times):.1f}"))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 2: wrong use."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.cpu_target", description=__doc__, formatter_class=formatter)
    parser.add_argument("--models", default=",".join(MODELS), help="default: %(default)s")
    parser.add_argument("--batches", type=whole_list, default=[1, 8], help="default: 1,8")
    parser.add_argument("--turns", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--busy", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    models = options.models.split(",")
    unknown = [model for model in models if model not in MODELS]
    if unknown or options.turns < 1:
        parser.error(f"--models are {', '.join(MODELS)}, and --turns at least 1")
    document.refuse_busy(parser, busy=options.busy, write=options.write)
    busy = os.getloadavg()[0]
    warnings.filterwarnings("ignore")
    head = ("model", "batch", "threads", "form", "least ms", "processor ms", "speed by clock", "by processor", "error")
    speeds: Rows = [head]
    shares: Rows = [("model", "calls at once", "threads of each", "calls a second", "ms of a call")]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for model in models:
            for batch in options.batches:
                flat, low, example, inputs = made(model, batch)
                speeds += compared(model, batch, forms(flat, low, example, Path(folder)), inputs, options.turns)
                if batch == options.batches[0]:
                    shares += shared(model, inputs, Path(folder), max(1, options.turns // 4))
                console.print(shown([speeds[0], *(row for row in speeds if row[:2] == (model, str(batch)))]))
    console.print(shown(shares))
    where = (
        f"CPU target, measured on {date.today().isoformat()} on {machine()}, torch {torch.__version__}; others "
        f"kept {busy:.1f} processors busy when the run began."
    )
    text = "\n\n".join([where, markdown(speeds), markdown(shares)])
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "cpu_target.md").write_text(text + "\n")
    if options.write:
        document.put("cpu_target", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
