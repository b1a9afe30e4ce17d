"""From a PyTorch model to an artifact and the proof that it equals the original.

A model is described by a `ModelDefinition`; `inferentia build NAME` turns it into model.tar.gz and a lock.
"""

from __future__ import annotations

import signal
import sys

# `python -m compile` (argv[0] is "-m" while Python locates it, https://docs.python.org/3/using/cmdline.html#cmdoption-m):
# until a command runs there is nothing to clean up, and Ctrl-C, which C++ being imported may swallow, ends it at once.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from compile.definition import GraphDefinition, ModelDefinition, SampleRequest

__all__ = ["GraphDefinition", "ModelDefinition", "SampleRequest"]
