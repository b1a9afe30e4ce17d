"""All rewrites, in the order in which they are asked."""

from __future__ import annotations

from compile.lowering.rewrite import Rewrite
from compile.lowering.rewrites.activations import Activations
from compile.lowering.rewrites.attention import ScaledDotProductAttention
from compile.lowering.rewrites.complex_numbers import ComplexProducts
from compile.lowering.rewrites.dropout import DropoutOff
from compile.lowering.rewrites.empty_parts import EmptyParts
from compile.lowering.rewrites.grid_sample import GridSample
from compile.lowering.rewrites.in_place import InPlace
from compile.lowering.rewrites.indexing import IndexedReads
from compile.lowering.rewrites.interpolate import Interpolate
from compile.lowering.rewrites.norms import VectorNorms
from compile.lowering.rewrites.operator_aliases import Names
from compile.lowering.rewrites.pad import Pad
from compile.lowering.rewrites.windows import Windows
from compile.lowering.rewrites.writes import IndexedWrites

REWRITES: tuple[Rewrite, ...] = (
    Interpolate(),
    ScaledDotProductAttention(),
    Pad(),
    Activations(),
    VectorNorms(),
    DropoutOff(),
    EmptyParts(),
    IndexedReads(),
    Windows(),
    GridSample(),
    ComplexProducts(),
    Names(),
    IndexedWrites(),
    InPlace(),
)
