"""A spec with its lock, read and checked together: what every command starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import endpoint_spec as specs
from endpoint_spec.lock import Lock, LockError, artifact_path, check, lock_path, read_lock
from operations.account import Account
from operations.errors import OperationError, WrongUseError


@dataclass(frozen=True)
class Locked:
    """One endpoint's spec, its lock and where its artifact lies on this machine."""

    spec: specs.EndpointSpec
    lock: Lock
    artifact: Path


def load_spec(name: str, root: Path) -> specs.EndpointSpec:
    """Read endpoints/NAME.yaml.

    Raises:
        WrongUseError: where there is no such endpoint.
        SpecErrors: where the spec is wrong.
    """
    folder = root / "endpoints"
    there = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in there:  # by name, so that ../zoo/NAME is none
        path = folder / f"{name}.yaml"
        raise WrongUseError(
            f"no endpoint {name!r}: {path} does not exist (endpoints here: {', '.join(there) or 'none'})."
        )
    return specs.load(folder / f"{name}.yaml", root=root)


def load(name: str, root: Path, *, rehearsal: bool) -> Locked:
    """Read endpoints/NAME.yaml and its lock.

    Raises:
        WrongUseError: where there is no such endpoint.
        SpecErrors: where the spec is wrong.
        OperationError: where the lock is missing or stale.
    """
    spec = load_spec(name, root)
    file = lock_path(spec, rehearsal)
    try:
        lock = read_lock(file) if file.is_file() else None
    except LockError as error:
        raise OperationError(str(error)) from error
    problems = check(spec, lock, rehearsal)
    if lock is None or problems:
        raise OperationError("\n".join(problems))
    return Locked(spec, lock, artifact_path(spec, rehearsal))


def guard(account: Account, lock: Lock) -> None:
    """Keep rehearsals, and artifacts made with a stand-in for the Neuron SDK, on this machine."""
    if lock.rehearsal:
        account.guard(what=f"{lock.name} is a rehearsal and")
    if lock.stand_in:
        account.guard(what=f"{lock.name} was made with a stand-in for the Neuron SDK and")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
