"""A real browser for tests: Debian's headless Chromium shows a page and the page reports what it could do.

    report = visit(PAGE)                 # its origin is http://127.0.0.1:ANOTHER-PORT
    report = visit(PAGE, rebound=port)   # its origin is http://evil.example:PORT, a name that was rebound to the server

The page ends by posting JSON to `/report` of its own origin; `report` is that JSON. Other addresses are in the page's
text, where the test has put them; `evil.example` is this machine, as after DNS rebinding.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

NAME = "evil.example"
HOST_RULES = f"MAP {NAME} 127.0.0.1"
# as root there is no sandbox; the rest keeps Chromium from asking its own servers for anything
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGE, REPORT = "/page", "/report"
REPORT_SECONDS = 120.0


def chromium_or_skip() -> str:
    """The path of Chromium; the test is skipped, with what to install, where there is none."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("NO BROWSER: `chromium` is not on PATH, so nothing was tried; install Debian's package `chromium`")
    return found


class Attacker:
    """The attacker's server: PAGE is the page, REPORT takes its report, anything else goes on to `rebound`."""

    def __init__(self, page: str, rebound: int | None = None) -> None:
        self.report: Any = None
        self.reported = threading.Event()
        attacker = self

        class Handler(_Handler):
            served = attacker

        self.page, self.rebound = page, rebound
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="attacker", daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Attacker

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Nothing is logged."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == PAGE:
            self._answer(200, [("Content-Type", "text/html")], self.served.page.encode())
        elif self.path == REPORT:
            self.served.report = json.loads(body)
            self._answer(204, [], b"")
            self.served.reported.set()
        elif self.served.rebound is None:
            self._answer(404, [], b"")
        else:
            self._forward(self.served.rebound, body)

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - the base class's names

    def _forward(self, port: int, body: bytes) -> None:
        """The same request to the server behind the name, byte for byte: what the browser sends after DNS rebinding."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        self._answer(answer.status, answer.getheaders(), answer.read())
        connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _chromium(program: str, url: str, host_rules: str) -> Iterator[subprocess.Popen[bytes]]:
    """A browser with a profile of its own; it and its helpers are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        rules = f"--host-resolver-rules={host_rules}"
        with Path(profile, "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [program, *FLAGS, f"--user-data-dir={profile}/data", rules, url],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HOME": profile},
            )  # fmt: skip
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def visit(page_html: str, host_rules: str = HOST_RULES, *, host: str = "127.0.0.1", rebound: int | None = None) -> Any:
    """Show a page in Chromium and give back what it reported.

    Args:
        page_html: The page; its script ends with a POST of JSON to /report.
        host_rules: Chromium's --host-resolver-rules, names that are other addresses to it.
        host: By which name the page is fetched; its port is another than any server's.
        rebound: A port of this machine. The page's origin is then http://evil.example:PORT, and what it asks of its own
            origin reaches that port as the browser sent it: the name of the attacker's server was rebound to it.

    Raises:
        AssertionError: no report came.
    """
    program = chromium_or_skip()
    attacker = Attacker(page_html, rebound)
    url = f"http://{host}:{attacker.port}{PAGE}"
    if rebound is not None:
        url = f"http://{NAME}:{rebound}{PAGE}"
        host_rules = f"MAP {NAME}:{rebound} 127.0.0.1:{attacker.port}, {host_rules}"
    try:
        with _chromium(program, url, host_rules) as process:
            came = attacker.reported.wait(REPORT_SECONDS)
            assert came, f"{url} did not report within {REPORT_SECONDS:g} s (Chromium: {process.poll()})"
    finally:
        attacker.stop()
    return attacker.report
