"""One report of a deployment: what was predicted, what the compiler's log and the chip said, and what is still missing.

It reads what other commands left: the lock, the build's record, `verify` and `measure`. It compiles and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.packaging import artifact
from compile.pipeline.graph import COMPARISON
from compile.pipeline.verify import kept_at
from compile.profiling import results
from endpoint_spec import jobs
from endpoint_spec import lock as locks

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_COMPILED = ("operators", "compiled", "subgraphs")


@dataclass(frozen=True)
class Missing:
    """Something that the report cannot say, and the command that would tell it."""

    what: str
    command: str


def collect(spec: EndpointSpec, *, rehearsal: bool) -> dict[str, Any]:
    """Everything of the report, as JSON has it. Raises CompileError where nothing is built."""
    path = locks.lock_path(spec, rehearsal)
    if not path.is_file():
        raise CompileError(
            f"{spec.name} has nothing to report: {path.relative_to(spec.root)} is not there.",
            f"Build it: {artifact.command(spec, rehearsal)}",
        )
    lock = locks.read_lock(path)
    graphs = [_graph(spec, lock, graph) for graph in lock.graphs]
    verified, figures = _verified(spec, lock), _measured(spec, lock)
    missing = list(_missing(spec, lock, graphs, verified, figures))
    return {
        "name": spec.name,
        "target": lock.target,
        "instance_type": spec.serve.instance_type,
        "rehearsal": lock.rehearsal,
        "stand_in": lock.stand_in,
        "problems": locks.check(spec, lock, rehearsal),
        "digests": lock.digests.model_dump(),
        "artifact_bytes": lock.artifact.bytes,
        "weights": lock.weights.source,
        "versions": dict(sorted(lock.versions.items())),
        "graphs": graphs,
        "verified": verified,
        "measured": figures,
        "missing": [{"what": item.what, "command": item.command} for item in missing],
    }


def _graph(spec: EndpointSpec, lock: locks.Lock, graph: locks.LockedVariant) -> dict[str, Any]:
    variant = GraphVariant(graph.role, graph.bucket, graph.batch_size)
    details = lock.parity.details.get(graph.file, {})
    record = spec.root / "build" / "record" / spec.name / variant.slug
    said = {} if lock.rehearsal else _record(record, graph)
    return {
        "graph": str(variant),
        "coverage": graph.coverage.model_dump(include={"total", "supported", "percent", "predicted"})
        if graph.coverage
        else None,
        "subgraphs": graph.subgraphs.model_dump(include={"count", "predicted"}) if graph.subgraphs else None,
        "comparison": said.get("comparison"),
        "cost": said.get("cost"),
        "parity": details.get("outputs", []),
        "parity_notes": details.get("notes", []),
        "device": details.get("device"),
    }


def _record(folder: Path, graph: locks.LockedVariant) -> dict[str, Any]:
    """Comparison and cost of a graph's record; nothing when there is none, or when it is of another build."""
    comparison, cost = _json(folder / COMPARISON), _json(folder / "cost.json")
    logged = {row["what"]: row["logged"] for row in (comparison or {}).get("rows", ())}
    locked = (
        graph.coverage.total if graph.coverage else None,
        graph.coverage.supported if graph.coverage else None,
        graph.subgraphs.count if graph.subgraphs else None,
    )
    if comparison is not None and tuple(logged.get(name) for name in _COMPILED) != locked:
        return {}
    return {"comparison": comparison, "cost": cost}


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompileError(f"{path} is damaged: {error}.", "Run the command that wrote it again.") from None


def _verified(spec: EndpointSpec, lock: locks.Lock) -> dict[str, Any] | None:
    """What `verify` said last, of this artifact."""
    found = _json(kept_at(spec, lock.rehearsal))
    return found if found is not None and found["artifact"] == lock.digests.artifact else None


def _measured(spec: EndpointSpec, lock: locks.Lock) -> dict[str, Any] | None:
    """What `measure` said last, of this artifact: here, or on the machine whose figures are in the lock."""
    here = _json(results.folder(spec, lock.rehearsal) / "measured.json")
    for found in (lock.measured, here):
        if found is not None and found["artifact"] == lock.digests.artifact:
            return dict(found)
    return None


