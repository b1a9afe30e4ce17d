"""`verify`: does the artifact equal its lock; does each lowered block equal the model; what does precision cost?"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from compile.cli.build import reporting
from compile.cli.options import Json, Rehearse, Root, Verbose, log_to_stderr, out
from compile.errors import UsageError
from compile.frontend.project import endpoint

if TYPE_CHECKING:
    from compile.progress import Reporter
    from compile.verification.inputs import VerifiedVariant
    from compile.verification.per_module import PerModule, Row
    from compile.verification.precision import GraphPrecision
    from compile.verification.precision_emulation import Mode


class Precision(str, Enum):
    """How much a compiler rounds."""

    fp32 = "fp32"
    bf16_matmult = "bf16-matmult"
    bf16_all = "bf16-all"
    fp16 = "fp16"


What = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The endpoint: endpoints/NAME.yaml. With --per-module or --precision also family:variant.",
        show_default=False,
    ),
]
PerModuleOption = Annotated[
    bool,
    typer.Option("--per-module", help="Compare every block of the lowered model with the original's, and time both."),
]
Leaves = Annotated[bool, typer.Option("--leaves", help="With --per-module: single layers too, not blocks alone.")]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Emulate reduced precision on this CPU and recommend the fastest mode within device_tolerance. "
        "With --per-module: what this mode costs each block."
    ),
]
Rewrites = Annotated[
    Path | None,
    typer.Option(help="With --per-module or --precision: a file with rewrites of your own, beside those of the spec."),
]


def verify_command(  # noqa: PLR0913, PLR0917  (a command line)
    name: What,
    rehearse: Rehearse = False,
    per_module: PerModuleOption = False,
    leaves: Leaves = False,
    precision: PrecisionOption = None,
    rewrites: Rewrites = None,
    json_: Json = False,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Check the built artifact again: digests, parity with the model, and the sample's answer. Exit 1 if one fails.

    With --per-module or --precision the model is made anew and lowered; no artifact is needed. Exit 1 when a block
    diverges, or when the precision asked for misses device_tolerance.
    """
    log_to_stderr(verbose)
    if not per_module and precision is None:
        if leaves or rewrites:
            raise UsageError("--leaves and --rewrites belong to --per-module or --precision.", "Add one of them.")
        _artifact(name, rehearse, json_, root)
        return
    if leaves and not per_module:
        raise UsageError("--leaves belongs to --per-module.", "Add it.")
    from compile.verification.inputs import trials  # noqa: PLC0415  (seconds of imports, --help need not wait)
    from compile.verification.precision_emulation import MODES  # noqa: PLC0415

    mode = next((mode for mode in MODES if precision and mode.name == precision.value), None)
    with reporting(json_) as reporter:
        with reporter.step("make the model"):
            found = trials(name, root, rewrites)
        tables = [_per_module(trial, leaves, mode, reporter) for trial in found] if per_module else []
        graphs = [_precision(trial, reporter) for trial in found] if mode else []
    passed = all(table.first is None for table in tables)
    passed = passed and all(result.passed for graph in graphs for result in graph.modes if result.mode == mode)
    if json_:
        typer.echo(json.dumps(_finite(_document(name, passed, tables, graphs, mode)), indent=2))
    else:
        for table in tables:
            _show_modules(table, mode)
        if mode:
            _show_precision(graphs, mode)
    if not passed:
        raise typer.Exit(1)


