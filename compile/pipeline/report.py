"""One report of a deployment: what was predicted, what the compiler's log and the chip showed, what is still missing.

It reads what other commands left: the lock, the build's record, `verify` and `measure`. It compiles and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.packaging import artifact
from compile.pipeline.compiling import COMPARISON
from compile.pipeline.verify import kept_at
from compile.profiling import results
from endpoint_spec import lock as locks

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_COMPILED = ("operators", "compiled", "subgraphs")


@dataclass(frozen=True)
class Missing:
    """Something that the report does not know, and the command that finds it out."""

    what: str
    command: str


@dataclass(frozen=True)
class GraphReport:
    """One graph: operators, subgraphs and parity of the lock; comparison and cost of the build's record.

    parity: of each output. device: what was found of each output on the chip.
    """

    graph: str
    coverage: dict[str, Any] | None
    subgraphs: dict[str, Any] | None
    comparison: dict[str, Any] | None
    cost: dict[str, Any] | None
    parity: Sequence[dict[str, Any]]
    parity_notes: Sequence[str]
    device: dict[str, Any] | None


@dataclass(frozen=True)
class Report:
    """Everything of one build. verified, measured: what `verify` and `measure` left of this artifact, if anything."""

    name: str
    target: str
    instance_type: str
    rehearsal: bool
    stand_in: bool
    problems: Sequence[str]
    digests: dict[str, Any]
    artifact_bytes: int
    weights: str
    versions: dict[str, str]
    graphs: Sequence[GraphReport]
    verified: dict[str, Any] | None
    measured: dict[str, Any] | None
    missing: Sequence[Missing]


def collect(spec: EndpointSpec, *, rehearsal: bool) -> Report:
    """Raises CompileError where nothing is built, and for a damaged file."""
    path = locks.lock_path(spec, rehearsal)
    if not path.is_file():
        raise CompileError(
            f"{spec.name} has nothing to report: {path.relative_to(spec.root)} is not there.",
            f"Build it: {artifact.command(spec, rehearsal)}",
        )
    lock = locks.read_lock(path)
    graphs = [_graph(spec, lock, graph) for graph in lock.graphs]
    verified = _of_artifact(lock, _json(kept_at(spec, lock.rehearsal)))
    # Figures are in the lock when they were taken on the target instance type.
    here = _json(results.folder(spec, lock.rehearsal) / "measured.json")
    measured = _of_artifact(lock, lock.measured) or _of_artifact(lock, here)
    return Report(
        name=spec.name,
        target=lock.target,
        instance_type=spec.serve.instance_type,
        rehearsal=lock.rehearsal,
        stand_in=lock.stand_in,
        problems=locks.check(spec, lock, rehearsal),
        digests=lock.digests.model_dump(),
        artifact_bytes=lock.artifact.bytes,
        weights=lock.weights.source,
        versions=dict(sorted(lock.versions.items())),
        graphs=graphs,
        verified=verified,
        measured=measured,
        missing=list(_missing(spec, lock, graphs, verified, measured)),
    )


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompileError(f"{path} is damaged: {error}.", "Run the command that wrote it again.") from None


def _of_artifact(lock: locks.Lock, record: dict[str, Any] | None) -> dict[str, Any] | None:
    return record if record is not None and record["artifact"] == lock.digests.artifact else None


def _graph(spec: EndpointSpec, lock: locks.Lock, graph: locks.LockedVariant) -> GraphReport:
    variant = GraphVariant(graph.role, graph.bucket, graph.batch_size)
    details = lock.parity.details.get(graph.file, {})
    coverage, subgraphs, comparison, cost = graph.coverage, graph.subgraphs, None, None
    if not lock.on_cpu:
        record = spec.root / "build" / "record" / spec.name / variant.slug
        comparison, cost = _json(record / COMPARISON), _json(record / "cost.json")
        if comparison is not None and not _is_of(graph, comparison):
            comparison, cost = None, None
    return GraphReport(
        graph=str(variant),
        coverage=coverage.model_dump(include={"total", "supported", "percent", "predicted"}) if coverage else None,
        subgraphs=subgraphs.model_dump(include={"count", "predicted"}) if subgraphs else None,
        comparison=comparison,
        cost=cost,
        parity=details.get("outputs", []),
        parity_notes=details.get("notes", []),
        device=details.get("device"),
    )


def _is_of(graph: locks.LockedVariant, comparison: dict[str, Any]) -> bool:
    """Whether a record is of this build, not of another one of the same variant."""
    logged = {row["what"]: row["logged"] for row in comparison["rows"]}
    coverage, subgraphs = graph.coverage, graph.subgraphs
    locked = [coverage and coverage.total, coverage and coverage.supported, subgraphs and subgraphs.count]
    return [logged.get(name) for name in _COMPILED] == locked


def _missing(
    spec: EndpointSpec,
    lock: locks.Lock,
    graphs: Sequence[GraphReport],
    verified: dict[str, Any] | None,
    measured: dict[str, Any] | None,
) -> Iterator[Missing]:
    verify = f"inferentia verify {spec.name}"
    there = f" (on an {spec.serve.instance_type.removeprefix('ml.')} instance)"
    build = f"inferentia build {spec.name} (on a machine with the Neuron SDK)"
    if spec.job is not None:
        build = f"inferentia submit {spec.name}"
    on_chip = not lock.on_cpu and not lock.stand_in
    if lock.rehearsal or lock.stand_in:
        what = "a rehearsal, which says nothing of" if lock.rehearsal else "a stand-in's, not"
        yield Missing(f"everything of the chip: this build is {what} {lock.target}", build)
    elif lock.target == "inf1" and any(graph.comparison is None for graph in graphs):
        if spec.job is not None:  # a run on AWS leaves the logs of its variants in the bucket
            build = f"inferentia attach {spec.name}"
        yield Missing("the compiler's log of some graphs: build/record has none of this build", build)
    if verified is None:
        yield Missing("verify of this artifact", verify + (" --rehearse" if lock.rehearsal else ""))
    checks = verified["checks"] if verified else ()
    seen = all(graph.device for graph in graphs) or any(check["what"].startswith("device: ") for check in checks)
    if on_chip and not seen:
        yield Missing("parity on the chip", f"{verify}{there}")
    if measured is None or not measured["machine"]["target"]:
        of = f"latency and throughput on {spec.serve.instance_type}"
        yield Missing(of, f"inferentia measure {spec.name}{there}")


# --- the page -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The report for a person."""
    kind = f"{report.target}, for {report.instance_type}"
    if report.rehearsal:
        kind = f"rehearsal for {report.target}, nothing of it ran on a chip"
    elif report.stand_in:
        kind = "made with a stand-in for the Neuron SDK, nothing of it is proven"
    missing = [(item.what, f"`{item.command}`") for item in report.missing]
    made_of = [
        ("artifact", f"sha256 {report.digests['artifact']}, {report.artifact_bytes / 1e6:.1f} MB"),
        ("build digest", report.digests["build"]),
        ("weights", report.weights),
        *report.versions.items(),
    ]
    sections = {
        "Missing": _table(("what", "command"), missing) if missing else ["Nothing."],
        **({} if report.target == "cpu" else {"Prediction against the compiler's log": _logs(report)}),
        "Parity": _parity(report),
        "Latency and throughput": _figures(report),
        "What it was made of": _table(("what", "which"), made_of),
    }
    lines = [f"# {report.name}: {kind}", ""]
    for problem in report.problems:
        lines += [f"**{problem}**", ""]
    for title, content in sections.items():
        lines += [f"## {title}", "", "\n".join(content).rstrip("\n"), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_shown(value).replace('|', '/') for value in line)} |" for line in lines]


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _logs(report: Report) -> list[str]:
    return [line for graph in report.graphs for line in _log(graph)]


