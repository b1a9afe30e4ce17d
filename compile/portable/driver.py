"""Compiles a graph of a graph file, in the Python that has the target's compiler.

`python -m compile.portable.driver compile FOLDER` does what FOLDER/request.json describes; `... found MODULE
DISTRIBUTION...` prints what this Python has. Standard library and torch alone, from Python 3.10 and torch 1.13 on: it
runs on a compile machine that has nothing else of the project than this package. What it prints is the log.

request.json: target ("inf1", "inf2", or "cpu" for a rehearsal), packages (module and distributions), graph (the folder
of an unpacked graph file), variant (its number there), keywords (of the compiler's trace function, as JSON), workdir
(of the compiler), bounds (of each output: how far the replay may be from the recorded answers), trials (digests of the
inputs of each run on a chip), trial_file (with their tensors).
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import math
import platform
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from compile.portable import check, decode
from compile.portable import tensors as tensor_files
from compile.portable.diagnosis import STATED
from compile.portable.file import GraphFile, GraphFileError, PortableVariant
from compile.portable.joined import joined
from compile.portable.kept import ANSWERS, COMPILED
from compile.portable.process import REQUEST, RESULT
from compile.portable.replay import ReplayError, distance

DEVICE = Path("/dev/neuron0")  # the Neuron driver's first device


class DriverError(Exception):
    """What stands in the way of compiling; the text is one line."""


def main(arguments: Sequence[str]) -> int:
    """Runs one of the two commands; what goes wrong is printed in one line, and the exit code is 1."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s:%(name)s:%(message)s")
    if arguments[0] == "found":
        print(json.dumps(found(arguments[1], arguments[2:])))  # noqa: T201  (its answer)
        return 0
    try:
        run(Path(arguments[1]))
    except (DriverError, GraphFileError, ReplayError) as error:
        print(f"{STATED}{error}", flush=True)  # noqa: T201  (the log)
        return 1
    return 0


def found(module: str, distributions: Sequence[str]) -> dict[str, Any]:
    """What this Python has: python, torch, versions of the distributions, whether there is a device.

    problem: why the module cannot be imported ("missing", "placeholder", or the import's own words), or null; lacking:
    the module that is missing. stand_in: a module that is no installed distribution is a test's.
    """
    problem, lacking, imported = None, "", None
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        problem, lacking = "missing", error.name or module
    except Exception as error:  # PyPI's placeholder raises whatever its author chose
        problem = "placeholder" if "WRONG PACKAGE" in str(error).upper() else str(error)
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if imported is not None:
        versions.setdefault(distributions[0], str(getattr(imported, "__version__", "unknown")))
    return {
        "executable": sys.executable,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "versions": versions,
        "problem": problem,
        "lacking": lacking,
        "stand_in": imported is not None and imported is not torch and _is_stand_in(imported, distributions[0]),
        "device": DEVICE.exists(),
    }


def _is_stand_in(module: ModuleType, distribution: str) -> bool:
    """Only an installed distribution is the Neuron SDK; a module that merely lies on the path is a test's stand-in."""
    if getattr(module, "STAND_IN", False):
        return True
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return True
    home = Path(str(installed.locate_file(""))).resolve()
    return not Path(module.__file__ or "").resolve().is_relative_to(home)


