"""`build` and `package`: from a spec to model.tar.gz and its lock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from compile.cli.options import Json, Name, Rehearse, Root, Verbose, err, facts, log_to_stderr, out
from compile.cli.plan_tables import show_capacity
from compile.files import shown
from compile.frontend.project import endpoint
from compile.progress import Bars, Reporter, Silent
from endpoint_spec.lock import Lock
from endpoint_spec.quantities import format_duration

if TYPE_CHECKING:
    from compile.analysis.decoding_cost import DecodingPlan
    from compile.definition import GraphVariant
    from compile.pipeline.build import Result
    from compile.pipeline.cache import Cache
    from compile.pipeline.compiling import CompiledVariant
    from compile.pipeline.plan import Plan
    from compile.targets import Target

PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Show the matrix of graphs and whether it fits; compile nothing. Exit 1 if not.")
]
WorkDirectory = Annotated[
    Path | None,
    typer.Option(help="Where the compiler works and the record is kept.", show_default="build/record"),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Capture and compile every graph anew; neither read nor write build/cache.")
]
CompilerPython = Annotated[
    Path | None,
    typer.Option(
        "--compiler-python",
        envvar="INFERENTIA_COMPILER_PYTHON",
        exists=True,
        dir_okay=False,
        help="The Python with torch and the target's compiler, such as an Inf1 machine's 3.10; by default this one.",
    ),
]

_REHEARSAL = "rehearsal: traced for this machine's CPU, not for Inferentia"
_CPU = "traced for the CPU, which serves it; no chip"

_CACHED = " (from the cache)"
_STAND_IN = "made with a stand-in for the Neuron SDK: for tests alone, nothing deploys it"


def build_command(  # noqa: PLR0913, PLR0917 (one parameter an option)
    name: Name,
    rehearse: Rehearse = False,
    plan_: PlanOnly = False,
    work_directory: WorkDirectory = None,
    no_cache: NoCache = False,
    compiler_python: CompilerPython = None,
    json_: Json = False,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Trace or compile the model, prove that it equals the original, and write model.tar.gz and its lock.

    The graph is captured here and compiled by the Python that has the Neuron SDK (--compiler-python); its log and what
    it makes stay in build/record/NAME. With --plan only
    the matrix of graphs is shown, with what it would take of the instance: that needs no SDK. For a model that decodes
    step by step the plan weighs the cached step against computing the whole prefix anew.

    Graphs that were made before, of the same weights, code, options and versions, come from build/cache.
    """
    log_to_stderr(verbose)
    from compile.pipeline.build import build  # noqa: PLC0415  (seconds of imports, --help need not wait)
    from compile.pipeline.plan import plan, resolve, survey  # noqa: PLC0415

    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        with reporter.step("make the model"):
            planned = plan(
                spec, rehearse=rehearse, check=not plan_, work=work_directory, compiler_python=compiler_python
            )
        weighed = _weigh(planned, reporter)
        if plan_:
            found = survey(planned, reporter)
    if plan_:
        show_capacity(spec, found, weighed, json_)
        raise typer.Exit(0 if found.fits else 1)
    cache = None if no_cache else project_cache(spec.root)
    with reporting(json_) as reporter:
        resolved = resolve(planned, reporter)
        if not json_:
            _show_plan(planned, weighed, [v for v in planned.variants if cache and cache.has(resolved.keys[v.file])])
        result = build(resolved, reporter, cache)
    show(result, json_, weighed)


def show(result: Result, json_: bool, weighed: Sequence[DecodingPlan] = ()) -> None:
    """What a build did, as a table or as JSON."""
    if json_:
        typer.echo(json.dumps({**_summary(result), "decoding": [one.to_json() for one in weighed]}, indent=2))
    else:
        _show_result(result)


def project_cache(root: Path) -> Cache:
    """The cache of a project, which says on stderr what is wrong with it."""
    from compile.pipeline.cache import of_project  # noqa: PLC0415  (seconds of imports, --help need not wait)

    return of_project(root, lambda line: err.print(line, markup=False, highlight=False))


