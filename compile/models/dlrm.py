"""DLRM: the probability of a click, from 13 numbers and 26 categories (the Criteo data sets).

Network: our own (networks/dlrm.py). Files of facebookresearch/dlrm load, under the names of its dlrm_s_pytorch.py
(emb_l.0.weight ..., bot_l.0.weight ..., top_l.0.weight ...): dot interactions of different vectors, sigmoid at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from compile.definition import Bucket, Inputs, ModelDefinition
from compile.errors import CompileError
from compile.models import family
from compile.models.networks.dlrm import DLRM
from compile.models.parts.draw import drawer
from compile.models.parts.drawn import drawn
from compile.models.parts.options import require

# Rows of each table for the Criteo Kaggle data set, as the original's scripts print them.
KAGGLE = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network. `max_rows` cuts every table (the original's --max-ind-range); 0 cuts none."""

    numbers: int = 13
    rows: tuple[int, ...] = KAGGLE
    bottom: tuple[int, ...] = (512, 256, 64, 16)
    top: tuple[int, ...] = (512, 256, 1)
    max_rows: int = 0


# The whole tables hold 540 million numbers (2.2 GB); the first variant has the same dense layers over tables cut short.
VARIANTS = {"kaggle_10k": Sizes(max_rows=10_000), "kaggle": Sizes()}
DRAW = drawer(gain=1.4)


@family(name="dlrm", variants=VARIANTS, source="https://github.com/facebookresearch/dlrm")
def build(sizes: Sizes) -> ModelDefinition:
    """Inputs `dense` float32 (batch, numbers) and `sparse` int64 (batch, tables); output float32 (batch, 1).

    The bucket {numbers: 13, tables: 26} is the only one: sizes are the network's. Options: any field of `Sizes`.
    """
    require(
        "dlrm",
        (bool(sizes.rows) and min(sizes.rows) > 0, f"rows needs one positive number a table, not {sizes.rows}"),
        (bool(sizes.bottom), "bottom is empty: it ends with the width of the embeddings"),
        (sizes.top[-1:] == (1,), f"top ends with 1, the probability, not {sizes.top}"),
    )
    rows = tuple(min(count, sizes.max_rows or count) for count in sizes.rows)
    module = DLRM(sizes.numbers, rows, sizes.bottom, sizes.top).eval()

    only = {"numbers": sizes.numbers, "tables": len(rows)}

    def draw(seed: int, bucket: Bucket, batch: int) -> Inputs:
        check_bucket(bucket, only)
        generator = torch.Generator().manual_seed(seed)
        # Counts under a logarithm, as the original prepares them.
        dense = torch.log1p(torch.rand(batch, sizes.numbers, generator=generator) * 100)
        columns = [torch.randint(0, count, (batch,), generator=generator) for count in rows]
        return {"dense": dense, "sparse": torch.stack(columns, 1)}

    return ModelDefinition(
        graphs={"main": drawn(module, draw)},
        buckets=[only],
        task="tensor",
        task_settings={"ranges": {"sparse": [0, [count - 1 for count in rows]]}},
        initialise=DRAW,
    )


def check_bucket(bucket: Bucket, only: Mapping[str, int]) -> None:
    """Raises CompileError for any other bucket than the network's own (a lock writes its sizes as lists)."""
    found = {name: given if isinstance(given, int) else tuple(given) for name, given in bucket.items()}
    if found not in (dict(only), {name: (count,) for name, count in only.items()}):
        written = ", ".join(f"{name}: {count}" for name, count in only.items())
        raise CompileError(f"compile.buckets: {dict(bucket)} does not fit dlrm.", f"Give {{{written}}}, or nothing.")