def _missing(
    spec: EndpointSpec,
    lock: locks.Lock,
    graphs: list[dict[str, Any]],
    verified: dict[str, Any] | None,
    figures: dict[str, Any] | None,
) -> Iterator[Missing]:
    flag = " --rehearse" if lock.rehearsal else ""
    there = f" (on an {spec.serve.instance_type.removeprefix('ml.')} instance)"
    if lock.rehearsal or lock.stand_in:
        what = "a rehearsal, which says nothing of" if lock.rehearsal else "a stand-in's, not"
        yield Missing(f"everything of the chip: this build is {what} {lock.target}", _compiling(spec))
    elif lock.target == "inf1" and any(graph["comparison"] is None for graph in graphs):
        yield Missing("the compiler's log of some graphs: build/record has none of this build", _record_of(spec))
    if verified is None:
        yield Missing("verify of this artifact", f"inferentia verify {spec.name}{flag}")
    if not lock.rehearsal and not lock.stand_in and not _seen_on_device(graphs, verified):
        yield Missing("parity on the chip", f"inferentia verify {spec.name}{there}")
    if figures is None or not figures["machine"]["target"]:
        of = "latency and throughput on the chip" if figures is not None else "latency and throughput"
        yield Missing(of, f"inferentia measure {spec.name}{there}")


def _record_of(spec: EndpointSpec) -> str:
    """Where a run on AWS left the logs of its variants, or how to make them here."""
    if spec.job is None:
        return _compiling(spec)
    run = f"s3://ARTIFACT-BUCKET/{jobs.run_prefix(spec.name, 'RUN')}record/{jobs.GATHER}/"
    return f"aws s3 sync {run} build/record/{spec.name}/"


def _compiling(spec: EndpointSpec) -> str:
    if spec.job is not None:
        return f"inferentia submit {spec.name}"
    return f"inferentia build {spec.name} (on a machine with the Neuron SDK)"


def _seen_on_device(graphs: list[dict[str, Any]], verified: dict[str, Any] | None) -> bool:
    checks = (verified or {}).get("checks", ())
    return all(graph["device"] for graph in graphs) or any(check["what"].startswith("device: ") for check in checks)


def markdown(found: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"# {found['name']}: {_kind(found)}", ""]
    for problem in found["problems"]:
        lines += [f"**{problem}**", ""]
    lines += [
        *_section("Missing", _missing_lines(found)),
        *_section("Prediction against the compiler's log", _logs(found)),
    ]
    lines += [*_section("Parity", _parity(found)), *_section("Latency and throughput", _figures(found))]
    lines += _section("What it was made of", _made_of(found))
    return "\n".join(lines).rstrip("\n") + "\n"


def _kind(found: dict[str, Any]) -> str:
    if found["rehearsal"]:
        return f"rehearsal for {found['target']}, nothing of it ran on a chip"
    if found["stand_in"]:
        return "made with a stand-in for the Neuron SDK, nothing of it is proven"
    return f"{found['target']}, for {found['instance_type']}"


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    def line(variants: tuple[Any, ...]) -> str:
        return f"| {' | '.join(str(variant).replace('|', '/') for variant in variants)} |"

    return [line(head), line(tuple("---" for _ in head)), *(line(row) for row in rows)]


def _missing_lines(found: dict[str, Any]) -> list[str]:
    rows = [(item["what"], f"`{item['command']}`") for item in found["missing"]]
    return _table(("what", "command"), rows) if rows else ["Nothing."]


