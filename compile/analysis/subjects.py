"""What to analyze: an endpoint, a built-in family, or a function of the user's, as modules with example inputs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compile import models
from compile.definition import Bucket, ModelDefinition
from compile.errors import CompileError, UsageError
from compile.frontend import loading
from compile.frontend.project import endpoint, family
from compile.ir.flat_module import flat_module
from compile.ir.graph import place_of
from compile.lowering.config import ALL, Rewriting, of_spec

_ROOM = str(Path(__file__).parents[1])
FORMS = "Give an endpoint's name, family:variant, package.module:function or path/to/file.py:function."


@dataclass(frozen=True)
class Subject:
    """One graph to analyze. `target` is None when WHAT does not state one; `rewriting` is that of a spec."""

    name: str
    module: Any
    inputs: tuple[Any, ...]
    target: str | None = None
    rewriting: Rewriting = ALL


def subjects(what: str, root: Path) -> list[Subject]:
    """The graphs that WHAT names. Raises UsageError when it names nothing, CompileError when its code fails."""
    left, colon, right = what.rpartition(":")
    if not colon:
        return _endpoint(what, root)
    if not left or not right:
        raise UsageError(f"{what!r} is not complete.", FORMS)
    if left.endswith(".py"):
        return _returned(_from_file(left, right, root), what)
    if left in models.families():
        return _graphs(family(left, right), what)
    if re.fullmatch(r"[A-Za-z_][\w.]*", left):
        return _returned(_from_module(left, right), what)
    raise UsageError(f"{what!r} is neither a built-in family nor a Python file or module.", FORMS)


def _endpoint(name: str, root: Path) -> list[Subject]:
    spec = endpoint(name, root)
    definition, rewriting = loading.definition(spec), of_spec(spec)
    found = _graphs(definition, name, *definition.sizes(spec.compile))
    return [replace(subject, target=spec.compile.target, rewriting=rewriting) for subject in found]


def _graphs(
    definition: ModelDefinition, name: str, buckets: Sequence[Bucket] = (), batches: Sequence[int] = (1,)
) -> list[Subject]:
    """Every graph at these buckets, by default at the definition's first."""
    found = []
    for role, graph in definition.graphs.items():
        for bucket, batch in itertools.product(buckets or definition.buckets[:1], batches):
            example = dict(graph.example_inputs(bucket, batch))
            sizes = ", ".join(f"{axis} {size}" for axis, size in bucket.items())
            flat = flat_module(graph.module, example)
            found.append(Subject(f"{name} {role}, {sizes}, batch {batch}", flat, tuple(example.values())))
    return found


def _from_file(file: str, function: str, root: Path) -> Any:
    path = root / file
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", FORMS)
    try:
        found = loading.entry_function(f"{file}:{function}", root)
    except CompileError as error:
        raise UsageError(error.problem.removeprefix("model.entry "), error.remedy or FORMS) from error
    return _called(found, f"{file}:{function}", loading.importable(path, root))


def _from_module(module: str, function: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            known = ", ".join(models.families())
            raise UsageError(
                f"There is no family and no Python module {module!r}. Families: {known}.", FORMS
            ) from error
        raise CompileError(f"{module} cannot be imported: {error}.", "Install it, or correct the import.") from error
    except Exception as error:
        raise _failed(f"{module} cannot be imported", error) from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise UsageError(f"{module} has no function {function!r}.", FORMS)
    return _called(found, f"{module}:{function}", contextlib.nullcontext())


def _called(function: Callable[..., Any], what: str, place: AbstractContextManager[None]) -> Any:
    """What a function of the user's returns, run inside `place`."""
    try:
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in required):
            names = ", ".join(p.name for p in required)
            raise UsageError(f"{what} needs arguments ({names}).", "Name a function that takes none.")
        with place:
            return function()
    except CompileError:
        raise
    except Exception as error:
        raise _failed(f"{what} failed", error) from error


def _failed(what: str, error: Exception) -> CompileError:
    first = (str(error).splitlines() or [""])[0]
    described = f"{what}: {type(error).__name__}: {first}{place_of(error, _ROOM)}"
    return CompileError(described, "Correct it there, then analyze again.")


def _returned(result: Any, what: str) -> list[Subject]:
    if isinstance(result, ModelDefinition):
        return _graphs(result, what)
    if isinstance(result, tuple) and len(result) == 2 and (isinstance(result[0], nn.Module) or callable(result[0])):
        module, inputs = result
        return [Subject(what, module, _example(module, inputs))]
    raise UsageError(
        f"{what} returned {type(result).__name__}, not a model.",
        "Return (model, example_inputs), where example_inputs is a tensor or a tuple of tensors, or a ModelDefinition.",
    )


def _example(module: Any, inputs: Any) -> tuple[Any, ...]:
    """Example inputs as torch.jit.trace takes them: a tuple. A dict is put into the order of forward's parameters."""
    if isinstance(inputs, Mapping):
        forward = module.forward if isinstance(module, nn.Module) else module
        known = list(inspect.signature(forward).parameters)
        unknown = [name for name in inputs if name not in known]
        ordered = [name for name in known if name in inputs]
        if unknown or ordered != known[: len(ordered)]:
            raise UsageError(
                f"The example inputs {', '.join(inputs)} are not the first parameters of forward ({', '.join(known)}).",
                "Give a tuple in forward's order, or wrap the model in a module that takes just these.",
            )
        return tuple(inputs[name] for name in ordered)
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
