"""The built-in families, one a file, found by their names.

A file here defines `build(sizes) -> ModelDefinition` and registers it with `@family(...)`: nothing that a user's own
entry file could not do.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compile.definition import ModelDefinition
from compile.errors import CompileError
from compile.models.parts.options import with_options

# From a family's own dataclass of sizes.
Builder = Callable[[Any], ModelDefinition]


@dataclass(frozen=True)
class Family:
    """A registered family: the sizes of its variants, the task it serves, where it comes from, and its builder."""

    name: str
    variants: Mapping[str, Any]
    task: str
    source: str
    builder: Builder

    def build(self, variant: str, options: Mapping[str, Any]) -> ModelDefinition:
        """A variant, its sizes changed by the spec's model.options. Raises CompileError for impossible ones."""
        return self.builder(with_options(self.name, self.variants[variant], options))


_FAMILIES: dict[str, Family] = {}


def family(
    *, name: str, variants: Mapping[str, Any], source: str, task: str = "tensor"
) -> Callable[[Builder], Builder]:
    """Registers a builder. The file must bear the family's name: digests find the code by it."""

    def register(build: Builder) -> Builder:
        if build.__module__.rpartition(".")[2] != name:
            raise CompileError(f"The family {name!r} must live in compile/models/{name}.py, not in {build.__module__}.")
        _FAMILIES[name] = Family(name, variants, task, source, build)
        return build

    return register


def families() -> dict[str, Family]:
    """Every built-in family by name, in alphabetical order."""
    return {name: _family(name) for name in _names()}


def _names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def _family(name: str) -> Family:
    """The family of a file. Only that file is imported: all of them together take seconds."""
    importlib.import_module(f"{__name__}.{name}")
    return _FAMILIES[name]


def find(name: str, variant: str | None) -> tuple[Family, str]:
    """The family and the variant (the first one when the spec names none).

    Raises CompileError listing what exists.
    """
    known = _names()
    if name not in known:
        raise CompileError(
            f"model.family {name!r} is not known. Families: {', '.join(known)}.",
            "Use one of them, or your own model with model.entry: path.py:function.",
        )
    found = _family(name)
    chosen = variant or next(iter(found.variants))
    if chosen not in found.variants:
        raise CompileError(
            f"model.variant {chosen!r} is not a variant of {name}. Variants: {', '.join(found.variants)}."
        )
    return found, chosen