def package_command(
    name: Name, rehearse: Rehearse = False, json_: Json = False, root: Root = Path(), verbose: Verbose = 0
) -> None:
    """Pack the graphs that are built already with the handler code of now; nothing is compiled again."""
    log_to_stderr(verbose)
    from compile.pipeline.repackage import repackage  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        lock, changed = repackage(spec, rehearsal=rehearse, reporter=reporter)
    if json_:
        typer.echo(json.dumps({"changed": changed, "lock": json.loads(lock.dump())}, indent=2))
        return
    table = facts(f"{name}: packaged again")
    for row in _artifact_rows(lock, changed):
        table.add_row(*row)
    out.print(table)


_PLACES = {"host": "the host", "product": "the device"}


@contextmanager
def reporting(quiet: bool) -> Iterator[Reporter]:
    """Bars on stderr, or nothing for machines."""
    if quiet:
        yield Silent()
        return
    with Bars(err) as bars:
        yield bars


def _weigh(planned: Plan, reporter: Reporter) -> list[DecodingPlan]:
    """Cached step against whole prefix on a chip, for each variant of a model that decodes; nothing for others."""
    from compile.analysis.decoding_cost import ROLE, plans  # noqa: PLC0415

    spec = planned.spec
    if ROLE not in planned.definition.graphs or spec.compile.target == "cpu":
        return []
    buckets, batches = planned.definition.sizes(spec.compile)
    with reporter.step("weigh the cached step against the whole prefix"):
        return plans(planned.definition, buckets, batches, spec.compile.target, planned.rewriting)


def _show_plan(planned: Plan, weighed: Sequence[DecodingPlan], cached: Sequence[GraphVariant]) -> None:
    spec = planned.spec
    table = facts(f"Plan: build {spec.name}")
    parameters = sum(p.numel() for p in planned.definition.weights.parameters())
    table.add_row("model", f"{spec.model.shown}, {parameters / 1e6:.1f} million parameters")
    table.add_row("weights", spec.model.weights.source)
    table.add_row("target", f"{spec.compile.target} ({_kind(planned.target)})")
    for variant in planned.variants:
        table.add_row("graph", f"{variant}{_CACHED if variant in cached else ''}")
    for one in weighed:
        table.add_row("decoding", f"{one.variant}: {one}")
    if str(planned.rewriting):
        table.add_row("lowering", str(planned.rewriting))
    table.add_row("handler", spec.serve.handler or f"built-in task {planned.definition.task}")
    if not planned.target.on_cpu:
        table.add_row("time limit", f"{format_duration(spec.compile.timeout)} a graph")
    err.print(table)


def _show_result(result: Result) -> None:
    table = facts(f"{result.spec.name}: built")
    table.add_row("weights", result.weights)
    for graph in result.graphs:
        if graph.variant in result.cached:
            table.add_row("graph", f"{graph.variant}{_CACHED}")
        worst = graph.parity.worst
        table.add_row(
            "parity",
            f"{graph.variant}: error {worst.error:.2e} of at most {worst.bound:.2e} "
            f"(output {worst.name}, maximum {worst.maximum:.3g}, {graph.parity.inputs} inputs)",
        )
        for finding in graph.findings:
            table.add_row("[yellow]finding[/yellow]", escape(f"{graph.variant}: {finding}"))
        table.add_row("items", _items(graph))
        for note in graph.parity.notes + graph.items.notes:
            table.add_row("[yellow]note[/yellow]", f"{graph.variant}: {note}")
        if result.lock.target != "cpu":
            table.add_row("operators", _operators(graph.coverage, graph.subgraphs))
        for row in _host_rows(graph.coverage):
            table.add_row(*row)
        for row in _compiler_rows(graph, result.spec.root):
            table.add_row(*row)
        if graph.unused_inputs:
            table.add_row("[yellow]unused inputs[/yellow]", ", ".join(graph.unused_inputs))
    for row in _artifact_rows(result.lock, result.changed):
        table.add_row(*row)
    out.print(table)
    path = result.lock_path.relative_to(result.spec.root)
    flag = " --rehearse" if result.lock.rehearsal else ""
    out.print(f"Lock: {path}. Next: inferentia verify {result.spec.name}{flag}", highlight=False)


