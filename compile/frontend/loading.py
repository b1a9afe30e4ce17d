"""From a spec to its ModelDefinition: a built-in family, the user's entry file, or a graph file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compile import models
from compile.definition import ModelDefinition
from compile.errors import CompileError, is_sigterm, users_code
from compile.frontend import graph_model
from compile.frontend.weights import seeded

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


def definition(spec: EndpointSpec) -> ModelDefinition:
    """Builds the spec's model with torch's seed set, so that a constructor's own draws are the same each time.

    Raises CompileError naming the family, the variant, or what is wrong with the entry file or the graph file.
    """
    if spec.model.graph is not None:
        return graph_model.definition(spec, spec.model.graph)
    with seeded(spec):
        if spec.model.entry is None:
            family, variant = models.find(spec.model.family or "", spec.model.variant)
            return family.build(variant, spec.model.options)
        return from_entry(spec.model.entry, spec.root, spec.model.options)


def from_entry(entry: str, root: Path, options: Any) -> ModelDefinition:
    """Calls `path.py:function` (path relative to `root`), with the options if it takes a parameter."""
    function = entry_function(entry, root)
    parameters = inspect.signature(function).parameters.values()
    takes_options = any(p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)
    if options and not takes_options:
        raise CompileError(f"model.options is given, but {entry} takes no parameter.", "Write it as build(options).")
    with importable(_entry_file(entry, root), root), users_code(f"model.entry {entry}"):
        built = function(options) if takes_options else function()
    if not isinstance(built, ModelDefinition):
        raise CompileError(
            f"model.entry {entry} returned a {type(built).__name__}, not a ModelDefinition.",
            "Return compile.ModelDefinition(graphs=..., buckets=..., task=...); examples/own-model shows one.",
        )
    return built


def entry_function(entry: str, root: Path) -> Callable[..., Any]:
    """The function that `path.py:function` names."""
    path, function = _entry_file(entry, root), entry.rpartition(":")[2]
    with importable(path, root):
        module = _module(path, root, entry)
    found = getattr(module, function, None)
    if not callable(found):
        raise CompileError(f"model.entry {entry}: {path.name} has no function {function!r}.")
    return found  # type: ignore[no-any-return]


def _entry_file(entry: str, root: Path) -> Path:
    name = entry.rpartition(":")[0]
    path = root / name
    if not name or not path.is_file():
        raise CompileError(f"model.entry {entry}: there is no file {path}.", "Write it as path/to/file.py:function.")
    return path


def _module(path: Path, root: Path, entry: str) -> ModuleType:
    name = _module_name(path, root)
    described = importlib.util.spec_from_file_location(name, path)
    if described is None or described.loader is None:
        raise CompileError(f"model.entry {entry}: {path} is no Python file.")
    module = importlib.util.module_from_spec(described)
    sys.modules[name] = module
    try:
        described.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file raises is the user's to read
        if is_sigterm(error):
            raise
        line = next((f.lineno for f in reversed(inspect.trace()) if f.filename == str(path)), 0)
        raise CompileError(f"model.entry {entry}: {path.name}, line {line}: {type(error).__name__}: {error}") from error
    return module


def _module_name(path: Path, root: Path) -> str:
    """The dotted name of a file in a package, which its relative imports start from; else a name of its own.

    Two entry files of one name must not be taken for each other.
    """
    file, folder = path.resolve(), root.resolve()
    if folder in file.parents and (path.parent / "__init__.py").is_file():  # an analysis takes a file from anywhere
        inside = file.relative_to(folder).with_suffix("").parts
        if len(inside) > 1 and all(part.isidentifier() for part in inside):
            return ".".join(inside)
    return "endpoint_entry_" + path.stem


@contextmanager
def importable(path: Path, root: Path) -> Iterator[None]:
    """The file's folder and the project root at the front of sys.path, as when running the file itself."""
    before = list(sys.path)
    sys.path[:0] = [str(path.parent), str(root)]
    try:
        yield
    finally:
        sys.path[:] = before
