"""What stands in a model's way, found before anything expensive.

`analyze`, `build` and `verify` look for the same, and the lock keeps what was found. A finding of ACCEPTABLE refuses a
build unless compile.accept.findings names its kind, one of NOTED never does, and any other always.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compile.analysis.report import Finding
from compile.analysis.trace_checks import checked_trace, selects
from compile.errors import CompileError, users_code
from compile.ir.flat_module import FlatModule
from compile.ir.graph import Graph, Node
from compile.lowering import Prologue
from compile.lowering.graph_module import TracedStep
from compile.portable.capture import own_path
from compile.portable.replay import GraphPart
from endpoint_spec.endpoint import FINDINGS as ACCEPTABLE

NOTED = ("hook", "input-written")
_SIZES = frozenset({"aten::size", "aten::numel", "aten::unbind"})
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule")
_PLAIN = (Tensor, nn.Parameter, getattr(nn, "Buffer", nn.Parameter))


def refused(findings: Sequence[Finding], accepted: Collection[str]) -> list[Finding]:
    """Those that are in the way. accepted: kinds that the spec allows."""
    return [found for found in findings if found.kind not in NOTED and found.kind not in accepted]


def require(findings: Sequence[Finding], accepted: Collection[str], what: str) -> None:
    """Raises CompileError naming all that are in the way. accepted: kinds that the spec allows."""
    found = refused(findings, accepted)
    if not found:
        return
    remedies = list(dict.fromkeys(one.remedy for one in found))
    kinds = sorted({one.kind for one in found} & set(ACCEPTABLE))
    if kinds:
        remedies.append(f"Where it is meant so, allow it: compile: {{accept: {{findings: [{', '.join(kinds)}]}}}}.")
    lines = "\n  ".join(map(str, found))
    raise CompileError(f"{what} cannot be built as it is:\n  {lines}", "\n  -> ".join(remedies))


def of_module(module: object) -> list[Finding]:
    """What shows in a module without running it."""
    if not isinstance(module, nn.Module):
        problem = f"{type(module).__name__} is no torch.nn.Module"
        return [Finding("no-module", "", problem, "Give an nn.Module in evaluation mode.")]
    found = [finding for path, part in _parts(module, "") for finding in _of_part(path, part)]
    return found + [finding for path, tensor in _state(module) for finding in _of_tensor(path, tensor)]


def _parts(part: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Every module by its path, but for what is inside of TorchScript."""
    yield path, part
    if not isinstance(part, torch.jit.ScriptModule):
        for name, child in part.named_children():
            yield from _parts(child, f"{path}.{name}" if path else name)


def _of_part(path: str, part: nn.Module) -> Iterator[Finding]:
    name = type(part).__name__
    if isinstance(part, torch.jit.ScriptModule):
        problem = f"{part.original_name} is TorchScript: no Python code is left to lower and to check"
        yield Finding("torchscript", path, problem, "Give the nn.Module that it was scripted or traced from.")
        return
    if name in _WRAPPERS:
        inner = "_orig_mod" if name == "OptimizedModule" else "module"
        yield Finding("wrapper", path, f"{name} stands around the model", f"Give what is inside of it: model.{inner}.")
    if ".quantized" in type(part).__module__:
        problem = f"{type(part).__module__}.{name} computes in int8 kernels of the CPU"
        yield Finding("quantized", path, problem, "Give the float32 model that it was quantized from.")
    if part.training:
        yield Finding("training", path, f"{name} is in training mode", "Call .eval() on the whole model.")
    hooks = len(part._forward_hooks) + len(part._forward_pre_hooks)
    if hooks:
        yield Finding("hook", path, f"{hooks} hook(s) of {name} run in the trace and are fixed in it")


def _of_tensor(path: str, tensor: Tensor) -> Iterator[Finding]:
    if torch.nn.parameter.is_lazy(tensor):
        yield Finding("lazy", path, "has no shape before the model has run", "Run the model once, then return it.")
        return
    what = f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_meta:
        remedy = "Make the model outside of torch.device('meta'), or load weights with assign=True."
        yield Finding("meta", path, f"{what} is on the meta device: it has no values", remedy)
    elif type(tensor) not in _PLAIN:
        problem = f"{what} is a {type(tensor).__name__}, whose code no trace keeps"
        yield Finding("tensor-subclass", path, problem, "Give plain tensors, as by .as_subclass(torch.Tensor).")
    elif tensor.is_quantized:
        yield Finding("quantized", path, f"{what} is quantized", "Give the float32 model that it was quantized from.")
    elif tensor.layout != torch.strided:
        yield Finding("layout", path, f"{what} has the layout {tensor.layout}", "Give it as .to_dense().")
    elif tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        yield Finding("dtype", path, f"{what} is not float32", "Call .float() on the model; a spec's options cast it.")


