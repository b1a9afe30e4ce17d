"""A finished artifact on this machine: found, checked against its lock, unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import CompileError
from compile.files import staging
from compile.packaging import archive as package
from endpoint_spec import lock as locks
from inference_code.artifact import manifest as manifests
from inference_code.artifact.manifest import ArtifactManifest

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class Built:
    """An artifact and its lock."""

    lock: locks.Lock
    archive: Path


@dataclass(frozen=True)
class Unpacked:
    """An artifact's folder (`folder`, with manifest.json), and room beside it for scratch files."""

    folder: Path
    manifest: ArtifactManifest
    scratch: Path


def command(spec: EndpointSpec, rehearsal: bool) -> str:
    """The command that builds it."""
    return f"inferentia build {spec.name}" + (" --rehearse" if rehearsal else "")


def find(spec: EndpointSpec, *, rehearsal: bool) -> Built:
    """Raises CompileError when lock or artifact are missing or do not belong together."""
    lock_path, archive = locks.lock_path(spec, rehearsal), locks.artifact_path(spec, rehearsal)
    remedy = f"Build it: {command(spec, rehearsal)}"
    for path in (lock_path, archive):
        if not path.is_file():
            raise CompileError(f"{spec.name} is not built: {path.relative_to(spec.root)} is not there.", remedy)
    lock = locks.read_lock(lock_path)
    digest = manifests.file_sha256(archive)
    if digest != lock.digests.artifact:
        raise CompileError(
            f"{archive.relative_to(spec.root)} has sha256 {digest}, its lock states {lock.digests.artifact}.", remedy
        )
    return Built(lock, archive)


@contextmanager
def unpacked(built: Built) -> Iterator[Unpacked]:
    """The artifact's files in a folder that is removed on the way out.

    Raises CompileError or ManifestError when the archive, its manifest or a file of it is damaged.
    """
    with staging(built.archive.parent) as scratch:
        folder = scratch / "artifact"
        package.extract(built.archive, folder)
        manifest = manifests.read(folder)
        manifests.verify_files(manifest, folder)
        yield Unpacked(folder, manifest, scratch)
