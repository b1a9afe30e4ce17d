"""Operators and subgraphs of one graph in the few figures that the lock keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from compile.analysis import CoverageReport


@dataclass(frozen=True)
class Account:
    """Operators and subgraphs of one graph, as the lock has them; None where nothing is known (Inf2)."""

    coverage: Mapping[str, Any] | None
    subgraphs: Mapping[str, Any] | None


def account(report: CoverageReport) -> Account:
    """The prediction of a coverage report."""
    if report.supported is None or report.percent is None or report.safe is None:
        return Account(None, None)
    refused = {
        kind: {"count": found.refused, "reason": found.reason, "advice": found.advice}
        for kind, found in report.operators.items()
        if not found.supported
    }
    coverage = {
        "total": report.total,
        "supported": report.supported,
        "percent": report.percent,
        "predicted": True,
        "release": report.release,
        "unsupported": refused,
        "flops": {"total": report.flops, "host": report.safe.flops_host},
    }
    subgraphs = {"count": report.safe.subgraphs, "compiled": report.safe.compiled, "predicted": True}
    return Account(coverage, subgraphs)


def with_host(found: Account, host: Mapping[str, Any] | None) -> Account:
    """The account of a device graph with its host part beside it: operators, tables, FLOP and bytes that cross."""
    if host is None or found.coverage is None:
        return found
    return replace(found, coverage={**found.coverage, "host": host})
