"""`package`: graphs that are built already, packed again with the handler code of now."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from compile.definition import GraphVariant, SampleRequest
from compile.errors import CompileError
from compile.packaging import archive, artifact, graph_file, torchscript
from compile.packaging.artifact import Built
from compile.pipeline import assemble, graph
from compile.pipeline import lock as locking
from compile.pipeline.lock import Proof
from compile.portable.file import digest
from compile.progress import Reporter
from compile.targets import trace_for_cpu
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.lock import Lock
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import Digests

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
        if not manifest.on_cpu and lock.sample is not None:
            _graphs_for_cpu(built, files.scratch / graph.CPU, reporter)
        proven = Proof(lock.weights, lock.graphs, lock.parity)
        sampled = None
        if lock.sample is not None:
            asked = lock.sample.request
            neighbour = None if asked.neighbour is None else base64.b64decode(asked.neighbour)
            sampled = SampleRequest(base64.b64decode(asked.body), asked.content_type, asked.accept, neighbour)
        packed = assemble.pack(spec, manifest, proven, sampled, files.scratch, reporter)
        return locking.publish(spec, packed, files.scratch / assemble.ARCHIVE)


def _graphs_for_cpu(built: Built, folder: Path, reporter: Reporter) -> None:
    """What the target compiled does not run everywhere, so the sample is answered by the captured graphs on the CPU."""
    path = built.archive.with_name(graph_file.NAME)
    if not path.is_file():
        raise CompileError(f"{path} is not there: the captured graphs answer the sample.", "Build it again.")
    found = graph_file.read(path)
    for one in found.variants:
        variant = GraphVariant(one.role, one.bucket, one.batch_size)
        if built.lock.parity.details.get(variant.file, {}).get("graph") != digest(one):
            raise CompileError(f"{path} has another graph of {variant} than the lock was made of.", "Build it again.")
        inputs, _ = found.reference(one, 0)
        with reporter.step(f"trace: {variant}"):
            names = [entry.name for entry in one.inputs]
            traced, _ = trace_for_cpu(found.whole(one), tuple(inputs), names)
            torchscript.save(traced, folder / variant.file)
