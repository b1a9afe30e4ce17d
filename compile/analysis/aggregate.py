"""One JSON for the graphs of a model: the report itself for one graph, sums with all reports below for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compile.analysis.report import CoverageReport, percent
from compile.analysis.rewrite_hints import removed_by


def merged(reports: Sequence[CoverageReport]) -> dict[str, Any]:
    """The contract of `--json`. With several graphs the top level sums them up and `graphs` holds each report."""
    graphs = [report.to_json() for report in reports]
    for graph in graphs:
        for kind, row in graph["operators"].items():
            row["rewrite"] = "" if row["supported"] else removed_by(kind)
    if len(graphs) == 1:
        return graphs[0]
    total, supported = sum(graph["total"] for graph in graphs), _sum(graph["supported"] for graph in graphs)
    return {
        "format": graphs[0]["format"],
        "name": ", ".join(graph["name"] for graph in graphs),
        "target": graphs[0]["target"],
        "environment": graphs[0]["environment"],
        "total": total,
        "supported": supported,
        "percent": percent(supported, total) if supported is not None and total else None,
        "operators": _operators(graphs),
        "partition": {
            "predicted": True,
            "safe": _plan([graph["partition"]["safe"] for graph in graphs], total),
            "as_logged": _plan([graph["partition"]["as_logged"] for graph in graphs], total),
        },
        "flops": {key: _sum(graph["flops"][key] for graph in graphs) for key in ("total", "host")},
        "graphs": graphs,
    }


def _sum(values: Any) -> int | None:
    known = list(values)
    return None if None in known else sum(known)


def _operators(graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for graph in graphs:
        for kind, row in graph["operators"].items():
            known = found.get(kind)
            if known is None:
                found[kind] = dict(row)
                continue
            for key in ("count", "supported_count", "places"):
                known[key] += row[key]
            for key in ("reason", "rewrite"):
                known[key] = known[key] or row[key]
            known["supported"] = known["supported"] and row["supported"]
    return found


def _plan(plans: Sequence[Mapping[str, Any] | None], total: int) -> dict[str, Any] | None:
    known = [plan for plan in plans if plan is not None]
    if len(known) < len(plans):
        return None
    sums = {key: sum(plan[key] for plan in known) for key in ("compiled", "subgraphs", "candidates")}
    return {
        "predicted": True,
        **sums,
        "percent": percent(sums["compiled"], total),
        "flops": {key: sum(plan["flops"][key] for plan in known) for key in ("total", "device", "host")},
        "unsafe": [line for plan in known for line in plan["unsafe"]],
    }
