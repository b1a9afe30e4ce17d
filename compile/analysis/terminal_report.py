"""The report in the terminal: a summary at a glance, then each unsupported operator and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compile.analysis.log_comparison import Comparison
from compile.analysis.neuron_log import LogReport
from compile.analysis.report import INF2_COVERAGE, CoverageReport, Partition, Tensor
from compile.analysis.rewrite_hints import removed_by

_SHOWN_SUBGRAPHS = 8
_SHOWN_PLACES = 4


def show(report: CoverageReport, out: Console) -> None:
    """Print the whole report."""
    summary = Table(title=escape(title(report)), title_justify="left", show_header=False)
    for what, value in summary_rows(report):
        summary.add_row(what, escape(value))
    out.print(summary)
    unsupported = unsupported_rows(report, _SHOWN_PLACES)
    if unsupported:
        table = Table(*UNSUPPORTED, title="not supported", title_justify="left")
        for row in unsupported:
            table.add_row(*map(escape, row))
        out.print(table)
    if report.control_flow:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in report.control_flow.items())
        out.print(f"[yellow]Runs on the host, and is not counted:[/yellow] {kinds}")
    if report.safe and report.safe.details:
        out.print(_subgraphs(report.safe))
    if report.safe and report.safe.host_reasons:
        table = Table("times", "why", title="supported, but on the host in the safe partition", title_justify="left")
        for reason, count in report.safe.host_reasons.items():
            table.add_row(str(count), escape(reason))
        out.print(table)
    if report.as_logged and report.as_logged.unsafe:
        out.print("[yellow]As logged, the partition ignores these writes into shared memory:[/yellow]")
        for line in report.as_logged.unsafe:
            out.print(f"  {escape(line)}", highlight=False)
    _findings_and_notes(report, out)


def _findings_and_notes(report: CoverageReport, out: Console) -> None:
    for finding in report.findings:
        remedy = f"\n  -> {finding.remedy}" if finding.remedy else ""
        out.print(f"[bold yellow]finding[/bold yellow] {escape(str(finding) + remedy)}", highlight=False)
    for note in report.notes:
        out.print(f"[bold]note[/bold] {escape(note)}", highlight=False)


def title(report: CoverageReport) -> str:
    """What was analyzed, for which target, and how it was traced."""
    grad = "on" if report.environment["grad"] else "off"
    release = f", operators of Neuron {report.release}" if report.release else ""
    return f"{report.name} for {report.target}{release} (traced by torch {report.environment['torch']}, grad {grad})"


def summary_rows(report: CoverageReport) -> Iterator[tuple[str, str]]:
    """The report at a glance: what, and its value."""
    yield "operators", str(report.total)
    if report.supported is None:
        yield "coverage", INF2_COVERAGE
    else:
        by_name = f"by name alone, as AWS's tool looks at it, {report.supported_by_name}"
        yield "supported", f"{_share(report.supported, report.total)}; {by_name}"
    for label, plan in (("compiled", report.safe), ("as torch-neuron would log", report.as_logged)):
        if plan:
            candidates = f" of {plan.candidates} candidates" if plan.candidates != plan.subgraphs else ""
            count = f"{plan.subgraphs} subgraph{'' if plan.subgraphs == 1 else 's'}{candidates}"
            yield label, f"{_share(plan.compiled, report.total)} in {count}, predicted"
    yield "work", _work(report.flops)
    if report.safe:
        yield "of it on the host", f"{report.safe.host_share:.1f} % ({_work(report.safe.flops_host)}), predicted"
    yield "weights", _bytes(report.weight_bytes)
    yield "largest activation", _bytes(report.activation_bytes)
    yield "inputs", ", ".join(_tensor(tensor) for tensor in report.inputs)
    yield "outputs", ", ".join(_tensor(tensor) for tensor in report.outputs)
    host_time = report.extra.get("host_time")
    if host_time:
        yield "host time", f"{host_time['host_seconds'] * 1e3:.1f} ms estimated, {host_time['how']}"
    yield "time", f"trace {report.trace_seconds:.2f} s, analysis {report.analysis_seconds:.2f} s"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole if whole else 0:.2f} %)"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _work(flops: int) -> str:
    return f"{flops / 1e9:.2f} GFLOP" if flops >= 1e8 else f"{flops / 1e6:.3f} MFLOP"


def _tensor(tensor: Tensor) -> str:
    shape = "?" if tensor.shape is None else "x".join(map(str, tensor.shape)) or "scalar"
    return f"{tensor.dtype} {shape}"


UNSUPPORTED = ("operator", "times", "where", "why", "what to do")


def unsupported_rows(report: CoverageReport, most: int | None = None) -> list[tuple[str, ...]]:
    """The columns UNSUPPORTED of each kind that is not supported everywhere, with at most so many places."""
    rows: list[tuple[str, ...]] = []
    for kind, found in report.operators.items():
        if not found.supported:
            shown = [f"{place.count} x {place.module} {place.source}".strip() for place in found.places[:most]]
            rest = len(found.places) - len(shown)
            where = "\n".join(shown) + (f"\nand {rest} more places" if rest else "")
            times = f"{found.refused} of {found.count}" if found.supported_count else str(found.count)
            rewrite = removed_by(kind)
            rows.append((kind, times, where, found.reason, found.advice + (f" (rewrite {rewrite})" if rewrite else "")))
    return rows


def _subgraphs(plan: Partition) -> Table:
    table = Table(
        *("subgraph", "operators", "in", "out", "weights", "work", "least time on one core"),
        title="subgraphs of the safe partition (predicted; times are estimates, not measurements)",
        title_justify="left",
    )
    ordered = sorted(enumerate(plan.details), key=lambda item: -item[1].nodes)
    for number, part in ordered[:_SHOWN_SUBGRAPHS]:
        bound = f"{part.roofline.least_ms:.3f} ms, bound by {part.roofline.bound}" if part.roofline else "on the host"
        figures = (_bytes(part.bytes_in), _bytes(part.bytes_out), _bytes(part.weight_bytes), _work(part.flops))
        table.add_row(str(number), str(part.nodes), *figures, bound)
    if len(ordered) > _SHOWN_SUBGRAPHS:
        rest = sum(part.nodes for _, part in ordered[_SHOWN_SUBGRAPHS:])
        table.add_row(f"{len(ordered) - _SHOWN_SUBGRAPHS} more", str(rest))
    return table


def show_comparison(comparison: Comparison, out: Console) -> None:
    """Prediction and log side by side, then the operators counted differently."""
    table = Table("", "predicted", "log", "difference", title="prediction against the log", title_justify="left")
    for row in comparison.rows:
        table.add_row(row.what, *(_variant(value) for value in (row.predicted, row.logged, row.difference)))
    out.print(table)
    if comparison.operators:
        kinds = Table("operator", "predicted", "log", title="counted differently", title_justify="left")
        for kind, (ours, theirs) in comparison.operators.items():
            kinds.add_row(kind, _variant(ours), _variant(theirs))
        out.print(kinds)


def _variant(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def show_log(log: LogReport, out: Console) -> None:
    """What a log states."""
    table = Table(title=escape(f"{log.name}: torch-neuron compile log"), title_justify="left", show_header=False)
    rows = {
        "operators": log.total,
        "supported": log.supported,
        "fused": log.fused,
        "compiled": log.compiled,
        "subgraphs compiled": log.subgraphs,
        "subgraphs found": log.candidates,
        "compiler's exit codes": ", ".join(map(str, log.exit_codes)) or None,
        "result": _result(log),
        "fell back to the CPU": _fallback(log),
    }
    for what, value in rows.items():
        table.add_row(what, "not in the log" if value is None else str(value))
    out.print(table)
    for kind, count in log.unsupported.items():
        out.print(f"  not supported: {kind}" + (f" ({count})" if count else ""), highlight=False)
    for line in log.errors:
        out.print(f"[red]error[/red] {escape(line)}", highlight=False)
    for line in log.contradictions:
        out.print(f"[red]contradiction[/red] {escape(line)}", highlight=False)


def _result(log: LogReport) -> str:
    if log.partial:
        return "compiled in part"
    return {None: "unknown", True: "not compiled", False: "compiled"}[log.failed]


def _fallback(log: LogReport) -> str:
    names = f" ({', '.join(log.failed_graphs)})" if log.failed_graphs else ""
    if log.cpu_trace or log.compiled == 0 or log.subgraphs == 0:
        return f"everything{names}"
    if log.partial and log.subgraphs is not None and log.candidates is not None:
        return f"{log.candidates - log.subgraphs} of {log.candidates} subgraphs{names}"
    return {None: "unknown", True: "yes", False: "no"}[log.fallback] + names
