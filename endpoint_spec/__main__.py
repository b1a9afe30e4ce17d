"""`python -m endpoint_spec`: check specs, and print their JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from . import derive, lock
from .cost import Month, month, shared
from .errors import ProjectError, SpecErrors
from .loading import find, load, load_all, spec_files, warnings
from .platforms import platform
from .rules import worker_processes
from .schema import schema as json_schema

app = typer.Typer(
    help="Specs of Inferentia endpoints: endpoints/NAME.yaml says what is wanted of one endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Specs to check; all of endpoints/ if none is named."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Project root. By default the current directory, or a FILE's folder's parent.")
    ] = None,
) -> None:
    """Check specs and say everything that is wrong with them, each with file, line, key, value and the way out.

    Examples: inferentia check; inferentia check endpoints/depth.yaml --json.

    Exit codes: 0 all are right, 1 some are wrong, 2 wrong use. A missing or stale lock is shown, not counted as wrong.
    """
    chosen = files or _all_of(root or Path.cwd())
    absent = [str(file) for file in chosen if not file.is_file()]
    if absent:
        _wrong_use(f"There is no file {', '.join(absent)}. Name specs such as endpoints/depth.yaml.")
    reports = [_report(file, root) for file in chosen]
    home = root or Path.cwd()
    left = {} if files else {name: lock.removal(name, home) for name in lock.left_over(home)}
    if as_json:
        found = {"ok": all(report["ok"] for report in reports), "files": reports, "without_spec": left}
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, command in left.items():
            typer.echo(
                f"endpoints/{name}.lock.json: there is no endpoints/{name}.yaml (removed or renamed?). "
                f"If {name} is still deployed, it costs. Remove it: {command}"
            )
        _print(reports)
    raise typer.Exit(0 if all(report["ok"] for report in reports) else 1)


CPU = (
    "target cpu: the model runs on the processor of {kind}, without a chip or Neuron; it proves the stacks, and its "
    "figures say nothing of Inferentia"
)
# What the lock's manifest_sha256 is worth where the container's entry point is AWS's.
SERVERS = {
    "native": "the native server batches requests, and compares the artifact with the lock before any code of it runs; "
    "its image is built in your account first: inferentia image build {name}",
    "torchserve": "torchserve needs no image of your own; under it the artifact's own code compares it with the lock: "
    "that finds an accident, not an artifact that somebody replaced (serve.server: native does)",
}


@app.command()
def cost(
    name: Annotated[str | None, typer.Argument(help="The endpoint's name; all of endpoints/ if none is given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    root: Annotated[Path, typer.Option(help="Project root.")] = Path(),
) -> None:
    """Show what a month of an endpoint costs, at the smallest and the largest number of instances.

    Prices are those of endpoint_spec/data/prices.yaml, with their dates and sources; a prices.yaml of the same form in
    the project root comes first. What has no price, or depends on use, is called unknown.

    Examples: inferentia cost depth; inferentia cost --json.

    Exit codes: 0 shown, 1 a spec or prices.yaml is faulty, 2 wrong use.
    """
    try:
        specs = load_all(root.resolve()) if name is None else {name: find(name, root.resolve())}
        months = {one: month(spec, lock.load_checked(spec)[0]) for one, spec in sorted(specs.items())}
        common = shared(specs.values(), root)
    except ProjectError as error:
        _wrong_use(str(error))
    except SpecErrors as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        found = {one: _month(spent) for one, spent in months.items()}
        typer.echo(json.dumps({"endpoints": found, "shared": asdict(common)}, indent=2))
        return
    for one, spent in months.items():
        typer.echo(f"{one}: US dollars a month, at least and at most")
        table = Table("", "least", "most", "", box=box.SIMPLE)
        for line in spent.lines:
            table.add_row(line.what, *(_usd(amount) for amount in (line.minimum, line.maximum)), line.how)
        table.add_row("what is known", _usd(spent.minimum), _usd(spent.maximum), "")
        Console().print(table)
    typer.echo(f"Shared: {common.what}, {common.how}.")


def _usd(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:.2f}"


def _month(spent: Month) -> dict[str, Any]:
    totals = {"minimum": spent.minimum, "maximum": spent.maximum, "unknown": spent.unknown}
    return {**totals, "lines": [asdict(line) for line in spent.lines]}


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec.

    For editors with the YAML language server: save it (inferentia schema > build/endpoint.schema.json)
    and begin a spec with the line "# yaml-language-server: $schema=../build/endpoint.schema.json".
    """
    typer.echo(json.dumps(json_schema(), indent=2))