def _artifact(name: str, rehearse: bool, json_: bool, root: Path) -> None:
    from compile.pipeline.verify import keep, verify  # noqa: PLC0415

    if ":" in name:
        raise UsageError(f"{name} is no endpoint, and has no artifact.", "Add --per-module or --precision.")
    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        checks = verify(spec, rehearsal=rehearse, reporter=reporter)
    keep(spec, rehearse, checks)
    passed = all(check.passed for check in checks)
    if json_:
        typer.echo(json.dumps({"name": name, "passed": passed, "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        table = Table("check", "", "detail", title=f"verify {name}", title_justify="left")
        for check in checks:
            table.add_row(check.what, "[green]✓[/green]" if check.passed else "[red]failed[/red]", check.detail)
        out.print(table)
    if not passed:
        raise typer.Exit(1)


def _per_module(trial: VerifiedVariant, leaves: bool, mode: Mode | None, reporter: Reporter) -> PerModule:
    from compile.verification.per_module import per_module  # noqa: PLC0415

    with reporter.step(f"block by block: {trial.name}", 100) as advance:
        return per_module(trial, leaves=leaves, mode=mode, advance=advance)


def _precision(trial: VerifiedVariant, reporter: Reporter) -> GraphPrecision:
    from compile.verification.precision import emulate  # noqa: PLC0415
    from compile.verification.precision_emulation import MODES  # noqa: PLC0415

    with reporter.step(f"emulated precision: {trial.name}", len(MODES) * len(trial.references)) as advance:
        return emulate(trial, advance=advance)


def _machine() -> dict[str, Any]:
    import torch  # noqa: PLC0415

    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _document(
    name: str, passed: bool, tables: Sequence[PerModule], graphs: Sequence[GraphPrecision], mode: Mode | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "passed": passed, "machine": _machine()}
    if tables:
        found["per_module"] = [table.to_json() for table in tables]
    if mode:
        from compile.verification.precision import recommended  # noqa: PLC0415

        best = recommended(graphs)
        found["precision"] = {
            "asked": mode.name,
            "emulation": True,
            "recommended": best.name if best else None,
            "fast_math": best.fast_math if best else None,
            "graphs": [graph.to_json() for graph in graphs],
        }
    return found


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- tables ---------------------------------------------------------------------------------------------------------


def _show_modules(found: PerModule, mode: Mode | None) -> None:
    heads = ("max error", "relative", "in model", "orig. ms", "low. ms", *([mode.name] if mode else []), "")
    table = Table(
        title=escape(f"{found.graph}: block by block"), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column("module", overflow="fold")
    for head in heads:
        table.add_column(head, no_wrap=head != "", justify="right" if head else "left")
    for row in found.rows:
        variants = [f"{row.module} [dim]{row.kind}[/dim]", _error(row.error), _error(row.relative)]
        variants += [_error(row.in_place_relative), _time(row.original_ms), _time(row.lowered_ms)]
        table.add_row(*variants, *([_error(row.emulated)] if mode else []), _verdict(row))
    out.print(table)
    machine = _machine()
    out.print(
        "max error, relative: of the block alone, on what the original's block gets. in model: relative, inside the "
        "whole lowered model. "
        + (f"{mode.name}: relative, of the block alone, emulated. " if mode else "")
        + f"Times: medians on this machine's CPU ({machine['processor']}, {machine['threads']} threads), the original "
        "eager, the lowered block as TorchScript.",
        highlight=False,
    )
    for note in found.notes:
        out.print(f"[bold]note[/bold] {escape(note)}", highlight=False)
    if found.first is None:
        out.print("[green]No module diverges.[/green]")
    else:
        out.print(f"[red]The first module that diverges:[/red] {escape(found.first)}", highlight=False)


def _verdict(row: Row) -> str:
    if row.diverges:
        return f"[red]diverges[/red] {escape(row.note)}".rstrip()
    if row.diverges_in_place:
        return "[red]wrong in the whole model[/red]"
    return escape(row.note) or "[green]✓[/green]"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _time(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _show_precision(graphs: Sequence[GraphPrecision], mode: Mode) -> None:
    from compile.verification.precision import metric_words, recommended  # noqa: PLC0415

    for graph in graphs:
        title = f"{graph.name}: precision, emulated on the CPU over {graph.inputs} inputs"
        heads = ("mode", "output", "cosine", "max error", "relative", "task", "")
        table = Table(*heads, title=escape(title), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
        for result in graph.modes:
            marked = f"[bold]{result.mode.name}[/bold]" if result.mode == mode else result.mode.name
            for number, output in enumerate(result.outputs):
                verdict = "\n".join(escape(line) for line in output.shortfalls(graph.tolerance))
                figures = [f"{output.cosine:.6f}", _error(output.absolute), _error(output.relative)]
                if output.equal is not None:
                    figures = ["equal" if output.equal else "differs", "-", "-"]
                task = "\n".join(metric_words(output.metrics)) or "-"
                name = marked if number == 0 else ""
                table.add_row(
                    name, output.output, *figures, task, f"[red]{verdict}[/red]" if verdict else "[green]✓[/green]"
                )
        out.print(table)
    best = recommended(graphs)
    out.print("An emulation: the compiler's own order, fusion and approximations are not in it.", highlight=False)
    if best is None:
        out.print("[red]No mode is within device_tolerance, not even fp32.[/red]")
    else:
        out.print(
            f"Recommended, the fastest within device_tolerance: {best.name} (compile.fast_math: {best.fast_math})"
        )


COMMANDS = {"verify": verify_command}
