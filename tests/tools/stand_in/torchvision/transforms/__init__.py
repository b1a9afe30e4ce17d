"""Names that timm.data reads when it is imported."""

from __future__ import annotations


class _Transform:
    """No transform: it may be named, and subclassed."""


def __getattr__(name: str) -> type[_Transform]:
    if name.startswith("_"):
        raise AttributeError(name)
    return _Transform
