"""What can be wrong with a model before and while it is traced, said in one message each, with the way out."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compile.analysis.report import Partition
from compile.errors import CompileError
from compile.ir import graph as graphs
from compile.ir.flops import dtype_name
from compile.ir.graph import INTEGER_TYPES, Graph, place_of, short_path, trace

# torch_neuron.trace fails above this unless it is called with separate_weights=True.
CONSTANT_LIMIT = 1_900_000_000
_ROOM = str(Path(__file__).parents[1])
# What asks for a tensor's value in Python: methods, and functions of the same names.
# A comparison of sizes is a decision as well, but a harmless one: sizes are fixed. Only what depends on the data of an
# input is noted.
_DECIDE = (
    *("__bool__", "item", "tolist", "__float__", "__int__", "__index__", "__complex__", "__contains__"),
    *("numpy", "__array__", "__dlpack__", "equal", "allclose", "is_nonzero"),
)
# Composites of operators that PyTorch tags so; a trace holds them as they are.
_SELECTING = frozenset(
    {
        *("aten::nonzero_numpy", "aten::where", "aten::repeat_interleave.self_Tensor"),
        "aten::tensor_split.tensor_indices_or_sections",
    }
)
# Arguments that alone decide how many entries there are, and those that fix the number.
_DECIDING, _FIXING = ("repeats", "tensor_indices_or_sections"), ("num_classes", "output_size")
_COUNTS = ("aten::size", "aten::numel")
_SIZES_ALONE = (*_COUNTS, "aten::dim", "prim::Constant")
_Looks = Sequence[tuple[Callable[[Any], bool], list[str]]]  # whether a traced value matters, and where it is noted
_OWN = (str(Path(__file__).parent), str(Path(graphs.__file__).parent))
CONTAINER_TORCH = "1.13"

FUSED_PATH = {
    "aten::_transformer_encoder_layer_fwd": "nn.TransformerEncoderLayer",
    "aten::_native_multi_head_attention": "nn.MultiheadAttention",
    "aten::_transform_bias_rescale_qkv": "nn.MultiheadAttention",
}
# Kinds that newer releases of PyTorch record for code for which 1.13 records something else.
NEWER_KINDS = {
    "aten::scaled_dot_product_attention": "1.13 has none; it records matrix products and softmax",
    "aten::unflatten": "nn.MultiheadAttention projects keys and values with it, where 1.13 records aten::chunk",
    "aten::linalg_vector_norm": "1.13 records aten::norm or aten::frobenius_norm",
}


def checked_trace(module: Any, inputs: tuple[Any, ...], *, grad: bool) -> Graph:
    """Trace, or raise CompileError with what is wrong, where, and the way out."""
    model = _as_module(module)
    found = [*_input_problems(inputs), *_module_problems(model)]
    if found:
        raise CompileError(
            f"{name_of(module)} cannot be analyzed:\n  " + "\n  ".join(problem for problem, _ in found),
            "\n  -> ".join(dict.fromkeys(remedy for _, remedy in found)),
        )
    decisions: list[str] = []
    counts: list[str] = []
    looks = ((_depends_on_data, decisions), (_counts_data, counts))
    try:
        with ExitStack() as watched:
            watched.enter_context(_watched(Tensor, _DECIDE, looks))
            watched.enter_context(_watched(Tensor, ("__len__",), ((_sized_by_data, counts),)))
            for holder, names in _functions(model):
                watched.enter_context(_watched(holder, names, looks))
            graph = trace(model, inputs, grad=grad)
    except Exception as error:
        raise _trace_error(module, model, inputs, error) from error
    graph.decisions, graph.counts = tuple(dict.fromkeys(decisions)), tuple(dict.fromkeys(counts))
    return graph


def _functions(model: nn.Module) -> list[tuple[Any, list[str]]]:
    """Modules that have PyTorch's deciding functions, and their names there: torch, and where the model's classes are
    defined. A mode would see every call, and switch PyTorch's fused paths off."""
    deciding = [getattr(torch, name) for name in _DECIDE if hasattr(torch, name)]
    code = model.function if isinstance(model, _Function) else None
    places = {part.__class__.__module__ for part in model.modules()} | {getattr(code, "__module__", None)}
    holders = [torch, *(sys.modules[name] for name in sorted(filter(None, places)) if name in sys.modules)]
    return [
        (holder, [name for name, value in vars(holder).items() if any(value is one for one in deciding)])
        for holder in holders
    ]


