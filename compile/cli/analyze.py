"""`inferentia analyze` and `inferentia read-log`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from compile.analysis import before_after, html_report, preflight, terminal_report
from compile.analysis.aggregate import merged
from compile.analysis.analyze import analyze
from compile.analysis.before_after import Pair
from compile.analysis.decoding_cost import DecodingPlan, is_step, plan
from compile.analysis.host_time import measure
from compile.analysis.log_comparison import compare
from compile.analysis.neuron_log import LogReport, read_log_file
from compile.analysis.operators import find_release
from compile.analysis.partition import Rules
from compile.analysis.report import CoverageReport, Finding
from compile.analysis.subjects import FORMS, Subject, subjects
from compile.cli.options import Root, Verbose, err, log_to_stderr, out
from compile.cli.plan_tables import decoding_table
from compile.errors import CompileError, UsageError
from compile.files import write_text
from compile.ir.flat_module import FlatModule, flat_module
from compile.lowering import Lowered as LoweredModel
from compile.lowering.config import ALL, Rewriting, made
from compile.lowering.for_target import parted


class Target(str, Enum):
    """The chip family."""

    inf1 = "inf1"
    inf2 = "inf2"


What = Annotated[str, typer.Argument(help=FORMS, show_default=False)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to this file (- for stdout).")]
HtmlFile = Annotated[Path | None, typer.Option("--html", help="Write one self-contained HTML page to this file.")]
FailUnder = Annotated[
    float | None, typer.Option("--fail-under", help="Exit 1 when less than this percentage is supported.")
]
Sdk = Annotated[str | None, typer.Option("--sdk", help="Operators as of this Neuron release, e.g. 2.13 or 1.19.0.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--op-whitelist", help="Only these operators count as supported, as torch_neuron.trace takes them."),
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Operators that stay on the host.")]
Grad = Annotated[bool, typer.Option("--grad/--no-grad", help="Trace with gradients on, as torch_neuron.trace does.")]
Against = Annotated[Path | None, typer.Option("--against", help="A torch-neuron compile log to compare with.")]
TargetOption = Annotated[Target | None, typer.Option("--target", help="Default: the endpoint's, or inf1.")]
Lowered = Annotated[
    bool,
    typer.Option("--lowered", help="Also as `build` lowers it, beside the original. The threshold is for this one."),
]
RewritesFile = Annotated[
    Path | None,
    typer.Option("--rewrites", help="With --lowered: a Python file with rewrites of your own, beside the spec's."),
]
HostTime = Annotated[bool, typer.Option("--host-time", help="Measure on this CPU to estimate the host's time.")]
LogFile = Annotated[Path, typer.Argument(help="The output of torch_neuron.trace.", show_default=False)]


def analyze_command(  # noqa: PLR0913, PLR0917 (one parameter an option)
    what: What,
    json_: JsonFile = None,
    html: HtmlFile = None,
    fail_under: FailUnder = None,
    sdk: Sdk = None,
    op_whitelist: Kinds = None,
    exclude: Exclude = None,
    grad: Grad = True,
    against: Against = None,
    target: TargetOption = None,
    lowered: Lowered = False,
    rewrites: RewritesFile = None,
    host_time: HostTime = False,
    minimum_segment_size: Annotated[int, typer.Option(help="As torch_neuron.trace takes it.")] = 2,
    single_fusion_ratio_threshold: Annotated[float, typer.Option(help="As torch_neuron.trace takes it.")] = 0.6,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Will it compile? Operators, the predicted partition and the work of a model, without the Neuron SDK.

    Exit 1 when less than --fail-under is supported or the model cannot be traced, 2 on wrong use.
    """
    log_to_stderr(verbose)
    _check(fail_under, sdk, json_, html)
    extra = _rewrites(rewrites, lowered, root)
    whitelist = _kinds(op_whitelist, "--op-whitelist")
    log = _log(against) if against else None
    options: dict[str, Any] = {
        "sdk": sdk,
        "grad": grad,
        "op_whitelist": whitelist or None,
        "exclude": _kinds(exclude, "--exclude"),
        "rules": Rules(minimum_segment_size, single_fusion_ratio_threshold),
    }
    with err.status(f"building {what}"):
        found = subjects(what, root)
    reports, pairs = [], []
    for subject in found:
        chosen = target.value if target else subject.target or "inf1"
        if chosen == "cpu":
            raise UsageError(
                f"{what} is for the target cpu, which runs every operator: there is no coverage to count.",
                f"See what a chip would run of it: inferentia analyze {what} --target inf1",
            )
        with err.status(f"tracing {subject.name}"):
            findings = _findings(subject)
            report = _one(subject, subject.name, chosen, host_time, options)
        if lowered:
            with err.status(f"lowering {subject.name}"):
                result = _lowered(subject, subject.rewriting.with_more(extra))
                after, host, more = _device_part(replace(subject, module=result.module), chosen)
                decoding = _decoding(subject, chosen)
                original = report
                report = _one(after, f"{subject.name}, lowered", chosen, host_time, options)
                host |= {"decoding": decoding.to_json()} if decoding else {}
                report = replace(report, extra={**report.extra, **host}, findings=(*report.findings, *more))
                pairs.append(Pair(original, report, result.report, decoding))
        reports.append(replace(report, findings=tuple(dict.fromkeys([*findings, *report.findings]))))
    _give(reports, pairs, log, json_, html)
    _threshold(reports, fail_under)


