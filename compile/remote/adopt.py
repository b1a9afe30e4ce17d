"""`adopt`: what a compile run brought back becomes the build of this project, after every digest was compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import CompileError, UsageError
from compile.files import staging
from compile.pipeline import lock as locking
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from endpoint_spec.lock import Lock, artifact_path, read_lock
from inference_code.artifact.manifest import file_sha256

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_AGAIN = "Nothing was changed. Download the result again."


def adopt(spec: EndpointSpec, folder: Path, *, rehearse: bool) -> tuple[Lock, bool]:
    """Puts model.tar.gz and the lock of `folder` at their usual places; returns the lock and whether anything changed.

    Raises CompileError, and changes nothing: files missing, truncated or with another digest; a rehearsal where none
    is wanted, or the reverse; another endpoint; a spec, weights or code that changed meanwhile.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", "Name the one with model.tar.gz, lock.json and result.json.")
    result = jobs.read_result(folder / jobs.RESULT)
    _require_wanted(spec, result, rehearse)
    wanted = build_digest(spec)
    if result.build_digest != wanted:
        command = f"inferentia adopt {spec.name} --from {folder}" + (" --rehearse" if rehearse else "")
        raise CompileError(
            f"{spec.name} changed since it was sent: the run built {result.build_digest}, the spec is now {wanted}.",
            f"Nothing was changed. Submit it again, or undo the change and run: {command}",
        )
    with staging(artifact_path(spec, rehearse).parent) as scratch:
        archive, text = scratch / jobs.ARTIFACT, scratch / jobs.LOCK
        _take(folder, jobs.LOCK, text, result.lock_sha256)
        _take(folder, jobs.ARTIFACT, archive, result.artifact.sha256)
        lock = read_lock(text)
        _require_one(result, lock, archive.stat().st_size)
        text.unlink()
        return locking.publish(spec, lock, archive)


def _require_wanted(spec: EndpointSpec, result: jobs.Result, rehearse: bool) -> None:
    if result.name != spec.name:
        raise CompileError(f"The result is of {result.name}, not of {spec.name}.", "Nothing was changed.")
    if result.rehearsal and not rehearse:
        raise CompileError(
            f"The result is a rehearsal of {spec.name}, not compiled for {spec.compile.target}.",
            "Nothing was changed. Add --rehearse to take it as one.",
        )
    if rehearse and not result.rehearsal:
        raise CompileError(
            f"The result is no rehearsal of {spec.name}: it was compiled for {spec.compile.target}.",
            "Nothing was changed. Leave out --rehearse to take it.",
        )


def _take(folder: Path, name: str, to: Path, digest: str) -> None:
    """A copy that has the digest: it is the copy that is compared, so nothing can change in between."""
    try:
        shutil.copyfile(folder / name, to)
    except FileNotFoundError:
        raise CompileError(f"{folder / name} is not there.", _AGAIN) from None
    found = file_sha256(to)
    if found != digest:
        raise CompileError(
            f"{folder / name} has {to.stat().st_size} bytes and the sha256 {found}, {jobs.RESULT} states {digest}.",
            _AGAIN,
        )


def _require_one(result: jobs.Result, lock: Lock, size: int) -> None:
    """Result and lock say the same."""
    pairs = {
        "name": (result.name, lock.name),
        "build digest": (result.build_digest, lock.digests.build),
        "artifact": (result.artifact.sha256, lock.digests.artifact),
        "bytes": (result.artifact.bytes, lock.artifact.bytes),
        "bytes on disk": (result.artifact.bytes, size),
        "rehearsal": (result.rehearsal, lock.rehearsal),
        "stand_in": (result.stand_in, lock.stand_in),
    }
    for what, (stated, locked) in pairs.items():
        if stated != locked:
            raise CompileError(
                f"{what}: {jobs.RESULT} states {stated}, {jobs.LOCK} states {locked}.", "Nothing was changed."
            )
