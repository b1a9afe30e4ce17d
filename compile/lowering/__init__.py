"""Lowering: the same computation in operators that Neuron takes, one rewrite a file.

``lower(module, example_inputs)`` returns an ordinary module that traces to plain operators, and a report of what was
done. Writing a rewrite of one's own: subclass ``FunctionRewrite`` or ``ModuleRewrite`` and pass it as ``extra``, or
keep it in a file for ``load_rewrites``. ``split(lowered, example_inputs)`` takes embedding look-ups and the integer
arithmetic of their indices out in front of what is compiled.
"""

from __future__ import annotations

from compile.lowering.embedding_placement import Budget, Table
from compile.lowering.host_split import Prologue, PrologueReport, split
from compile.lowering.lower import Lowered, lower
from compile.lowering.recorder import FOLD
from compile.lowering.registry import REWRITES
from compile.lowering.report import LeftAlone, LoweringReport, RewriteUse
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left, LoweringError, ModuleRewrite, Rewrite
from compile.lowering.user_rewrites import load_rewrites

__all__ = [
    "FOLD",
    "NOT_MINE",
    "REWRITES",
    "Budget",
    "Call",
    "FunctionRewrite",
    "Left",
    "LeftAlone",
    "Lowered",
    "LoweringError",
    "LoweringReport",
    "ModuleRewrite",
    "Prologue",
    "PrologueReport",
    "Rewrite",
    "RewriteUse",
    "Table",
    "load_rewrites",
    "lower",
    "split",
]