@contextmanager
def watched(flat: FlatModule, inputs: Mapping[str, Tensor], found: list[Finding]) -> Iterator[Mapping[str, Tensor]]:
    """Gives copies of the inputs for one run of the model inside, and adds to `found` what the run wrote into."""
    given = {name: tensor.clone() for name, tensor in inputs.items()}
    state = {path: (tensor, tensor._version) for path, tensor in _state(flat.model)}
    versions = {name: tensor._version for name, tensor in given.items()}
    yield given
    for name, tensor in given.items():
        if tensor._version != versions[name]:
            problem = "forward writes into this input; what a caller sent stays as it is"
            found.append(Finding("input-written", name, problem))
    after = dict(_state(flat.model))
    for path, (tensor, version) in state.items():
        if after.get(path) is not tensor or tensor._version != version:
            problem = "forward writes it, so that one request would change the next"
            found.append(Finding("state", path, problem, ACCEPTABLE["state"]))


def of_subject(flat: FlatModule, inputs: Mapping[str, Tensor]) -> list[Finding]:
    """What shows in a module and in one run of it. Raises CompileError for what no spec can accept."""
    found = of_module(flat.model)
    require(found, ACCEPTABLE, type(flat.model).__name__)
    with watched(flat, inputs, found) as given, torch.no_grad(), users_code(f"forward of {type(flat.model).__name__}"):
        flat.call(list(given.values()))
    return found


def of_code(flat: FlatModule, inputs: Iterable[Tensor]) -> list[Finding]:
    """Where the model's Python decides by the data. Raises CompileError when it cannot be traced."""
    return of_graph(checked_trace(flat, tuple(inputs), grad=False), whole=False)


def of_graph(graph: Graph, *, whole: bool = True) -> list[Finding]:
    """What shows in a trace. whole: also what lowering may take out: float64, and sizes that the data decides."""
    reads, selecting = _by_data(graph)
    problem = "Python decides here by a tensor's value; the trace keeps the way that the example took"
    found = [Finding("data-dependent", place, problem, ACCEPTABLE["data-dependent"]) for place in graph.decisions]
    problem = "Python reads here how many entries the data selects; the trace keeps the number of the example"
    found += [
        Finding("data-dependent", place, problem, ACCEPTABLE["data-dependent"])
        for place in dict.fromkeys((*graph.counts, *(node.source() or node.scope for node in reads)))
    ]
    if not whole:
        return found
    places: dict[str, str] = {}
    for node in graph.counted:
        if any(graph.values[value].dtype == torch.float64 and graph.values[value].shape for value in node.outputs):
            places.setdefault(node.source() or node.scope, node.kind)
    remedy = ACCEPTABLE["float64"]
    found += [Finding("float64", place, f"{kind} computes in float64", remedy) for place, kind in places.items()]
    return found + _sized((node.kind, node.scope, node.source()) for node in selecting)


def _by_data(graph: Graph) -> tuple[list[Node], list[Node]]:
    """Where a size is read that follows the data of an input, and what makes as many entries as that data says."""
    data, sized = set(graph.inputs), set[int]()
    reads, selecting = [], []
    for node in graph.nodes:
        if node.kind in _SIZES and node.inputs[0] in sized:
            reads.append(node)
        if node.kind in ("aten::size", "aten::numel", "aten::dim") or data.isdisjoint(node.inputs):
            continue
        data.update(node.outputs)
        if selects(node.handle, lambda value: value.unique() in data):
            selecting.append(node)
        elif sized.isdisjoint(node.inputs):
            continue
        sized.update(value for value in node.outputs if graph.values[value].shape != ())
    return reads, selecting


def of_host(parts: Prologue) -> list[Finding]:
    """What data decides the size of in a lowered model's host part, which `analyze` does not trace."""
    if not isinstance(parts.host, GraphPart):
        return []
    weights = parts.host.names
    steps = [step for step in parts.host.steps if isinstance(step, TracedStep)]
    return _sized(
        (step.kind, step.module, step.source)
        for step in steps
        if step.node and selects(step.node.handle, lambda value: value.unique() not in weights)
    )


def _sized(places: Iterable[tuple[str, str, str]]) -> list[Finding]:
    """Of operators by kind, module and source line."""
    remedy = "Keep the size: torch.where, masked_fill or a product with the mask; or select in the handler."
    found = [
        Finding(
            "data-sized",
            ", ".join(place for place in (own_path(module), source) if place),
            f"{kind} makes as many entries as the data says; every size of a graph is fixed",
            remedy,
        )
        for kind, module, source in places
    ]
    return list(dict.fromkeys(found))


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers (also those that no state dict has), by path."""
    yield from module.named_parameters()
    yield from module.named_buffers()
