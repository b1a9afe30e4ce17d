"""What the spec's compile.accept asks of a graph: share of supported operators, subgraphs, distance from the original.

Without the Neuron SDK coverage and subgraphs are predictions of compile.analysis, and every message says so. With it
they are the compiler's own figures, and `supported` counts the operators that were compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile.pipeline.graph import CompiledVariant
    from endpoint_spec import EndpointSpec


def shortfalls(spec: EndpointSpec, graph: CompiledVariant) -> list[str]:
    """What compile.accept asks for and this graph does not reach, each with the key to change."""
    accept = spec.compile.accept
    problems = []
    coverage, subgraphs = graph.coverage, graph.subgraphs
    if coverage is not None and coverage["supported"] < accept.min_supported * coverage["total"]:
        kinds = ", ".join(f"{kind} ({entry['count']})" for kind, entry in coverage["unsupported"].items())
        problems.append(
            f"{graph.variant}: {coverage['supported']} of {coverage['total']} operators are supported "
            f"({_origin(coverage)}), compile.accept.min_supported asks for {accept.min_supported:.2%}. "
            f"Not supported: {kinds}"
        )
    if subgraphs is not None and subgraphs["count"] > accept.max_subgraphs:
        problems.append(
            f"{graph.variant}: {subgraphs['count']} subgraphs ({_origin(subgraphs)}), "
            f"compile.accept.max_subgraphs allows {accept.max_subgraphs}"
        )
    problems += [
        f"{graph.variant}: output {output.name} is {output.error / output.maximum:.1e} of its maximum away from the "
        f"original, compile.accept.lowering_tolerance allows {accept.lowering_tolerance:.1e}"
        for output in graph.parity.outputs
        if output.error > accept.lowering_tolerance * output.maximum
    ]
    return problems + [
        f"{graph.variant}: output {name} on the device: {problem} (compile.accept.device_tolerance)"
        for name, found in (graph.device or {}).items()
        for problem in found.shortfalls({str(metric): value for metric, value in accept.device_tolerance.items()})
    ]


def _origin(figure: Mapping[str, Any]) -> str:
    return "predicted" if figure["predicted"] else "measured"
