"""The model before and after lowering, beside each other: for `analyze --lowered`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compile.analysis.aggregate import merged
from compile.analysis.decoding_cost import DecodingPlan
from compile.analysis.report import CoverageReport
from compile.analysis.rewrite_hints import removed_by
from compile.lowering import LoweringReport


@dataclass(frozen=True)
class Pair:
    """One graph: as it is, as lowered, what lowering did to it, and for a decoder's step its two forms."""

    original: CoverageReport
    lowered: CoverageReport
    lowering: LoweringReport
    decoding: DecodingPlan | None = None


def to_json(pairs: Sequence[Pair]) -> dict[str, Any]:
    """`original` and `lowered` are each as `analyze --json` gives them without --lowered."""
    original, lowered = merged([pair.original for pair in pairs]), merged([pair.lowered for pair in pairs])
    return {
        "format": original["format"],
        "name": original["name"],
        "target": original["target"],
        "original": original,
        "lowered": lowered,
        "lowering": [{"name": pair.original.name, **pair.lowering.to_json()} for pair in pairs],
    }


def show(pair: Pair, out: Console) -> None:
    """A summary of both, then the operators that lowering removed or left, then the rewrites with their costs."""
    out.print(_summary(pair))
    before, after = _unsupported(pair.original), _unsupported(pair.lowered)
    if before or after:
        table = Table("operator", "before", "after", "rewrite", title="not supported", title_justify="left")
        for kind in [*before, *(kind for kind in after if kind not in before)]:
            table.add_row(kind, str(before.get(kind, 0)), str(after.get(kind, 0)), removed_by(kind) or "-")
        out.print(table)
    used = [use for use in pair.lowering.uses.values() if use.applied]
    if used:
        table = Table("rewrite", "times", "FLOP added", "bytes added", "why", title="applied", title_justify="left")
        for use in used:
            table.add_row(use.name, str(use.applied), str(use.flops), str(use.bytes), escape(use.why))
        out.print(table)
    for left, times in pair.lowering.left.items():
        where = f"{left.operator} in {left.where or 'the model'}"
        out.print(f"[yellow]left alone[/yellow] {times} x {escape(where)}: {escape(left.reason)}", highlight=False)
    for note in pair.lowering.notes:
        out.print(f"[bold]note[/bold] {escape(note)}", highlight=False)


def _summary(pair: Pair) -> Table:
    title = f"{pair.original.name} for {pair.original.target}, before and after lowering"
    table = Table("", "original", "lowered", title=escape(title), title_justify="left")
    for row in zip(_LABELS, *map(_figures, (pair.original, pair.lowered)), strict=True):
        table.add_row(*row)
    return table


_LABELS = (
    *("operators", "supported", "subgraphs, predicted", "compiled, predicted", "work"),
    *("of it on the host, predicted", "weights and constants"),
)


def _figures(report: CoverageReport) -> Sequence[str]:
    plan = report.safe
    return (
        str(report.total),
        "unknown" if report.supported is None else f"{report.supported} ({report.percent} %)",
        str(plan.subgraphs) if plan else "-",
        str(plan.compiled) if plan else "-",
        f"{report.flops / 1e9:.3f} GFLOP",
        f"{plan.flops_host / 1e9:.3f} GFLOP" if plan else "-",
        f"{report.weight_bytes / 1e6:.2f} MB",
    )


def _unsupported(report: CoverageReport) -> dict[str, int]:
    return {kind: found.refused for kind, found in report.operators.items() if not found.supported}
