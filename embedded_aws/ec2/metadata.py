"""The instance metadata service of one instance, on a loopback port of its own.

Sources: "Use the Instance Metadata Service to access instance metadata" (IMDSv2: a token by PUT, with a lifetime of 1 s
to 6 h; a PUT with X-Forwarded-For is refused; 401 without a token where tokens are required),
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html; categories,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html; tags,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html; spot/instance-action,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from ..access import LOOPBACK, bears, refusal

TAG_KEY = re.compile(r"[A-Za-z0-9+=.,_:@-]+")
LONGEST_LIFE_SECONDS = 21600
SHUTDOWN = "/_embedded_aws/shutdown"  # where the double of `shutdown` calls
BODY_BYTES = 65536
IDLE_SECONDS = 60.0
TTL, TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"


def tag_key_fault(key: str) -> str | None:
    """Why a tag cannot be shown in instance metadata, or None."""
    if TAG_KEY.fullmatch(key) and key not in {".", "..", "_index"}:
        return None
    return f"'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}})"


class Metadata:
    """Serves until `stop`. `paths` gives what can be read now; `shutdown` gets the arguments of `shutdown`.

    Who calls for a shutdown sends `Authorization: Bearer SECRET`; `secret` is for the double of `shutdown` alone.
    """

    def __init__(
        self, paths: Callable[[], Mapping[str, str]], shutdown: Callable[[list[str]], str], *, required: bool
    ) -> None:
        self.paths, self.shutdown, self.required = paths, shutdown, required
        self.secret = secrets.token_urlsafe(30)
        self._tokens: dict[str, float] = {}
        metadata = self

        class Handler(_Handler):
            served = metadata

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="instance metadata", daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def token(self, seconds: str | None) -> str | None:
        """A new token, or None for a lifetime that is none."""
        if seconds is None or not seconds.isdecimal() or not 1 <= int(seconds) <= LONGEST_LIFE_SECONDS:
            return None
        made = secrets.token_urlsafe(40)
        self._tokens[made] = time.monotonic() + int(seconds)
        return made

    def admits(self, token: str | None) -> bool:
        """Whether a request with this token, or without, may read."""
        if token is None:
            return not self.required
        return self._tokens.get(token, 0.0) > time.monotonic()

    def read(self, path: str) -> str | None:
        """The text at a path: a value, or the names below it."""
        paths = self.paths()
        if path in paths:
            return paths[path]
        folder = path.rstrip("/") + "/"
        below = {name[len(folder) :] for name in paths if name.startswith(folder)}
        names = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
        return "\n".join(sorted(names)) or None


class _Handler(BaseHTTPRequestHandler):
    served: Metadata
    server: ThreadingHTTPServer
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Nothing is logged."""

    def parse_request(self) -> bool:
        """The guard of every method: no web page, no foreign Host."""
        if not super().parse_request():
            return False
        reason = refusal(self.headers, self.server.server_port)
        if reason is not None:
            self._answer(403, f"instance metadata does not answer this request: {reason}\n")
        return reason is None

    def _answer(self, status: int, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        if self.path == SHUTDOWN:
            self._shutdown()
        elif self.headers.get("X-Forwarded-For"):
            self._answer(403)
        elif self.path != "/latest/api/token":
            self._answer(404)
        else:
            token = self.served.token(self.headers.get(TTL))
            self._answer(400 if token is None else 200, token or "")

    def _shutdown(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not bears(self.headers.get("Authorization"), self.served.secret):
            self._answer(403, "only the double of `shutdown` on the instance may call this\n")
        elif not length.isdecimal() or int(length) > BODY_BYTES:
            self._answer(400, f"the body needs a Content-Length of at most {BODY_BYTES}, not {length!r}\n")
        else:
            self._answer(200, self.served.shutdown(json.loads(self.rfile.read(int(length)))))

    def do_GET(self) -> None:
        if not self.served.admits(self.headers.get(TOKEN)):
            self._answer(401)
            return
        found = self.served.read(unquote(self.path))
        self._answer(404 if found is None else 200, found or "")