def _findings(subject: Subject) -> list[Finding]:
    """What a module shows before it is traced; a plain function has neither parts nor state."""
    if not isinstance(subject.module, FlatModule):
        return preflight.of_module(subject.module) if isinstance(subject.module, torch.nn.Module) else []
    return preflight.of_subject(subject.module, dict(zip(subject.module.names, subject.inputs, strict=True)))


def _one(subject: Subject, name: str, target: str, host_time: bool, options: dict[str, Any]) -> CoverageReport:
    report = analyze(subject.module, subject.inputs, target=target, **options)
    extra = {"host_time": measure(report, subject.module, subject.inputs)} if host_time else {}
    return replace(report, name=name, extra=extra)


def _lowered(subject: Subject, rewriting: Rewriting) -> LoweredModel:
    """The module as `build` lowers it: in evaluation mode, its outputs flattened to a tuple."""
    if not isinstance(subject.module, torch.nn.Module):
        raise UsageError(f"{subject.name}: --lowered needs a module, not a function.", "Put it into an nn.Module.")
    parameters = inspect.signature(subject.module.forward).parameters
    flat = subject.module
    if not isinstance(flat, FlatModule):
        flat = flat_module(flat, dict(zip(parameters, subject.inputs, strict=False)))
    return rewriting.lower(flat.eval(), subject.inputs, subject.name)


def _device_part(subject: Subject, target: str) -> tuple[Subject, dict[str, Any], list[Finding]]:
    """What `build` compiles of a lowered model, and what it leaves to the host in front of that (nothing on Inf2), with
    what is found there."""
    assert isinstance(subject.module, torch.nn.Module)  # noqa: S101  (it was lowered)
    parts = parted(subject.module, subject.inputs, target, subject.rewriting)
    if parts.host is None:
        return subject, {}, []
    device = replace(subject, module=parts.device, inputs=parts.device_inputs)
    return device, {"host_part": parts.report.to_json()}, preflight.of_host(parts)


def _decoding(subject: Subject, target: str) -> DecodingPlan | None:
    """The step of a built-in decoder against its other form; None for any other graph."""
    flat = subject.module
    if not isinstance(flat, FlatModule) or not is_step(flat.model):
        return None
    inputs = dict(zip(flat.names, subject.inputs, strict=True))
    return plan(flat.model, inputs, target, subject.name, subject.rewriting)


