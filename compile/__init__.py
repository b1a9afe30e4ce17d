"""From a PyTorch model to an artifact and the proof that it equals the original.

A model is described by a `ModelDefinition`; `inferentia build NAME` turns it into model.tar.gz and a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile.definition import GraphDefinition, ModelDefinition, SampleRequest

__all__ = ["GraphDefinition", "ModelDefinition", "SampleRequest"]
__version__ = "0.1.0"  # as pyproject.toml has it


def __getattr__(name: str) -> Any:
    """compile.portable runs where nothing else of the project is, so this package imports nothing by itself."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from compile import definition  # noqa: PLC0415

    return getattr(definition, name)
