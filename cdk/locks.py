"""Which lock a stack is made of, and why it may not be deployed."""

from __future__ import annotations

from endpoint_spec import EndpointSpec, SpecErrors
from endpoint_spec.lock import Lock, LockError, check, lock_path, read_lock


def read_for_deployment(endpoint: EndpointSpec, *, rehearsal: bool) -> tuple[Lock | None, list[str]]:
    """The endpoint's lock (None: missing or unreadable) and its problems, each with the command that helps.

    A problem with one lock is no error of the app: the stack of that endpoint is refused, all others deploy.
    """
    path = lock_path(endpoint, rehearsal)
    try:
        lock = read_lock(path) if path.exists() else None
        return lock, check(endpoint, lock, rehearsal)
    except LockError as error:
        return None, [f"Endpoint {endpoint.name}: {error}"]
    except SpecErrors as error:  # weights or code that the spec names were removed or cannot be read
        return None, [f"Endpoint {endpoint.name}: {error}"]