def _items(graph: CompiledVariant) -> str:
    """What was proven of a batch's items."""
    if graph.variant.batch == 1:
        return f"{graph.variant}: a batch of one has no neighbours"
    moved = max(own.change for own in graph.items.outputs)
    return f"{graph.variant}: each item among {graph.variant.batch} equals itself alone, but for {moved:.2e} at most"


def _compiler_rows(graph: CompiledVariant, root: Path) -> Iterator[tuple[str, str]]:
    """What the compiler took, and where its log differs from the prediction; nothing in a rehearsal."""
    if graph.cost is not None:
        yield "compiler", f"{graph.cost.seconds:.1f} s, {graph.cost.peak_bytes / 2**20:.0f} MiB at most"
    rows = (graph.comparison or {}).get("rows", ())
    differing = [row for row in rows if row["difference"]]
    for row in differing:
        yield "predicted", f"{row['what']}: {row['predicted']}, in the log {row['logged']}"
    if rows and not differing:
        yield "predicted", "the log has the same figures as the prediction"
    if graph.record is not None:
        yield "record", shown(graph.record, root)


def _operators(coverage: Any, subgraphs: Any) -> str:
    if coverage is None:
        return "unknown: there is no public operator table for this target"
    origin, what = ("predicted", "supported") if coverage["predicted"] else ("measured", "compiled")
    pieces = f", {subgraphs['count']} subgraph(s)" if subgraphs else ""
    return f"{coverage['supported']} of {coverage['total']} {what} ({coverage['percent']:.2f} %){pieces}; {origin}"


def _host_rows(coverage: Any) -> Iterator[tuple[str, str]]:
    """What runs on the host in front of the compiled graph; nothing where there is no host part."""
    host = (coverage or {}).get("host")
    if host is None:
        return
    count = sum(host["operators"].values())
    yield "host part", f"{count} operators, {host['host_flops']:,} FLOP, {host['crossing_bytes']:,} bytes to the device"
    for table in host["tables"]:
        yield f"table on {_PLACES[table['choice']]}", f"{table['name']}: {table['reason']}"


def _artifact_rows(lock: Lock, changed: bool) -> list[tuple[str, str]]:
    kind = _STAND_IN if lock.stand_in else _kind(lock)
    return [
        ("artifact", f"{lock.artifact.bytes / 1e6:.1f} MB, of this sha256:"),
        ("sha256", lock.digests.artifact),  # fits a line of 80 by itself
        ("kind", kind),
        ("changed", "yes" if changed else "no: artifact and lock are those of the build before"),
    ]


def _kind(of: Target | Lock) -> str:
    if of.rehearsal:
        return _REHEARSAL
    return _CPU if of.on_cpu else "compiled for the target"


def _summary(result: Result) -> dict[str, Any]:
    spec = result.spec
    return {
        "name": spec.name,
        "changed": result.changed,
        "artifact": result.artifact.relative_to(spec.root).as_posix(),
        "lock_path": result.lock_path.relative_to(spec.root).as_posix(),
        "weights": result.weights,
        "cached": [str(variant) for variant in result.cached],
        "variants": [
            {
                "graph": str(graph.variant),
                "cost": asdict(graph.cost),
                "comparison": graph.comparison,
                "record": shown(graph.record, spec.root) if graph.record else None,
            }
            for graph in result.graphs
            if graph.cost is not None
        ],
        "lock": json.loads(result.lock.dump()),
    }


COMMANDS = {"build": build_command, "package": package_command}
