"""A prediction beside a torch-neuron log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compile.analysis.neuron_log import LogReport
from compile.analysis.report import CoverageReport, percent


@dataclass(frozen=True)
class Row:
    """One figure of both sides; None where one of them has none."""

    what: str
    predicted: float | None
    logged: float | None

    @property
    def difference(self) -> float | None:
        """Prediction minus log."""
        if self.predicted is None or self.logged is None:
            return None
        return round(self.predicted - self.logged, 2)


@dataclass(frozen=True)
class Comparison:
    """Totals, and the operator kinds whose counts differ."""

    rows: Sequence[Row]
    operators: Mapping[str, tuple[int | None, int | None]]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [{**asdict(row), "difference": row.difference} for row in self.rows],
            "operators": {
                kind: {"predicted": ours, "logged": theirs} for kind, (ours, theirs) in self.operators.items()
            },
        }


def compare(report: CoverageReport, log: LogReport) -> Comparison:
    """The prediction as logged (data edges only) against the log: the two that are made by like rules."""
    plan = report.as_logged
    compiled = log.compiled if log.compiled else log.fused
    fused = percent(compiled, log.total) if compiled is not None and log.total else None
    rows = [
        Row("operators", report.total, log.total),
        Row("supported by name", report.supported_by_name, log.supported),
        Row("fused (before compilation)", plan.compiled if plan else None, log.fused),
        Row("compiled", plan.compiled if plan else None, log.compiled),
        Row("percent of operators fused", plan.percent if plan else None, fused),
        Row("subgraphs", plan.subgraphs if plan else None, log.subgraphs),
        Row("candidates", plan.candidates if plan else None, log.candidates),
    ]
    # A log without operator tables is compared by what it calls unsupported alone.
    logged = {kind: log.count(kind) for kind in log.operators()}
    complete = bool(log.compiled_operators or log.other_operators)
    differing: dict[str, tuple[int | None, int | None]] = {}
    for kind in sorted({*(report.operators if complete else ()), *logged}):
        ours = report.operators[kind].count if kind in report.operators else 0
        theirs = logged.get(kind, 0)
        if theirs is not None and ours != theirs:
            differing[kind] = (ours, theirs)
    return Comparison(rows, differing)
