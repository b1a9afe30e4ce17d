"""Embedding tables: looked up on the host, or a product with one-hot rows on the device. What each costs, and which.

The chip has no gather. A table that stays on the host costs its rows' bytes on the way to the device; a product costs
2 x positions x rows x width FLOP and the table in device memory, and its one-hot rows' bytes cross instead. One-hot
rows are made on the host, from integers (a comparison of large ids would be wrong in bfloat16), so a product is exact
in every precision that holds 0 and 1, as long as the table is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Budget:
    """What products may cost one graph: FLOP of one inference and bytes of tables on the device, all together.

    host_flops: the most floating-point work for which an index may be computed on the host.
    """

    flops: int = 200_000_000
    bytes: int = 32 * 2**20
    host_flops: int = 1_000_000


@dataclass(frozen=True)
class Table:
    """One table of a graph with both costs, the choice ("host" or "product") and its reason.

    positions: rows read by one inference, of all its look-ups. sums: whether its rows are summed where they are read
    (an embedding bag). crossing bytes: from host to device by one inference. shared: the device reads it too (a tied
    output layer).
    """

    name: str
    rows: int
    width: int
    item_bytes: int
    look_ups: int
    positions: int
    results: int
    choice: str
    reason: str
    sums: bool = False
    shared: bool = False

    @property
    def bytes(self) -> int:
        """Size of the table."""
        return self.rows * self.width * self.item_bytes

    @property
    def product_flops(self) -> int:
        """FLOP of the product with one-hot rows."""
        return 2 * self.results * self.rows * self.width

    @property
    def product_bytes(self) -> int:
        """Bytes of one-hot rows that cross for the product."""
        return self.results * self.rows * self.item_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of looked-up rows that cross."""
        return self.results * self.width * self.item_bytes

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description."""
        costs = ("bytes", "product_flops", "product_bytes", "host_bytes")
        return {**asdict(self), **{name: getattr(self, name) for name in costs}}


def choose(tables: Sequence[Table], finite: Sequence[bool], budget: Budget) -> list[Table]:
    """The tables with choice and reason; the cheapest products are taken first while the budget lasts.

    A product is chosen only where fewer bytes cross for it.
    """
    flops, bytes_ = budget.flops, budget.bytes
    found = list(tables)
    for number in sorted(range(len(tables)), key=lambda place: tables[place].product_flops):
        table = tables[number]
        held, choice = 0 if table.shared else table.bytes, "host"
        if table.sums:
            reason = "its rows are summed where they are read: fewer bytes cross"
        elif not finite[number]:
            reason = "it holds a value that is not finite, and 0 times that is not 0"
        elif table.product_bytes >= table.host_bytes:
            reason = f"{table.rows:,} rows are no fewer than {table.width:,} columns: its rows cross in fewer bytes"
        elif table.product_flops > flops:
            reason = f"its product takes {table.product_flops:,} FLOP, {flops:,} of the budget are left"
        elif held > bytes_:
            reason = f"its product holds {held:,} bytes on the device, {bytes_:,} of the budget are left"
        else:
            flops, bytes_ = flops - table.product_flops, bytes_ - held
            saved, choice = table.host_bytes - table.product_bytes, "product"
            reason = f"{saved:,} bytes fewer cross, for {table.product_flops:,} FLOP"
        found[number] = replace(table, choice=choice, reason=reason)
    return found
