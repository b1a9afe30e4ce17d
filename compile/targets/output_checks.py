"""Was it really compiled? What a log and a compiled graph show, against what the spec accepts."""

from __future__ import annotations

from typing import Any

from compile.analysis.neuron_log import LogReport
from compile.analysis.summary import Account
from compile.portable.diagnosis import Finding, first, line_with
from compile.targets.base import LoweredVariant
from compile.targets.process_runner import Finished, failure

_AFTER = r"\(post-compilation\)"
_PIECES = r"successfully\s+compiled\s+\d+\s+sub-graphs"
_ANALYZE = "Run inferentia analyze NAME to see what stays on the host"


def require_compiled(lowered: LoweredVariant, finished: Finished, log: LogReport | None) -> None:
    """Raises CompileError for a graph of torch_neuron that is not compiled as far as compile.accept asks."""
    found = first(finished.text)
    if found is not None:
        raise failure(lowered, finished.text, found)
    if log is None or log.total is None or log.compiled is None:
        last = line_with(finished.text, r"\S") or "(nothing)"
        cause = "the log does not say how many operators were compiled, so nothing is proven"
        raise failure(
            lowered,
            finished.text,
            Finding(last, cause, "Is it torch_neuron that compiled? Its messages have level INFO."),
        )
    after = line_with(finished.text, _AFTER)
    if log.compiled == 0:
        cause = f"none of {log.total} operators was compiled: the graph would run on the host alone"
        raise failure(lowered, finished.text, Finding(after, cause, f"{_ANALYZE}."))
    _require_nodes(lowered, finished, after)
    _require_share(lowered, finished, log, after)
    pieces = log.subgraphs if log.subgraphs is not None else finished.neuron_nodes
    allowed = lowered.spec.compile.accept.max_subgraphs
    if pieces > allowed:
        line = line_with(finished.text, _PIECES) or after
        cause = f"{pieces} subgraphs were compiled, compile.accept.max_subgraphs allows {allowed}"
        raise failure(
            lowered, finished.text, Finding(line, cause, f"{_ANALYZE}, or accept more subgraphs in the spec.")
        )


def _require_share(lowered: LoweredVariant, finished: Finished, log: LogReport, after: str) -> None:
    asked = lowered.spec.compile.accept.min_supported
    total, compiled = log.total or 0, log.compiled or 0
    if compiled < asked * total:
        left = {kind: log.other_operators.get(kind) or log.unsupported.get(kind) for kind in _left(log)}
        kinds = ", ".join(f"{kind} ({count})" if count else kind for kind, count in left.items())
        cause = (
            f"{compiled} of {total} operators were compiled ({compiled / total:.2%}), compile.accept.min_supported "
            f"asks for {asked:.2%}. On the host: {kinds or 'the log does not say which'}"
        )
        raise failure(lowered, finished.text, Finding(after, cause, f"{_ANALYZE}, or accept less in the spec."))


def _left(log: LogReport) -> list[str]:
    return sorted({*log.other_operators, *log.unsupported})


def require_fused(lowered: LoweredVariant, finished: Finished) -> None:
    """Raises CompileError for a graph of torch_neuronx without compiled code, or in more pieces than accepted.

    Without a partitioner torch_neuronx compiles the whole graph or raises, so there is no share to compare.
    """
    found = first(finished.text)
    if found is not None:
        raise failure(lowered, finished.text, found)
    last = line_with(finished.text, r"\S") or "(nothing)"
    _require_nodes(lowered, finished, last)
    accept = lowered.spec.compile.accept
    if finished.neuron_nodes > accept.max_subgraphs:
        cause = f"{finished.neuron_nodes} subgraphs were compiled, compile.accept.max_subgraphs allows "
        raise failure(
            lowered,
            finished.text,
            Finding(last, f"{cause}{accept.max_subgraphs}", "Accept more subgraphs in the spec."),
        )


def _require_nodes(lowered: LoweredVariant, finished: Finished, line: str) -> None:
    """A TorchScript that calls nothing of Neuron is a CPU graph, whatever its log holds."""
    if finished.neuron_nodes == 0:
        kinds = sum(finished.operators.values())
        cause = f"the graph has no neuron:: node: its {kinds} operators would all run on the host"
        raise failure(
            lowered,
            finished.text,
            Finding(line, cause, f"{_ANALYZE}; a module that is scripted already is not compiled."),
        )


def account_of(log: LogReport | None) -> Account:
    """The log's figures as the lock has them. `supported` counts what was compiled, not what could have been."""
    if log is None or log.total is None or log.compiled is None:
        return Account(None, None)
    refused: dict[str, Any] = {
        kind: {
            "count": log.other_operators.get(kind) or log.unsupported.get(kind) or 0,
            "reason": "torch-neuron lists it as not supported" if kind in log.unsupported else "stays on the host",
            "advice": "",
        }
        for kind in _left(log)
    }
    coverage = {
        "total": log.total,
        "supported": log.compiled,
        "percent": round(100.0 * log.compiled / log.total, 2),
        "predicted": False,
        "unsupported": refused,
    }
    pieces = None if log.subgraphs is None else {"count": log.subgraphs, "compiled": log.compiled, "predicted": False}
    return Account(coverage, pieces)


def account_of_nodes(finished: Finished) -> Account:
    """Inf2: no operator counts, but the pieces are in the graph."""
    return Account(None, {"count": finished.neuron_nodes, "predicted": False})
