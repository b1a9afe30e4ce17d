"""From a PyTorch model to an artifact and the proof that it equals the original.

A model is described by a `ModelDefinition`; `inferentia build NAME` turns it into model.tar.gz and a lock.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile.definition import GraphDefinition, ModelDefinition, SampleRequest

# `python -m compile` (argv[0] is "-m" while Python locates it, https://docs.python.org/3/using/cmdline.html#cmdoption-m):
# until a command runs there is nothing to clean up, and Ctrl-C, which C++ being imported may swallow, ends it at once.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__all__ = ["GraphDefinition", "ModelDefinition", "SampleRequest"]
__version__ = "0.1.0"  # as pyproject.toml has it


def __getattr__(name: str) -> Any:
    """compile.portable runs where nothing else of the project is, so this package imports nothing by itself."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from compile import definition  # noqa: PLC0415

    return getattr(definition, name)
