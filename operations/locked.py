"""A spec with its lock, read and checked together: what every command starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import endpoint_spec as specs
from endpoint_spec.lock import Lock, artifact_path, load_checked

from .account import Account
from .errors import OperationError


@dataclass(frozen=True)
class Locked:
    """One endpoint's spec, its lock and where its artifact lies on this machine."""

    spec: specs.EndpointSpec
    lock: Lock
    artifact: Path


def load(name: str, root: Path, *, rehearsal: bool) -> Locked:
    """Read endpoints/NAME.yaml and its lock.

    Raises:
        ProjectError: where there is no such endpoint.
        SpecErrors: where the spec is wrong.
        OperationError: where the lock is missing, unreadable or stale.
    """
    spec = specs.find(name, root)
    lock, problems = load_checked(spec, rehearsal)
    if lock is None or problems:
        raise OperationError("\n".join(problems))
    return Locked(spec, lock, artifact_path(spec, rehearsal))


def guard(account: Account, lock: Lock) -> None:
    """Keep rehearsals, and artifacts made with a stand-in for the Neuron SDK, on this machine."""
    if lock.rehearsal:
        account.guard(what=f"{lock.name} is a rehearsal and")
    if lock.stand_in:
        account.guard(what=f"{lock.name} was made with a stand-in for the Neuron SDK and")
