"""`package`: graphs that are built already, packed again with the handler code of now."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from typing import TYPE_CHECKING

from compile import artifact, build, package
from compile.definition import SampleRequest
from compile.errors import CompileError
from compile.locking import Proof
from compile.progress import Reporter
from inference_code import manifest as manifests
from inference_code.manifest import Digests
from spec.digests import build_digest, handler_digest
from spec.lock import Lock

if TYPE_CHECKING:
    from spec import EndpointSpec


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
        shutil.rmtree(files.folder / package.CODE)
        handler = package.write_code(spec, files.folder)
        manifest = dataclasses.replace(
            files.manifest, digests=digests, handler=handler, files=package.file_digests(files.folder)
        )
        (files.folder / manifests.FILE_NAME).unlink()
        proven = Proof(lock.weights, lock.graphs, lock.parity)
        return build.pack(spec, manifest, proven, _sample_request(lock), files.scratch, reporter)


def _sample_request(lock: Lock) -> SampleRequest | None:
    if lock.sample is None:
        return None
    asked = lock.sample.request
    return SampleRequest(base64.b64decode(asked.body), asked.content_type, asked.accept)
