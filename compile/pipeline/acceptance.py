"""What the spec's compile.accept asks of a graph: share of supported operators, subgraphs, distance from the original.

Without the Neuron SDK coverage and subgraphs are predictions of compile.analysis, and every message says so. With it
they are the compiler's own figures, and `supported` counts the operators that were compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compile.analysis import CoverageReport
from compile.lowering import Prologue

if TYPE_CHECKING:
    from compile.pipeline.graph import BuiltGraph
    from endpoint_spec import EndpointSpec


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
        kind: {"count": found.count - found.supported_count, "reason": found.reason, "advice": found.advice}
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


def with_host(found: Account, parts: Prologue) -> Account:
    """The account of a device graph with its host part beside it: operators, tables, FLOP and bytes that cross."""
    if parts.host is None or found.coverage is None:
        return found
    return replace(found, coverage={**found.coverage, "host": parts.report.to_json()})


def shortfalls(spec: EndpointSpec, graph: BuiltGraph) -> list[str]:
    """What compile.accept asks for and this graph does not reach, each with the key to change."""
    accept = spec.compile.accept
    problems = []
    coverage, subgraphs = graph.coverage, graph.subgraphs
    if coverage is not None and coverage["supported"] < accept.min_supported * coverage["total"]:
        kinds = ", ".join(f"{kind} ({entry['count']})" for kind, entry in coverage["unsupported"].items())
        problems.append(
            f"{graph.case}: {coverage['supported']} of {coverage['total']} operators are supported "
            f"({_origin(coverage)}), compile.accept.min_supported asks for {accept.min_supported:.2%}. "
            f"Not supported: {kinds}"
        )
    if subgraphs is not None and subgraphs["count"] > accept.max_subgraphs:
        problems.append(
            f"{graph.case}: {subgraphs['count']} subgraphs ({_origin(subgraphs)}), "
            f"compile.accept.max_subgraphs allows {accept.max_subgraphs}"
        )
    problems += [
        f"{graph.case}: output {output.name} is {output.error / output.maximum:.1e} of its maximum away from the "
        f"original, compile.accept.lowering_tolerance allows {accept.lowering_tolerance:.1e}"
        for output in graph.parity.outputs
        if output.error > accept.lowering_tolerance * output.maximum
    ]
    return problems + [
        f"{graph.case}: output {name} on the device: {problem} (compile.accept.device_tolerance)"
        for name, found in (graph.device or {}).items()
        for problem in found.shortfalls({str(metric): value for metric, value in accept.device_tolerance.items()})
    ]


def _origin(figure: Mapping[str, Any]) -> str:
    return "predicted" if figure["predicted"] else "measured"
