"""A proxy before the embedded AWS that changes what is asked and answered, so that it differs from itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (target or path of the request, body) -> body, once before AWS and once after it
Change = Callable[[str, bytes], bytes]


def as_it_is(_target: str, body: bytes) -> bytes:
    """Changes nothing."""
    return body


@contextmanager
def proxy(port: int, *, request: Change = as_it_is, answer: Change = as_it_is) -> Iterator[str]:
    """The address of a proxy of the server on that port, which names itself as the server does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = self.headers.get("X-Amz-Target") or self.path
            body = request(target, body)
            changed_here = {"host", "content-length", "expect"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in changed_here}
            headers |= {"Host": f"localhost:{port}", "Content-Length": str(len(body))}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request(self.command, self.path, body, headers)
            given = connection.getresponse()
            found = given.read()
            changed = answer(target + body.decode("latin-1"), found) if found else found
            self.send_response_only(given.status)
            for name, value in given.getheaders():
                # of HEAD the length is the object's; a checksum is of the body that was not changed
                if name.lower() not in {"transfer-encoding", "connection"} | ({"content-length"} if found else set()):
                    self.send_header(name, value)
            if found:
                self.send_header("Content-Length", str(len(changed)))
            self.end_headers()
            self.wfile.write(changed)
            connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass  # noqa: N815  (http.server's names)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
