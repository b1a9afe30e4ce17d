"""The lock of a build: what was proven, written beside the artifact in one step with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.files import place
from compile.pipeline.compiling import CompiledVariant
from endpoint_spec import digests
from endpoint_spec import lock as locks
from inference_code.artifact.manifest import ArtifactManifest

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

PREVIOUS = "previous.tar.gz"


@dataclass(frozen=True)
class Proof:
    """What the graphs and weights of a build proved; a repackaging takes it over from the lock before."""

    weights: locks.LockedWeights
    graphs: list[locks.LockedVariant]
    parity: locks.Parity


def proof(built: Sequence[CompiledVariant]) -> Proof:
    """The lock's account of finished graphs, all of the same weights."""
    weights = built[0].weights
    return Proof(
        weights=locks.LockedWeights(source=weights.source, sha256=weights.sha256),
        graphs=[_graph(graph) for graph in built],
        parity=_parity(built),
    )


def _graph(graph: CompiledVariant) -> locks.LockedVariant:
    entry = asdict(graph.entry)
    del entry["structure"]  # the manifest's own
    return locks.LockedVariant(
        **entry,
        unused_inputs=graph.unused_inputs,
        coverage=locks.Coverage(**graph.coverage) if graph.coverage else None,
        subgraphs=locks.Subgraphs(**graph.subgraphs) if graph.subgraphs else None,
    )


def _parity(built: Sequence[CompiledVariant]) -> locks.Parity:
    """The output nearest to its bound stands for all; the details have every one of them."""
    worst = max((graph.parity.worst for graph in built), key=lambda output: output.share)
    details: dict[str, dict[str, Any]] = {}
    for graph in built:
        details[graph.variant.file] = {
            "inputs": graph.parity.inputs,
            "outputs": [output.to_json() for output in graph.parity.outputs],
            "items": graph.items.to_json(),
            "findings": [asdict(finding) for finding in graph.findings],
            "notes": graph.parity.notes + graph.items.notes,
            "graph": graph.graph,
            "replayed": graph.replayed and dict(graph.replayed),
            # None where no chip was there
            "device": graph.device and {name: asdict(found) for name, found in graph.device.items()},
        }
    return locks.Parity(
        inputs=min(graph.parity.inputs for graph in built),
        error=worst.error,
        bound=worst.bound,
        maximum=worst.maximum,
        details=details,
    )


def draft(
    spec: EndpointSpec, manifest: ArtifactManifest, manifest_sha256: str, proven: Proof, digest: str, size: int
) -> locks.Lock:
    """The lock of an archive of `size` bytes and sha256 `digest`, without its sample and its predecessor.

    manifest_sha256: of manifest.json as it is in the archive.
    """
    return locks.Lock(
        name=manifest.name,
        rehearsal=manifest.rehearsal,
        stand_in=manifest.stand_in,
        target=spec.compile.target,
        digests=locks.Digests(build=manifest.digests.build, handler=manifest.digests.handler, artifact=digest),
        artifact=locks.Artifact(key=locks.artifact_key(manifest.name, digest), bytes=size),
        manifest_sha256=manifest_sha256,
        versions=dict(manifest.versions),
        task=locks.Task(name=manifest.task.name, settings=dict(manifest.task.settings)),
        weights=proven.weights,
        graphs=proven.graphs,
        parity=proven.parity,
        image_sources=digests.image_sources() if manifest.rehearsal else None,
    )


def publish(spec: EndpointSpec, lock: locks.Lock, archive: Path) -> tuple[locks.Lock, bool]:
    """Moves the archive and its lock to their names; the artifact before stays as previous.tar.gz for a rollback.

    A build that changes nothing leaves both files as they are. Returns the lock that is on the disk, and whether it
    changed.
    """
    path, target = locks.lock_path(spec, lock.rehearsal), locks.artifact_path(spec, lock.rehearsal)
    before = _before(path)
    same_archive = before is not None and before.digests.artifact == lock.digests.artifact and target.is_file()
    if before is not None and same_archive and _unchanged(before, lock):
        return before, False
    previous = None
    if before is not None:
        previous = before.previous if before.digests.artifact == lock.digests.artifact else before.artifact
    lock = lock.model_copy(update={"previous": previous})
    text = archive.parent / path.name
    text.write_text(lock.dump(), encoding="utf-8", newline="\n")
    if target.is_file() and not same_archive:
        place([(target, target.parent / PREVIOUS)])
    place([(archive, target), (text, path)])
    return lock, True


def _before(path: Path) -> locks.Lock | None:
    try:
        return locks.read_lock(path) if path.is_file() else None
    except locks.LockError:  # damaged or of an older format: this build replaces it
        return None


def _unchanged(before: locks.Lock, lock: locks.Lock) -> bool:
    """Same in everything but the last digits of what was computed (parity and sample depend on threads)."""
    computed = {"parity", "sample", "previous", "measured"}
    return before.model_dump(exclude=computed) == lock.model_dump(exclude=computed) and (
        (before.sample is None) == (lock.sample is None)
        and (before.sample is None or lock.sample is None or before.sample.request == lock.sample.request)
    )