def run(folder: Path) -> None:
    """Writes graph.pt and result.json into `folder`, and answers.safetensors where there is a chip.

    Raises DriverError, GraphFileError, ReplayError, and whatever the compiler raises.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    here = found(request["packages"][0], request["packages"][1:])
    if here["problem"] is not None:
        raise DriverError(f"{request['packages'][0]} cannot be imported here: {here['problem']} {here['lacking']}")
    file = decode.read(Path(request["graph"]))
    check.require(file)
    variant = file.variants[request["variant"]]
    with torch.no_grad():
        replayed = compared(file, variant, request["bounds"])
        whole, compiled = _compiled(file, variant, request)
    torch.jit.save(whole, str(folder / COMPILED))
    answers = None
    if request["target"] != "cpu" and (here["device"] or here["stand_in"]):
        answers = _answers(folder / COMPILED, request, folder / ANSWERS)
    kinds = Counter(node.kind() for node in _nodes(compiled.inlined_graph))
    # ru_maxrss: kilobytes of the largest process, of this one and of those that it waited for.
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    result = {
        "found": here,
        "replayed": replayed,
        "neuron_nodes": sum(count for kind, count in kinds.items() if kind.startswith("neuron::")),
        "operators": {kind: count for kind, count in sorted(kinds.items()) if kind.startswith("aten::")},
        "answers": answers,
        "peak_bytes": peak * 1024,
    }
    draft = folder / f"{RESULT}.new"
    draft.write_text(json.dumps(result), encoding="utf-8")
    draft.replace(folder / RESULT)


def compared(file: GraphFile, variant: PortableVariant, bounds: Sequence[float]) -> list[dict[str, Any]]:
    """How far each output of the replay is from the recorded answers, the worst over the references.

    Raises ReplayError beyond a bound: with both values, and the first node that differs.
    """
    module, worst = file.whole(variant), [0.0] * len(variant.outputs)
    for number in range(len(variant.references)):
        inputs, expected = file.reference(variant, number)
        for place, (one, other) in enumerate(zip(module(*inputs), expected, strict=True)):
            error = distance(one, other, nan_equal=True)
            if not error <= bounds[place]:
                name = variant.outputs[place].name
                raise ReplayError(
                    f"{variant}: output {name} of reference {number} differs by {error:.3e}, the bound is "
                    f"{bounds[place]:.3e}: {_first(one, other)}; {_first_node(file, variant)}"
                )
            worst[place] = max(worst[place], error)
    names = [entry.name for entry in variant.outputs]
    return [{"output": name, "error": error} for name, error in zip(names, worst, strict=True)]


def _first(one: Tensor, other: Tensor) -> str:
    """The entry that is furthest off, with both values."""
    apart = (one.double() - other.double()).abs().nan_to_num(nan=math.inf).flatten()
    place = int(apart.argmax())
    return f"entry {place} is {float(one.flatten()[place]):.7g} here, {float(other.flatten()[place]):.7g} was recorded"


def _first_node(file: GraphFile, variant: PortableVariant) -> str:
    """The first node whose values have another size than those that were recorded for the first reference."""
    inputs, _ = file.reference(variant, 0)
    host, device = file.parts(variant)
    module = file.joined(variant, host, device)
    for part in (host, device):
        if part is not None:
            part.largest = []
    module(*inputs)
    for name, part, described in (("host", host, variant.host), ("device", device, variant.device)):
        if part is None or described is None or part.largest is None:
            continue
        for number, (node, sizes) in enumerate(zip(described.nodes, part.largest, strict=True)):
            for size, recorded in zip(sizes, node.largest, strict=False):  # a file need not have them
                if not math.isclose(size, recorded, rel_tol=1e-3, abs_tol=1e-6):
                    where = f" ({node.where})" if node.where else ""
                    return (
                        f"the first node that differs is {name} node {number}, {node.operator}{where}: "
                        f"its largest value is {size:.7g} here, {recorded:.7g} was recorded"
                    )
    return "no single node differs by more than a thousandth"


def _compiled(
    file: GraphFile, variant: PortableVariant, request: dict[str, Any]
) -> tuple[torch.jit.ScriptModule, torch.jit.ScriptModule]:
    """The compiled graph with its host part, and what was compiled of it (the same where there is no host part)."""
    host, device = file.parts(variant)
    inputs, _ = file.reference(variant, 0)
    made: dict[str, Sequence[Tensor]] = {"input": inputs}
    if host is not None:
        made["host"] = host(*(inputs[number] for number in variant.wiring.host))
    example = tuple(made[source][number] for source, number in variant.wiring.device)
    sdk = importlib.import_module(request["packages"][0])
    trace = {"inf1": trace_inf1, "inf2": trace_inf2, "cpu": trace_cpu}[request["target"]]
    names = [entry.name for entry in variant.inputs]
    compiled = trace(sdk, device, example, {**request["keywords"], "compiler_workdir": request["workdir"]}, names)
    if host is None:
        return compiled, compiled
    return joined(host, compiled, variant.wiring, tuple(inputs)), compiled


def trace_cpu(
    sdk: Any, module: nn.Module, example: tuple[Tensor, ...], _: dict[str, Any], names: Sequence[str]
) -> torch.jit.ScriptModule:
    """The rehearsal of a compilation: the trace for the CPU, its operators as they are."""
    del names
    traced = sdk.jit.trace(module, example, check_trace=False)
    frozen: torch.jit.ScriptModule = sdk.jit.freeze(traced.eval(), optimize_numerics=False)
    return frozen


def trace_inf1(
    sdk: Any, module: nn.Module, example: tuple[Tensor, ...], keywords: dict[str, Any], _: Sequence[str]
) -> torch.jit.ScriptModule:
    """torch_neuron.trace with keywords as JSON has them."""
    if keywords.pop("float32_to_float16", False):
        keywords["optimizations"] = [sdk.Optimization.FLOAT32_TO_FLOAT16]
    compiled: torch.jit.ScriptModule = sdk.trace(module, example_inputs=example, **keywords)
    return compiled


def trace_inf2(
    sdk: Any, module: nn.Module, example: tuple[Tensor, ...], keywords: dict[str, Any], names: Sequence[str]
) -> torch.jit.ScriptModule:
    """torch_neuronx.trace with keywords as JSON has them. Raises DriverError for an alias of no tensor."""
    partitioner = keywords.pop("partitioner", None)
    if partitioner is not None:
        wanted = partitioner.get("ops_to_partition")
        more = {"ops_to_partition": set(wanted)} if wanted else {}
        keywords["partitioner_config"] = sdk.PartitionerConfig(**{**partitioner, **more})
    aliases = keywords.pop("input_output_aliases", None)
    if aliases:
        keywords["input_output_aliases"] = {
            _aliased(module, example, names, name): place for name, place in aliases.items()
        }
    # Without a chip the graph is recorded on the CPU; releases before that keyword do so by themselves.
    if not DEVICE.exists() and "cpu_backend" in inspect.signature(sdk.trace).parameters:
        keywords["cpu_backend"] = True
    compiled: torch.jit.ScriptModule = sdk.trace(module, example, **keywords)
    return compiled


def _aliased(module: nn.Module, example: Sequence[Tensor], names: Sequence[str], name: str) -> Tensor:
    """The tensor that an alias names: an input of the graph, or a buffer or parameter of the model."""
    known: dict[str, Tensor] = {}
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        known[path.removeprefix("state.")] = tensor
    known.update(zip(names, example, strict=True))
    if name not in known:
        raise DriverError(
            f"compile.inf2.input_output_aliases names {name!r}, which is neither an input nor a buffer of the graph. "
            f"Its inputs are {', '.join(names)}."
        )
    return known[name]


def _answers(path: Path, request: dict[str, Any], to: Path) -> list[list[str]]:
    """What the compiled graph answers to each trial, as digests in a file of tensors."""
    graph = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    if request["keywords"].get("inline_weights_to_neff") is False:
        importlib.import_module(request["packages"][0]).move_trace_to_device(graph, 0)
    trials = tensor_files.read(Path(request["trial_file"]))
    store = tensor_files.TensorStore()
    answers = []
    with torch.no_grad():
        for digests in request["trials"]:
            result = graph(*(trials[digest] for digest in digests))
            leaves = [result] if isinstance(result, Tensor) else list(result)
            answers.append([store.add(leaf) for leaf in leaves])
    store.write(to)
    return answers


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
