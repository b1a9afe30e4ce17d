"""What a traced graph is compiled for. One target a file; `resolve` picks it from the spec and the command line."""

from __future__ import annotations

from pathlib import Path

from compile.errors import CompileError
from compile.targets.base import CompilerInput, CompilerOutput, LoweredVariant, Target
from compile.targets.cpu import Cpu, Rehearsal, trace_for_cpu
from compile.targets.inf1 import Inf1
from compile.targets.inf2 import Inf2
from endpoint_spec.platforms import Image

__all__ = ["CompilerInput", "CompilerOutput", "LoweredVariant", "Target", "resolve", "trace_for_cpu"]

_TARGETS: dict[str, type[Inf1] | type[Inf2]] = {"inf1": Inf1, "inf2": Inf2}


def resolve(target: str, rehearse: bool, python: Path | None = None, elsewhere: Image | None = None) -> Target:
    """The target of a spec, or its rehearsal on a CPU. python: the interpreter with the compiler, by default this one.
    elsewhere: the container image in which a job compiles."""
    if target not in (*_TARGETS, "cpu"):
        raise CompileError(f"compile.target {target!r} is not known. Targets: {', '.join(_TARGETS)}, cpu.")
    if rehearse:
        return Rehearsal(elsewhere.torch if elsewhere else None)
    if target == "cpu":
        return Cpu()
    return _TARGETS[target](python, elsewhere)
