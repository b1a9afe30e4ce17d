"""`package`: graphs that are built already, packed again with the handler code of now."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from compile.definition import GraphVariant, SampleRequest
from compile.errors import CompileError
from compile.frontend import loading, weights
from compile.packaging import archive, artifact
from compile.pipeline import assemble, graph
from compile.pipeline import lock as locking
from compile.pipeline.lock import Proof
from compile.progress import Reporter
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.lock import Lock
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import ArtifactManifest, Digests

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


def repackage(spec: EndpointSpec, *, rehearsal: bool, reporter: Reporter) -> tuple[Lock, bool]:
    """Writes artifact and lock anew; returns the lock and whether anything changed.

    Raises CompileError when nothing is built, or when the build itself is stale.
    """
    built = artifact.find(spec, rehearsal=rehearsal)
    lock = built.lock
    digests = Digests(build=build_digest(spec), handler=handler_digest(spec))
    if digests.build != lock.digests.build:
        raise CompileError(
            f"The build of {spec.name} is stale: model, compile section, weights or the definition's code changed.",
            f"Build it: {artifact.command(spec, rehearsal)}",
        )
    with artifact.unpacked(built) as files:
        shutil.rmtree(files.folder / archive.CODE)
        handler = archive.write_code(spec, files.folder)
        manifest = dataclasses.replace(
            files.manifest, digests=digests, handler=handler, files=archive.file_digests(files.folder)
        )
        (files.folder / manifests.FILE_NAME).unlink()
        if not manifest.rehearsal and lock.sample is not None:
            _graphs_for_cpu(spec, manifest, files.scratch / graph.CPU, reporter)
        proven = Proof(lock.weights, lock.graphs, lock.parity)
        sampled = None
        if lock.sample is not None:
            asked = lock.sample.request
            neighbour = None if asked.neighbour is None else base64.b64decode(asked.neighbour)
            sampled = SampleRequest(base64.b64decode(asked.body), asked.content_type, asked.accept, neighbour)
        packed = assemble.pack(spec, manifest, proven, sampled, files.scratch, reporter)
        return locking.publish(spec, packed, files.scratch / assemble.ARCHIVE)


def _graphs_for_cpu(spec: EndpointSpec, manifest: ArtifactManifest, folder: Path, reporter: Reporter) -> None:
    """What the target compiled does not run everywhere, so the sample is answered by the same graphs on the CPU."""
    with reporter.step("make the model"):
        definition = loading.definition(spec)
        weights.fill(spec, definition)
    for entry in manifest.graphs:
        variant = GraphVariant(entry.role, entry.bucket, entry.batch_size)
        with reporter.step(f"trace: {variant}"):
            graph.write_for_cpu(variant, definition.graphs[entry.role], spec, folder)