class _Function(nn.Module):
    """A plain function as a module, so that it can be traced like one."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _as_module(module: Any) -> nn.Module:
    if isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise CompileError(
            f"{name_of(module)} is already TorchScript, which torch_neuron.trace returns unchanged, on the CPU.",
            "Give the eager nn.Module that it was made from.",
        )
    if isinstance(module, nn.Module):
        return module
    if callable(module):
        return _Function(module)
    raise CompileError(
        f"Expected an nn.Module or a function, got {type(module).__name__}.",
        "Return (model, example_inputs) or a ModelDefinition.",
    )


def name_of(module: Any) -> str:
    """The name of a module's class, or of a function."""
    return type(module).__name__ if isinstance(module, nn.Module) else getattr(module, "__name__", "function")


def _tensors(item: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(item, (list, tuple)):
        for index, part in enumerate(item):
            yield from _tensors(part, f"{path}[{index}]")
    elif isinstance(item, dict):
        for key, part in item.items():
            yield from _tensors(part, f"{path}[{key!r}]")
    else:
        yield path, item


def _input_problems(inputs: tuple[Any, ...]) -> list[tuple[str, str]]:
    found = []
    for path, item in _tensors(inputs, "input"):
        if not isinstance(item, Tensor):
            problem = f"{path} is {type(item).__name__} ({item!r:.60}): only tensors, and nests of them, can be traced."
            found.append((problem, "Fix such arguments in a wrapper module whose forward takes tensors only."))
        elif item.dtype == torch.float64:
            problem = f"{path} is float64 {tuple(item.shape)}: neuron-cc has no float64."
            found.append((problem, "Cast it: tensor.float() (and the model: model.float())."))
        elif item.is_complex():
            problem = f"{path} is {item.dtype}: neuron-cc has no complex numbers."
            found.append((problem, "Pass the real and imaginary parts as two inputs."))
    if not any(isinstance(item, Tensor) for _, item in _tensors(inputs, "input")):
        found.append(("There is no tensor among the example inputs.", "Give at least one example tensor."))
    return found


def _module_problems(model: nn.Module) -> list[tuple[str, str]]:
    doubles = [name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.dtype == torch.float64]
    more = f" and {len(doubles) - 1} more" if len(doubles) > 1 else ""
    remedy = "Cast the model: model.float()."
    return [(f"{name}{more}: the weights are float64; neuron-cc has no float64.", remedy) for name in doubles[:1]]


def _trace_error(module: Any, model: nn.Module, inputs: tuple[Any, ...], error: Exception) -> CompileError:
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    where = place_of(error, *_OWN)
    signature = inspect.signature(model.function if isinstance(model, _Function) else model.forward)
    if isinstance(error, TypeError) and "positional argument" in text and not _takes(signature, inputs):
        return CompileError(
            f"{name_of(module)}.forward{signature} does not take {len(inputs)} example inputs: {first}.",
            "Give one tensor per required argument, in order, or wrap the model in a module that fills in the rest.",
        )
    if any(mark in text for mark in _STRUCTURE):
        return CompileError(
            f"{name_of(module)} returns or takes a structure that cannot be traced: {first}",
            "Wrap it in a module whose forward returns a tensor or a tuple of tensors. "
            "A dict of tensors works with torch_neuron.trace(..., strict=False).",
        )
    if "is ambiguous" in text or "data-dependent" in text:
        return CompileError(
            f"{name_of(module)} decides by the data which code runs or which sizes result: {first}{where}",
            "Compute both branches and blend them with a mask, fix the size, or split the model there and keep the "
            "decision in the handler.",
        )
    return CompileError(
        f"{name_of(module)} cannot be traced: {type(error).__name__}: {first}{where}",
        "Call the model with the example inputs first: model.eval()(*example_inputs) must work without tracing. "
        "If it does, wrap the part that fails in a module of plain tensor operations.",
    )


def _takes(signature: inspect.Signature, inputs: tuple[Any, ...]) -> bool:
    try:
        signature.bind(*inputs)
    except TypeError:
        return False
    return True


# What PyTorch writes of inputs and outputs that its tracer cannot take.
_STRUCTURE = (
    *("Only tuples, lists and Variables", "Tracer cannot infer type", "Type inference failed", "outputs of type"),
    *("JIT inputs/outputs", "not a supported type", "cannot be understood by the tracer"),
)


@contextmanager
def _watched(holder: Any, names: Sequence[str], looks: _Looks) -> Iterator[None]:
    """Note every place where the model, while it is traced, calls one of these with a tensor that matters.

    holder: torch.Tensor or a Python module. torch.Tensor has some from its base class, so deleting ours restores them.
    """
    names = [name for name in names if hasattr(holder, name)]
    own = {name: vars(holder)[name] for name in names if name in vars(holder)}
    for name in names:
        setattr(holder, name, _watching(getattr(holder, name), looks))
    try:
        yield
    finally:
        for name in names:
            if name in own:
                setattr(holder, name, own[name])
            else:
                delattr(holder, name)


def _watching(original: Any, looks: _Looks) -> Any:
    def watched(*args: Any, **kwargs: Any) -> Any:
        if torch._C._get_tracing_state():
            tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
            values = [torch._C._get_value_trace(one) for one in tensors]  # type: ignore[attr-defined]
            for matters, seen in looks:
                if any(map(matters, values)):
                    seen.extend(_models_line())
        return original(*args, **kwargs)

    return watched


def _models_line() -> Iterator[str]:
    """Where the model's code is, above a watched call."""
    frames = [frame for frame in traceback.extract_stack(limit=13)[:-2] if "/torch/" not in frame.filename]
    # An assertion only stops: it decides nothing in an answer. What lowering asks is not the model's.
    own = frames and not frames[-1].filename.startswith(_ROOM)
    if own and not (frames[-1].line or "").startswith("assert"):
        yield f"{short_path(frames[-1].filename)}:{frames[-1].lineno}"


def _depends_on_data(value: Any) -> bool:
    """Whether a traced value was computed from tensor data and not from sizes and constants alone."""
    return any(node.kind() == "prim::Param" for node in _above(value))


def _counts_data(value: Any) -> bool:
    """Whether a traced value was computed from a size that follows tensor data."""
    return any(node.kind() in _COUNTS and _sized_by_data(node.inputsAt(0)) for node in _above(value))


def _sized_by_data(value: Any) -> bool:
    """Whether how many entries a traced value has was computed from tensor data."""
    return any(selects(node, _depends_on_data) for node in _above(value, through_numbers=False))


def selects(node: Any, depends: Callable[[Any], bool]) -> bool:
    """Whether data decides how many entries a traced operator makes. depends: whether a value follows the data."""
    if not node.kind().startswith("aten::"):
        return False
    tagged, names = _tagged(node.schema())
    if not tagged:
        return False
    given = dict(zip(names, node.inputs(), strict=False))
    if any(graphs.constant(given[name]) not in (None, -1) for name in _FIXING if name in given):
        return False
    if "indices" in given:
        masks = (value for value in given["indices"].node().inputs() if value.type().kind() == "TensorType")
        return any(value.type().dtype() == torch.bool and depends(value) for value in masks)
    return any(map(depends, [given[name] for name in _DECIDING if name in given] or given.values()))


@cache
def _tagged(schema: str) -> tuple[bool, list[str]]:
    """Whether an operator can make as many entries as its data says, by PyTorch's tags; and its arguments' names."""
    if "(" not in schema.lstrip("("):  # none that this torch knows
        return False, []
    parsed = torch._C.parse_schema(schema)
    name = f"{parsed.name}.{parsed.overload_name}".removesuffix(".")
    packet = getattr(torch.ops.aten, parsed.name.removeprefix("aten::"), None)
    overload = getattr(packet, parsed.overload_name or "default", None)
    tagged = name in _SELECTING or torch.Tag.dynamic_output_shape in getattr(overload, "tags", ())
    return tagged, [argument.name for argument in parsed.arguments]


def _above(value: Any, *, through_numbers: bool = True) -> Iterator[Any]:
    """The nodes that a traced value was computed from, up to where sizes are taken: they know nothing of the data.

    through_numbers: also those above a tensor of one number, whose size is none of theirs.
    """
    waiting, done = [value], set()
    while waiting:
        one = waiting.pop()
        node = one.node()
        number = one.type().kind() == "TensorType" and one.type().sizes() == []
        if node in done or (number and not through_numbers):
            continue
        done.add(node)
        yield node
        if node.kind() not in _SIZES_ALONE:
            waiting.extend(node.inputs())


def notes(graph: Graph, module: Any, as_logged: Partition | None) -> tuple[str, ...]:
    """What the reader of a report should know about this trace."""
    return (*_graph_notes(graph), *_version_notes(graph, module), *_structure_notes(graph, module, as_logged))


def _graph_notes(graph: Graph) -> Iterator[str]:
    kinds = {node.kind for node in graph.nodes}
    layers = sorted({layer for kind, layer in FUSED_PATH.items() if kind in kinds})
    if layers:
        yield (
            f"PyTorch's fused inference path replaced {', '.join(layers)} by one operator that torch-neuron does not "
            "know. It is taken only with gradients off: trace with --grad, as torch_neuron.trace does by default."
        )


def _version_notes(graph: Graph, module: Any) -> Iterator[str]:
    version = str(torch.__version__)
    if version.startswith(CONTAINER_TORCH + "."):
        return
    kinds = {node.kind for node in graph.nodes}
    known = [f"{kind}: {text}" for kind, text in NEWER_KINDS.items() if kind in kinds]
    if isinstance(module, nn.Module) and any(isinstance(part, nn.MultiheadAttention) for part in module.modules()):
        known.append("nn.MultiheadAttention: its reshapes and its mean over the heads are recorded differently")
    yield (
        f"Traced with torch {version}; the Inf1 container has torch 1.13.1, which records some code with other "
        "operators, so the numbers can differ from a torch-neuron log. "
        + (
            f"Known differences in this model: {'; '.join(known)}."
            if known
            else "No operator of this model is one of those known to be recorded differently."
        )
    )


def _structure_notes(graph: Graph, module: Any, as_logged: Partition | None) -> Iterator[str]:
    constants = sum(graph.values[value].bytes for value in graph.parameters)
    constants += sum(graph.values[n.outputs[0]].bytes for n in graph.nodes if n.kind == "prim::Constant")
    if constants > CONSTANT_LIMIT:
        yield (
            f"The weights and constants are {constants / 1e9:.2f} GB, above the 1.9 GB that one compiled graph can "
            "hold: pass separate_weights=True to torch_neuron.trace, or split the model."
        )
    names = {dtype_name(dtype) for dtype in INTEGER_TYPES}
    details = as_logged.details if as_logged else ()
    entering = [t for part in details if part.compiled for t in part.inputs if t.dtype in names]
    if entering:
        shapes = ", ".join(f"{tensor.dtype} {list(tensor.shape or ())}" for tensor in entering[:4])
        yield (
            f"Integer data would enter a device subgraph ({shapes}), which the Neuron runtime does not take as int64: "
            "the safe partition keeps it on the host. To move that part to the device, cast it before the model "
            "(input.float() or input.int())."
        )
    if graph.returns_dict:
        yield "The model returns a dict: torch_neuron.trace needs strict=False, or a wrapper that returns a tuple."
    if isinstance(module, nn.Module) and module.training:
        yield "The model was in training mode; it was traced in evaluation mode, as it is served."
