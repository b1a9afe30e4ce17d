"""All rewrites, in the order in which they are asked."""

from __future__ import annotations

from compile.lowering.rewrite import Rewrite
from compile.lowering.rewrites.activations import Activations
from compile.lowering.rewrites.attention import ScaledDotProductAttention
from compile.lowering.rewrites.in_place import InPlace
from compile.lowering.rewrites.interpolate import Interpolate
from compile.lowering.rewrites.pad import Pad

REWRITES: tuple[Rewrite, ...] = (
    Interpolate(),
    ScaledDotProductAttention(),
    Pad(),
    Activations(),
    InPlace(),
)
