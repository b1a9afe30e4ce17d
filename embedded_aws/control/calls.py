"""The server's own calls, /_embedded_aws/faults and /_embedded_aws/clock, for who has the server's token.

The token lies in server.json; it is sent as `Authorization: Bearer TOKEN`. A body is JSON, and says so: a content type
that a page could send without a preflight is not taken,
https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CORS#simple_requests.
"""

from __future__ import annotations

import json
from typing import Any

from werkzeug.wrappers import Request, Response

from ..access import bears
from . import CLOCK_PATH, FAULTS_PATH
from .clock import Clock
from .faults import FaultError, Faults

BODY_BYTES = 65536


class Control:
    """The control calls of one server."""

    def __init__(self, token: str, clock: Clock, faults: Faults) -> None:
        self.token, self.clock, self.faults = token, clock, faults

    def answer(self, request: Request) -> Response:
        """One call."""
        calls = {FAULTS_PATH: self._faults, CLOCK_PATH: self._clock}
        if not bears(request.headers.get("Authorization"), self.token):
            text = (
                "this call needs the header `Authorization: Bearer TOKEN`; the token is in the directory's server.json"
            )
            return _answer({"message": text}, 401)
        if request.path not in calls:
            return _answer({"message": f"there is no {request.path}; there are {', '.join(calls)}"}, 404)
        if request.method == "POST":
            fault = _body_fault(request)
            if fault is not None:
                return _answer({"message": fault[1]}, fault[0])
        try:
            return _answer(calls[request.path](request), 200)
        except (FaultError, ValueError, TypeError, AttributeError) as error:
            return _answer({"message": str(error)}, 400)

    def _faults(self, request: Request) -> dict[str, Any]:
        """The armed faults: GET lists them, POST arms one, DELETE disarms all. Raises FaultError and ValueError."""
        if request.method == "POST":
            self.faults.arm(json.loads(request.get_data()))
        elif request.method == "DELETE":
            self.faults.clear()
        return {"faults": self.faults.listed()}

    def _clock(self, request: Request) -> dict[str, float]:
        """How fast waits and limits pass: GET shows it, POST sets it for what starts from now on. Raises ValueError."""
        if request.method == "POST":
            given = {key: float(value) for key, value in json.loads(request.get_data()).items()}
            if set(given) - {"waits", "limits"} or any(value < 1 for value in given.values()):
                raise ValueError(f"the clock has waits and limits, each at least 1, not {given}")
            self.clock.waits = given.get("waits", self.clock.waits)
            self.clock.limits = given.get("limits", self.clock.limits)
        return {"waits": self.clock.waits, "limits": self.clock.limits}


def _body_fault(request: Request) -> tuple[int, str] | None:
    """Status and text of the refusal of a body that is not read at all."""
    if request.mimetype != "application/json":
        return 415, f"the Content-Type must be application/json, not {request.mimetype!r}"
    if request.content_length is None:
        return 411, "the body needs a Content-Length"
    if request.content_length > BODY_BYTES:
        return 413, f"a body of {request.content_length} bytes is more than {BODY_BYTES}"
    return None


def _answer(shown: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(shown), status, content_type="application/json")