def _all_of(root: Path) -> list[Path]:
    if not (root / "endpoints").is_dir():
        _wrong_use(f"{root} holds no endpoints/ folder. Run from the project root, or name it with --root.")
    found = spec_files(root)
    if not found:
        _wrong_use(f"{root}/endpoints holds no spec. Make one: inferentia new NAME --from zoo/...")
    return found


def _wrong_use(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _report(file: Path, root: Path | None) -> dict[str, Any]:
    try:
        spec = load(file, root, verify_weights=True)
        row = platform(spec.serve.instance_type, spec.root)
        spent = month(spec, lock.load_checked(spec)[0])
    except SpecErrors as found:
        errors = [{**asdict(error), "text": str(error)} for error in found.errors]
        return {"file": str(file), "ok": False, "errors": errors}
    # A spec that is not deployed from where it is, such as those of zoo/, has no lock.
    in_place = spec.path.resolve().parent == lock.lock_path(spec).resolve().parent
    return {
        "file": str(file),
        "ok": True,
        "errors": [],
        "name": spec.name,
        "model": spec.model.shown,
        "weights": spec.model.weights.source,
        "target": spec.compile.target,
        "instance_type": spec.serve.instance_type,
        "workers": derive.workers(spec),
        "processes": worker_processes(spec, row),
        "server": spec.serve.server,
        "scale": [spec.scale.min, spec.scale.max],
        "fleet": derive.fleet_text(spec),
        "sagemaker_price": row.sagemaker_price.model_dump() if row.sagemaker_price else None,
        "month": _month(spent),
        "month_text": spent.shown,
        "compile_job": derive.job_cost_text(spec) if spec.job else None,
        "warnings": warnings(spec),
        "lock_problems": lock.load_checked(spec)[1] if in_place else None,
    }


def _print(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        for error in report["errors"]:
            typer.echo(error["text"], err=True)
    good = [report for report in reports if report["ok"]]
    if good:
        table = Table("endpoint", "model", "instances", "workers", "USD a month", "lock", box=box.SIMPLE)
        for column in table.columns:
            column.overflow = "fold"
        for report in good:
            table.add_row(*_row(report))
        Console().print(table)
        for report in good:
            if report["fleet"]:
                typer.echo(f"{report['name']}: {report['fleet']}")
            if report["compile_job"]:
                typer.echo(f"{report['name']}: a compile run costs {report['compile_job']}")
            for sentence in _meanings(report):
                typer.echo(f"{report['name']}: {sentence}")
        for warning in (warning for report in good for warning in report["warnings"]):
            typer.echo(warning)
        for problem in (problem for report in good for problem in report["lock_problems"] or ()):
            typer.echo(problem)
    wrong = len(reports) - len(good)
    typer.echo(f"{len(reports)} checked, {wrong} wrong.", err=True)


def _meanings(report: dict[str, Any]) -> Iterator[str]:
    """What the choice of target and server means."""
    if report["target"] == "cpu":
        yield CPU.format(kind=report["instance_type"])
    if report["server"] in SERVERS:
        yield SERVERS[report["server"]].format(name=report["name"])


def _row(report: dict[str, Any]) -> list[str]:
    least, most = report["scale"]
    price = report["sagemaker_price"]
    note = "" if not price or price["official"] else " (unofficial)"
    problems, workers = report["lock_problems"], str(report["workers"])
    if report["processes"] not in (1, report["workers"]):  # neither threads of one process, nor a process each
        workers += f" in {report['processes']} processes"
    return [
        report["name"],
        report["model"],
        f"{least} to {most} {report['instance_type']}",
        workers,
        f"{report['month_text']}{note}",
        "-" if problems is None else "see below" if problems else "fits",
    ]


def run(command: Callable[[], object]) -> int:
    """Run a command; its errors end it by themselves, with their exit code."""
    command()
    return 0


if __name__ == "__main__":
    app(prog_name="python -m endpoint_spec")
