"""Which specs `submit --all` means: those with a job section whose build is not what their lock names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import endpoint_spec as specs
from endpoint_spec.digests import build_digest
from endpoint_spec.lock import load_checked
from operations.errors import WrongUseError


@dataclass(frozen=True)
class Choice:
    """One file of endpoints/. spec is None where it is faulty; reason says why it is, or is not, submitted."""

    name: str
    spec: specs.EndpointSpec | None
    submitted: bool
    reason: str


def choices(root: Path, *, rehearsal: bool) -> list[Choice]:
    """Every spec of endpoints/ with the decision on it.

    Raises:
        WrongUseError: where there is no spec at all.
    """
    files = sorted((root / "endpoints").glob("*.yaml"))
    if not files:
        raise WrongUseError(f"{root / 'endpoints'} holds no spec; there is nothing to submit.")
    return [_choice(file, root, rehearsal) for file in files]


def _choice(file: Path, root: Path, rehearsal: bool) -> Choice:
    try:
        spec = specs.load(file, root=root)
        wanted = build_digest(spec)
    except specs.SpecErrors as error:
        return Choice(file.stem, None, False, f"is faulty: {str(error).splitlines()[0]}")
    if spec.job is None:
        return Choice(spec.name, spec, False, "has no section job:, so it is not compiled in an account")
    locked = _locked(spec, rehearsal)
    if locked == wanted:
        return Choice(spec.name, spec, False, f"is locked: build {wanted[:12]}")
    return Choice(spec.name, spec, True, f"is built {locked[:12]}, wanted {wanted[:12]}" if locked else "has no lock")


def _locked(spec: specs.EndpointSpec, rehearsal: bool) -> str | None:
    """The build digest of the lock, None where no lock counts."""
    lock, _ = load_checked(spec, rehearsal)  # one that is damaged or of an older format is replaced by what a run makes
    counts = lock is not None and lock.name == spec.name and lock.rehearsal == rehearsal
    return lock.digests.build if counts and lock is not None else None