def _rewrites(path: Path | None, lowered: bool, root: Path) -> Rewriting:
    if path is None:
        return ALL
    if not lowered:
        raise UsageError("--rewrites belongs to --lowered.", "Add --lowered.")
    try:
        return made([path], root)
    except CompileError as error:
        raise UsageError(f"--rewrites: {error.problem}", error.remedy) from error


def _give(
    reports: Sequence[CoverageReport],
    pairs: Sequence[Pair],
    log: LogReport | None,
    json_: Path | None,
    html: Path | None,
) -> None:
    comparisons = [compare(report, log) for report in reports] if log else []
    result = before_after.to_json(pairs) if pairs else merged(reports)
    if comparisons:
        last = result["lowered"] if pairs else result
        last["against"] = [comparison.to_json() for comparison in comparisons]
    if str(json_) != "-":
        for number, report in enumerate(reports):
            if pairs:
                before_after.show(pairs[number], out)
                decoding = pairs[number].decoding
                if decoding:
                    out.print(decoding_table([decoding]))
            terminal_report.show(report, out)
            if comparisons:
                terminal_report.show_comparison(comparisons[number], out)
    _write_json(result, json_)
    if html:
        html_report.write([item for pair in pairs for item in (pair.original, pair.lowered)] or reports, html)
        err.print(f"wrote {html}", highlight=False)


def _write_json(result: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    write_text(path, text)
    err.print(f"wrote {path}", highlight=False)


def _check(fail_under: float | None, sdk: str | None, *files: Path | None) -> None:
    if fail_under is not None and not 0 <= fail_under <= 100:
        raise UsageError(f"--fail-under {fail_under:g} is not a percentage.", "Give a number from 0 to 100.")
    find_release(sdk)
    for path in files:
        if path is not None and str(path) != "-" and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}.", "Create it first.")


def _log(path: Path) -> LogReport:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.", "Give the path of a torch-neuron compile log.")
    return read_log_file(path)


def _kinds(given: Sequence[str] | None, option: str) -> frozenset[str]:
    """Operator kinds, repeated or separated by commas. `linear` means `aten::linear`."""
    names = [name.strip() for text in given or () for name in text.split(",") if name.strip()]
    wrong = [name for name in names if not name.replace("::", "").replace("_", "").isalnum()]
    if wrong:
        raise UsageError(f"{option}: {', '.join(wrong)} is not an operator.", "Write aten::NAME, separated by commas.")
    return frozenset(name if "::" in name else f"aten::{name}" for name in names)


def _threshold(reports: Sequence[CoverageReport], fail_under: float | None) -> None:
    if fail_under is None:
        return
    unknown = [report.name for report in reports if report.percent is None]
    if unknown:
        raise UsageError(
            f"--fail-under: the coverage of {', '.join(unknown)} is unknown, Inf2 has no public operator table.",
            "Use --fail-under with --target inf1.",
        )
    low = [r for r in reports if r.supported is not None and 100 * r.supported < fail_under * r.total]
    for report in low:
        err.print(
            f"[bold red]under the threshold[/bold red] {report.name}: {report.supported} of {report.total} operators "
            f"are supported ({report.percent} %), --fail-under asks for {fail_under:g} %.",
            highlight=False,
            soft_wrap=True,
        )
    if low:
        raise typer.Exit(1)


def read_log_command(
    log: LogFile,
    json_: Annotated[Path | None, typer.Option("--json", help="Write JSON to this file (- for stdout).")] = None,
) -> None:
    """Read a torch-neuron compile log: what was counted, fused, compiled and refused."""
    _check(None, None, json_)
    found = _log(log)
    if str(json_) != "-":
        terminal_report.show_log(found, out)
    _write_json(found.to_json(), json_)


COMMANDS = {"analyze": analyze_command, "read-log": read_log_command}