def _log(graph: GraphReport) -> list[str]:
    coverage, subgraphs, comparison, cost = graph.coverage, graph.subgraphs, graph.comparison, graph.cost
    counted = "no operator counts (there is no public operator table for this target)"
    if coverage is not None:
        origin = "predicted" if coverage["predicted"] else "by the compiler's log"
        counted = f"{coverage['supported']} of {coverage['total']} operators ({coverage['percent']:.2f} %), {origin}"
    if subgraphs is not None:
        counted += f"; {subgraphs['count']} subgraph(s), {'predicted' if subgraphs['predicted'] else 'counted'}"
    lines = [f"### {graph.graph}", "", f"{counted}.", ""]
    if comparison is None:
        lines += ["There is no compiler's log of this build to compare with.", ""]
    else:
        keys = ("what", "predicted", "logged", "difference")
        rows = [[row[key] for key in keys] for row in comparison["rows"]]
        lines += [*_table(("", "predicted", "log", "difference"), rows), ""]
        differing = [(kind, of["predicted"], of["logged"]) for kind, of in comparison["operators"].items()]
        if differing:
            lines += [*_table(("operators counted differently", "predicted", "log"), differing), ""]
    if cost is not None:
        lines += [f"Compiling took {cost['seconds']:.1f} s and {cost['peak_bytes'] / 2**20:.0f} MiB at most.", ""]
    return lines


def _parity(report: Report) -> list[str]:
    rows = []
    for graph in report.graphs:
        for output in graph.parity:
            found = (graph.device or {}).get(output["name"])
            device = (f"{found['cosine']:.6f}", f"{found['relative']:.2e}") if found else ("not run", "not run")
            rows.append((graph.graph, output["name"], f"{output['error']:.2e}", f"{output['bound']:.2e}", *device))
    head = ("graph", "output", "error on the CPU", "allowed", "cosine on the device", "relative error on the device")
    notes = [f"- {graph.graph}: {note}" for graph in report.graphs for note in graph.parity_notes]
    lines = _table(head, rows)
    if notes:
        lines += ["", *notes]
    verified = report.verified
    if verified is not None:
        checks = [
            (check["what"], "passed" if check["passed"] else "**failed**", check["detail"])
            for check in verified["checks"]
        ]
        lines += ["", f"`verify` on {verified['machine']}, {verified['date']}:", ""]
        lines += _table(("check", "", "detail"), checks)
    return lines


def _figures(report: Report) -> list[str]:
    figures = report.measured
    if figures is None:
        return ["Not measured."]
    machine = figures["machine"]
    where = machine["instance_type"] or f"{machine['name']}, {machine['processor']}, {machine['cpus']} CPUs"
    taken = f"Taken on {where}, {figures['date']}."
    if not machine["target"]:
        taken += f" These are no figures of {report.instance_type}: {machine['reason']}."
    rows = []
    for row in figures["rows"]:
        marks = (("recommended", row in figures["recommended"]), ("two kinds of latency", row["bimodal"]))
        cost = row["cost_per_1m_inf"]
        rows.append(
            (
                f"{row['role']} {row['bucket']}",
                row["batch_size"],
                row["n_models"],
                row["workers_per_model"],
                f"{row['throughput_avg']:.1f}",
                f"{row['latency_ms']['p50']:.2f}",
                f"{row['latency_ms']['p99']:.2f}",
                "unknown" if cost is None else f"{cost:.2f}",
                ", ".join(word for word, on in marks if on),
            )
        )
    head = ("graph", "batch", "n_models", "workers", "items/s", "p50 ms", "p99 ms", "USD a million", "")
    return [taken, "", *_table(head, rows), *[f"- {note}" for note in figures["notes"]]]