def _logs(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for graph in found["graphs"]:
        lines += [f"### {graph['graph']}", "", _account(graph), ""]
        comparison = graph["comparison"]
        if comparison is None:
            lines += ["There is no compiler's log of this build to compare with.", ""]
        else:
            rows = [
                tuple(_figure(row[key]) for key in ("what", "predicted", "logged", "difference"))
                for row in comparison["rows"]
            ]
            lines += [*_table(("", "predicted", "log", "difference"), rows), ""]
            differing = [
                (kind, _figure(of["predicted"]), _figure(of["logged"])) for kind, of in comparison["operators"].items()
            ]
            if differing:
                lines += [*_table(("operators counted differently", "predicted", "log"), differing), ""]
        if graph["cost"] is not None:
            cost = graph["cost"]
            lines += [f"Compiling took {cost['seconds']:.1f} s and {cost['peak_bytes'] / 2**20:.0f} MiB at most.", ""]
    return lines[:-1]


def _account(graph: dict[str, Any]) -> str:
    coverage, pieces = graph["coverage"], graph["subgraphs"]
    said = "no operator counts (there is no public operator table for this target)"
    if coverage is not None:
        origin = "predicted" if coverage["predicted"] else "by the compiler's log"
        said = f"{coverage['supported']} of {coverage['total']} operators ({coverage['percent']:.2f} %), {origin}"
    if pieces is None:
        return f"{said}."
    return f"{said}; {pieces['count']} subgraph(s), {'predicted' if pieces['predicted'] else 'counted'}."


def _figure(value: Any) -> str:
    if value is None:
        return "not said"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parity(found: dict[str, Any]) -> list[str]:
    rows, notes = [], []
    for graph in found["graphs"]:
        for output in graph["parity"]:
            device = (graph["device"] or {}).get(output["name"])
            variants = (
                ("not run", "not run") if device is None else (f"{device['cosine']:.6f}", f"{device['relative']:.2e}")
            )
            rows.append((graph["graph"], output["name"], f"{output['error']:.2e}", f"{output['bound']:.2e}", *variants))
        notes += [f"- {graph['graph']}: {note}" for note in graph["parity_notes"]]
    head = ("graph", "output", "error on the CPU", "allowed", "cosine on the device", "relative error on the device")
    lines = [*_table(head, rows), *([""] if notes else []), *notes]
    if found["verified"] is None:
        return lines
    checks = [
        (check["what"], "passed" if check["passed"] else "**failed**", check["detail"])
        for check in found["verified"]["checks"]
    ]
    said = f"`verify` on {found['verified']['machine']}, {found['verified']['date']}:"
    return [*lines, "", said, "", *_table(("check", "", "detail"), checks)]


def _figures(found: dict[str, Any]) -> list[str]:
    figures = found["measured"]
    if figures is None:
        return ["Not measured."]
    machine = figures["machine"]
    where = machine["instance_type"] or f"{machine['name']}, {machine['processor']}, {machine['cpus']} CPUs"
    said = f"Taken on {where}, {figures['date']}."
    if not machine["target"]:
        said += f" These are no figures of {found['instance_type']}: {machine['reason']}."
    rows = [_figure_row(row, row in figures["recommended"]) for row in figures["rows"]]
    head = ("graph", "batch", "n_models", "workers", "items/s", "p50 ms", "p99 ms", "USD a million", "")
    return [said, "", *_table(head, rows), *[f"- {note}" for note in figures["notes"]]]


def _figure_row(row: dict[str, Any], recommended: bool) -> tuple[Any, ...]:
    cost = row["cost_per_1m_inf"]
    marks = [word for word, on in (("recommended", recommended), ("two kinds of latency", row["bimodal"])) if on]
    return (
        f"{row['role']} {row['bucket']}",
        row["batch_size"],
        row["n_models"],
        row["workers_per_model"],
        f"{row['throughput_avg']:.1f}",
        f"{row['latency_ms']['p50']:.2f}",
        f"{row['latency_ms']['p99']:.2f}",
        "unknown" if cost is None else f"{cost:.2f}",
        ", ".join(marks),
    )


def _made_of(found: dict[str, Any]) -> list[str]:
    rows = [("artifact", f"sha256 {found['digests']['artifact']}, {found['artifact_bytes'] / 1e6:.1f} MB")]
    rows += [("build digest", found["digests"]["build"]), ("weights", found["weights"])]
    return _table(("what", "which"), [*rows, *found["versions"].items()])
