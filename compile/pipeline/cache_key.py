"""What decides how a graph is captured, and how it comes out of the compiler: a sha256 each, the keys of the cache.

Two builds with the same keys make the same graph, so the second need neither prove nor compile it. They leave out what
is asked of a finished graph (compile.accept), how long it may take, and the other graphs of the matrix.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compile.definition import GraphVariant, ModelDefinition
from compile.frontend.weights import WeightsReport
from endpoint_spec.digests import canonical, code_of, digest, file_digest
from endpoint_spec.places import INSTALLED

# A change of what a variant's file holds, or of what its key means, makes other keys.
FORMAT = 2
_BESIDE_A_GRAPH = ("accept", "timeout", "buckets", "batch_sizes")
# Where compiling begins, here and in the process of its own; lowering finds its rewrites through a registry.
_ROOTS = ("compile/pipeline/graph.py", "compile/portable/driver.py")
_DEPTH = 5  # of attributes within attributes, such as a configuration's; what lies deeper counts by its type
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
PORTABLE = INSTALLED / "compile" / "portable"
_CAPTURING = ("capture.py", "differences.py")  # need more of the project
_TABLES = ("endpoint_spec/compiler_options.py", "endpoint_spec/data/compilers.yaml", "endpoint_spec/data/limits.yaml")


def versions() -> dict[str, str]:
    """Versions of what captures a graph, as the lock has them."""
    return {"transformers": metadata.version("transformers"), "captured-with-torch": str(torch.__version__)}


def shared(
    content: Mapping[str, Any], weights: WeightsReport, rehearsal: bool, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The part of the keys of captured variants that all of a build share.

    content: of the build, as digests.build_content has it. environment: what captures, and the torch that compiles.
    """
    return {
        "format": FORMAT,
        "model": {name: value for name, value in content["model"].items() if name != "weights"},
        "definition": content["code"],
        "weights": weights.identity,
        "compile": {name: value for name, value in content["compile"].items() if name not in _BESIDE_A_GRAPH},
        "code": _code(),
        "rehearsal": rehearsal,
        "grad": torch.is_grad_enabled(),
        "environment": dict(environment),
    }


def key(known: Mapping[str, Any], variant: GraphVariant) -> str:
    """64 hex digits. known: what `shared` returned."""
    own = {"role": variant.role, "bucket": dict(variant.bucket), "batch": variant.batch}
    return digest({**known, "variant": own})


def compiled_key(graph: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """64 hex digits, of a compiled variant. graph: the digest of what is compiled. request: to the driver, but for
    paths. environment: what is known of the machine that compiles: versions, or the image that has them."""
    driver = {path.name: file_digest(path) for path in driver_files()}
    return digest({"format": FORMAT, "graph": graph, "request": request, "driver": driver, "environment": environment})


def driver_files() -> list[Path]:
    """What reads a graph file and compiles it: all that a compile job has of this project's code."""
    return sorted(
        path for path in PORTABLE.rglob("*") if path.suffix in (".py", ".json") and path.name not in _CAPTURING
    )


@functools.cache
def _code() -> dict[str, str]:
    """The code that has a part in a graph, with operator table and compiler options. Families are the definition's."""
    roots = [INSTALLED / name for name in _ROOTS]
    code = code_of(roots, ("compile", "inference_code"), left_out=("compile/models",))
    data = [*(INSTALLED / "compile").rglob("*.json"), *(INSTALLED / name for name in _TABLES)]
    return code | {path.relative_to(INSTALLED).as_posix(): file_digest(path) for path in data}


def model_digest(definition: ModelDefinition) -> str:
    """sha256, in hex, of the graphs' modules as they are now: the same in every process of one environment.

    A user's entry may read files that no import shows, such as a configuration or a table. What it made of them is in
    the modules: their types, plain attributes, parameters and buffers.
    """
    found = hashlib.sha256()
    for role, graph in sorted(definition.graphs.items()):
        for name, module in graph.module.named_modules():
            own = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
            found.update(canonical([role, name, _name(type(module)), _plain(own, _DEPTH)]).encode())
        for name, tensor in [*graph.module.named_parameters(), *graph.module.named_buffers()]:
            found.update(canonical([role, name, _tensor(tensor)]).encode())
    return found.hexdigest()


def _tensor(tensor: torch.Tensor) -> list[Any]:
    kind = [list(tensor.shape), str(tensor.dtype), str(tensor.layout)]
    if tensor.is_meta:
        return kind
    values = tensor.detach().cpu().to_dense().resolve_conj().resolve_neg()
    values = values.dequantize() if values.is_quantized else values
    raw = values.contiguous().reshape(-1).view(torch.uint8).numpy()
    return [*kind, hashlib.sha256(raw.data).hexdigest()]


def _plain(value: Any, depth: int) -> Any:
    """A value as JSON has it, without anything that differs from one process to the next, such as an address."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | torch.dtype | torch.device):
        return repr(value)  # floats too: JSON has not all of them
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, nn.Module) or not depth:
        return _name(type(value))
    return _inside(value, depth - 1)


def _inside(value: Any, depth: int) -> Any:
    """A value that holds others, down to a depth."""
    if isinstance(value, Mapping):
        return [[_plain(key, depth), _plain(item, depth)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item, depth) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(canonical(_plain(item, depth)) for item in value)
    if callable(value):
        return _name(value)
    return [_name(type(value)), _plain(getattr(value, "__dict__", None), depth)]


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
