"""No web page uses a server on a loopback address: the rule, and over real connections. A browser: test_browser.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference_code.server.browser_guard import BrowserGuard, guard
from inference_code.settings import read_host
from tests.inference_code.artifacts import Server, doubling_artifact
from tests.inference_code.corpus import raw
from tests.inference_code.helpers import exchange, wait_for, without_httptools

LISTED = ("depth.example", "tunnel.example:9000", "[::2]:9000")
BODY = b'{"x": [1, 2, 3]}'


def made(address: str = "127.0.0.1", port: int = 8080, listed: tuple[str, ...] = ()) -> BrowserGuard:
    found = guard(address, port, listed)
    assert found is not None
    return found


RULE, LISTING = made(), made(listed=LISTED)
OWN = {f"{name}:8080" for name in ("localhost", "localhost.", "127.0.0.1", "127.0.0.1.", "[::1]")}


# The rule ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_address_is_guarded(address: str) -> None:
    found = made(address)
    literal = f"[{address}]:8080" if ":" in address else f"{address}:8080"
    for host in (literal, "localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert found.refusal("POST", "1.1", {"host": host}) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.4", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_that_others_reach_is_not(address: str) -> None:
    assert guard(address, 8080, ()) is None


def test_an_address_is_a_number() -> None:
    with pytest.raises(ValueError, match="localhost"):
        guard("localhost", 8080, ())


@pytest.mark.parametrize("host", [*sorted(OWN), "LocalHost:8080", "LOCALHOST.:8080"])
def test_its_own_names_are_answered(host: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        assert RULE.refusal(method, "1.1", {"host": host}) is None


def test_port_80_may_be_left_out_and_no_other() -> None:
    plain = made(port=80)
    for host in ("localhost", "localhost.", "127.0.0.1", "[::1]", "localhost:80"):
        assert plain.refusal("POST", "1.1", {"host": host}) is None
        assert RULE.refusal("POST", "1.1", {"host": host}) is not None


FOREIGN = [
    "", " ", "evil.example", "evil.example:8080", "localhost", "127.0.0.1", "[::1]", "localhost:8081", "localhost:",
    "localhost:08080", "localhost:+8080", "localhost:8080:8080", "localhost:80808080", "localhost:８０８０",
    "localhost:\xb2", "localhost..:8080", ".localhost:8080", "a.localhost:8080", "localhost.evil.example:8080",
    "127.0.0.1.evil.example:8080", "evil.example#localhost:8080", "localhost@evil.example:8080",
    "evil.example@localhost:8080", "user:password@localhost:8080", "localhost:8080@evil.example", "::1:8080",
    "[::1:8080", "::1]:8080", "[::1%lo]:8080", "[::1%25lo]:8080", "[0:0:0:0:0:0:0:1]:8080", "[::ffff:127.0.0.1]:8080",
    "[::1].:8080", "2130706433:8080", "0x7f.1:8080", "0x7f000001:8080", "0177.0.0.1:8080", "127.1:8080",
    "127.0.0.01:8080",
    "127.0.0.2:8080", "0.0.0.0:8080", "0:8080", "localhost:8080, localhost:8080", "localhost:8080,localhost:8080",
    "localhost :8080", "localhost: 8080", "localhost:8080/", "http://localhost:8080", "ｌocalhost:8080",
    "localho\u017ft:8080", "\xa0localhost:8080", "localhost\x00:8080", "*", "*:8080", "localhost\t:8080",
]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_every_other_name_is_refused(host: str) -> None:
    detail = RULE.refusal("GET", "1.1", {"host": host})
    assert detail is not None
    assert f"the header Host is {host[:100]!r}, which is no name of this server" in detail
    assert RULE.refusal("GET", "1.0", {"host": host}) is not None


def test_only_http_1_0_may_leave_the_host_out() -> None:
    assert RULE.refusal("POST", "1.0", {}) is None
    for version in ("1.1", "2.0", "2", "0.9", "", "9.9"):
        assert "the header Host is absent" in str(RULE.refusal("POST", version, {}))
    for name in ("origin", "sec-fetch-site"):
        assert RULE.refusal("POST", "1.0", {name: "http://localhost:8080"}) is not None


ORIGINS = ["null", "", "*", "http://localhost:8080", "http://127.0.0.1:8080", "https://evil.example", "file://"]
SITES = ["cross-site", "same-site", "same-origin", "none", "", "None", "none, none", "x"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_origin_is_refused_whatever_it_is(origin: str) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        detail = RULE.refusal(method, "1.1", {"host": "localhost:8080", "origin": origin, "sec-fetch-site": "none"})
        assert f"the header Origin is {origin!r}: this comes from a browser" in str(detail)


@pytest.mark.parametrize("site", SITES)
def test_a_browser_is_answered_only_what_its_user_looks_at(site: str) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
        detail = RULE.refusal(method, "1.1", {"host": "localhost:8080", "sec-fetch-site": site})
        if site == "none" and method in ("GET", "HEAD"):
            assert detail is None
        else:
            assert f"the header Sec-Fetch-Site is {site!r}: this comes from a browser" in str(detail)


def test_a_value_is_shown_in_part_and_escaped() -> None:
    for name in ("host", "origin", "sec-fetch-site"):
        detail = RULE.refusal("POST", "1.1", {"host": "localhost:8080"} | {name: "\n\0'" + "x" * 100_000})
        assert detail is not None
        assert r"\n\x00" in detail
        assert "\n" not in detail
        assert len(detail) < 500


# What the user allows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [*LISTED, "DEPTH.example", "depth.example.", "tunnel.example.:9000", *sorted(OWN)])
def test_a_listed_host_is_answered(host: str) -> None:
    assert LISTING.refusal("POST", "1.1", {"host": host}) is None


@pytest.mark.parametrize("host", [
    "depth.example:8080", "tunnel.example", "tunnel.example:8080", "tunnel.example:09000", "x.depth.example",
    "depth.example.evil.example", "[::2]", "[::2]:8080", "xdepth.example",
])  # fmt: skip
def test_a_listed_host_is_that_one_only(host: str) -> None:
    assert LISTING.refusal("POST", "1.1", {"host": host}) is not None
    for origin in (f"http://{host}", f"https://{host}"):
        assert LISTING.refusal("POST", "1.1", {"host": "depth.example", "origin": origin}) is not None


def test_the_page_of_a_listed_host_may_ask() -> None:
    for host in ("depth.example", "localhost:8080"):
        for origin in ("http://depth.example", "https://depth.example", "HTTPS://Depth.example"):
            headers = {"host": host, "origin": origin, "sec-fetch-site": "cross-site"}
            assert LISTING.refusal("POST", "1.1", headers) is None
    assert LISTING.refusal("GET", "1.1", {"host": "depth.example", "sec-fetch-site": "same-origin"}) is None


@pytest.mark.parametrize("origin", [
    "null", "depth.example", "ftp://depth.example", "http://depth.example/", "http://x@depth.example", "://depth.example",
    "http://depth.example@evil.example", "http://depth.example, http://depth.example", "http:// depth.example",
    "chrome-extension://depth.example", "http://http://depth.example", "http://localhost:8080",
])  # fmt: skip
def test_no_other_page_may(origin: str) -> None:
    assert LISTING.refusal("POST", "1.1", {"host": "depth.example", "origin": origin}) is not None


def test_to_be_of_the_same_origin_counts_for_a_listed_host_only() -> None:
    for host in sorted(OWN):
        assert LISTING.refusal("GET", "1.1", {"host": host, "sec-fetch-site": "same-origin"}) is not None
    for site in ("cross-site", "same-site", "x"):
        assert LISTING.refusal("GET", "1.1", {"host": "depth.example", "sec-fetch-site": site}) is not None


@pytest.mark.parametrize(("text", "host"), [
    ("Depth.Example", "depth.example"), ("depth.example.", "depth.example"), ("a_b-c:1", "a_b-c:1"),
    ("10.0.0.1:65535", "10.0.0.1:65535"), ("[0:0::1]:9", "[::1]:9"), ("localhost.:9000", "localhost:9000"),
])  # fmt: skip
def test_a_host_is_read_in_its_spellings(text: str, host: str) -> None:
    assert read_host(text) == host


@pytest.mark.parametrize("text", [
    "", "*", "*.example", "http://a.example", "a.example/", "a.example:", "a.example:0", "a.example:08",
    "a.example:65536", "a.example:99999", "a.example:1:2", "a..b", ".a", "a b", "a@b", "::1", "[::1", "[1.2.3.4]",
    "[::1%lo]", "[::1]9", "[]", "\xe9.example", "a.example\n", "ａ.example", "a:９",
])  # fmt: skip
def test_what_is_no_host_is_not_read(text: str) -> None:
    assert read_host(text) is None


# Anything at all -----------------------------------------------------------------------------------------------------

NEARLY = st.builds(
    "".join,
    st.lists(
        st.sampled_from(["localhost", "127.0.0.1", "[::1]", ":", "8080", ".", "@", "%", "x", " ", "\xe9", "0", ","])
    ),
)
ANYTHING = st.one_of(st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")), NEARLY, st.text(max_size=30))


@given(host=ANYTHING, version=st.sampled_from(["1.0", "1.1"]))
@example(host="LOCALHOST:8080", version="1.1")
def test_no_bytes_at_all_make_a_foreign_host_the_servers(host: str, version: str) -> None:
    answered = RULE.refusal("POST", version, {"host": host}) is None
    assert answered == (host.isascii() and host.lower() in OWN)


PAGE_HOSTS = {"depth.example", "depth.example.", "tunnel.example:9000", "tunnel.example.:9000", "[::2]:9000"}
ORIGIN = st.builds(
    str.__add__, st.sampled_from(["", "http://", "HTTPS://", "ftp://"]), ANYTHING | st.sampled_from(LISTED)
)


@given(method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]), origin=ORIGIN, site=ANYTHING)
@example(method="POST", origin="http://depth.example", site="cross-site")
def test_no_bytes_at_all_make_another_page_a_listed_one(method: str, origin: str, site: str) -> None:
    headers = {"host": "localhost:8080", "origin": origin, "sec-fetch-site": site}
    assert RULE.refusal(method, "1.1", headers) is not None
    scheme, _, host = origin.lower().partition("://")
    listed = origin.isascii() and scheme in ("http", "https") and host in PAGE_HOSTS
    assert (LISTING.refusal(method, "1.1", headers) is None) == listed


@given(method=st.sampled_from(["GET", "POST"]), site=ANYTHING | st.sampled_from(SITES))
def test_no_bytes_at_all_make_a_browser_another_client(method: str, site: str) -> None:
    answered = RULE.refusal(method, "1.1", {"host": "localhost:8080", "sec-fetch-site": site}) is None
    assert answered == (method == "GET" and site == "none")


@given(text=ANYTHING)
def test_what_is_read_as_a_host_is_read_again_as_itself(text: str) -> None:
    host = read_host(text)
    if host is not None:
        assert host.isascii()
        assert read_host(host) == host
        assert RULE.refusal("POST", "1.1", {"host": host}) is None or host not in OWN


# Over real connections -----------------------------------------------------------------------------------------------


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def connect(server: Server, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port_of(server)), timeout=30)


def said(
    server: Server, *lines: str, body: bytes = BODY, address: str = "127.0.0.1"
) -> tuple[int, str, dict[str, str]]:
    """Status, head in small letters, and the error of what the server answers to a request with these lines."""
    head = [*lines, "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", "", ""]
    with connect(server, address) as stream:
        stream.sendall("\r\n".join(head).encode("latin-1") + body)
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    status = int(top.split()[1])
    return status, top.decode("latin-1").lower(), json.loads(rest) if status >= 400 else {}


POST = "POST /invocations HTTP/1.1"
REFUSED = {
    "rebound name": (POST, "Host: evil.example:{port}"),
    "no port": (POST, "Host: localhost"),
    "another port": (POST, "Host: localhost:1"),
    "no host": (POST,),
    "two hosts": (POST, "Host: localhost:{port}", "Host: localhost:{port}"),
    "two hosts, HTTP/1.0": ("POST /invocations HTTP/1.0", "Host: localhost:{port}", "Host: evil.example"),
    "empty host": (POST, "Host:"),
    "user": (POST, "Host: localhost@evil.example:{port}"),
    "zone": (POST, "Host: [::1%lo]:{port}"),
    "decimal": (POST, "Host: 2130706433:{port}"),
    "bytes": (POST, "Host: \xff\xfe:{port}"),
    "origin": (POST, "Host: localhost:{port}", "Origin: https://evil.example"),
    "own origin": (POST, "Host: localhost:{port}", "Origin: http://localhost:{port}"),
    "null origin": (POST, "Host: localhost:{port}", "Origin: null"),
    "empty origin": (POST, "Host: localhost:{port}", "oRiGiN:"),
    "site": (POST, "Host: localhost:{port}", "Sec-Fetch-Site: cross-site"),
    "user's own POST": (POST, "Host: localhost:{port}", "Sec-Fetch-Site: none"),
    "old with origin": ("POST /invocations HTTP/1.0", "Origin: https://evil.example"),
    "preflight": ("OPTIONS /invocations HTTP/1.1", "Host: localhost:{port}", "Origin: https://evil.example",
                  "Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true"),
    "metrics": ("GET /metrics HTTP/1.1", "Host: localhost:{port}", "Sec-Fetch-Site: cross-site"),
    "rebound metrics": ("GET /metrics HTTP/1.1", "Host: evil.example:{port}"),
    "ping": ("GET /ping HTTP/1.1", "Host: localhost:{port}", "Sec-Fetch-Site: same-site"),
    "no route": ("GET /x HTTP/1.1", "Host: evil.example:{port}"),
    "websocket": ("GET /invocations HTTP/1.1", "Host: localhost:{port}", "Origin: https://evil.example",
                  "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "h2c": (POST, "Host: evil.example:{port}", "Upgrade: h2c"),
}  # fmt: skip
ANSWERED = {
    "localhost": (POST, "Host: localhost:{port}"),
    "number": (POST, "Host: 127.0.0.1:{port}"),
    "other version's number": (POST, "Host: [::1]:{port}"),
    "capitals, dot": (POST, "hOST: LocalHost.:{port}"),
    "old": ("POST /invocations HTTP/1.0",),
    "old with host": ("POST /invocations HTTP/1.0", "Host: localhost:{port}"),
    "typed": ("GET /metrics HTTP/1.1", "Host: localhost:{port}", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"),
    "typed ping": ("GET /ping HTTP/1.1", "Host: localhost:{port}", "Sec-Fetch-Site: none"),
}


def batches(server: Server) -> float:
    """How often the model was called."""
    text = server.request("/metrics").body.decode()
    return sum(map(float, re.findall(r"^endpoint_batch_items_count\S* (\S+)$", text, re.MULTILINE)))


@pytest.fixture(scope="module", params=["httptools", "h11", "2 processes"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    more = without_httptools(folder, "h11") if request.param == "h11" else {"ENDPOINT_WORKERS": "2"}
    arguments = ("--processes", "2") if request.param == "2 processes" else ()
    variables = {"ENDPOINT_ALLOWED_HOSTS": "tunnel.example:9000", "ENDPOINT_REQUEST_BYTES": "3000000"}
    running = Server(doubling_artifact(folder / "a"), folder / "log", variables | more, *arguments)
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_over_http_it_is_403_and_the_model_does_not_run(server: Server, name: str) -> None:
    before = batches(server)
    status, head, error = said(server, *(line.format(port=port_of(server)) for line in REFUSED[name]))
    if status == 400 and name in ("no host", "two hosts", "two hosts, HTTP/1.0"):
        return  # h11 knows that this is no HTTP
    assert (status, error["error"]) == (403, "forbidden")
    assert error["detail"].startswith(("the header Host is ", "the header Origin is ", "the header Sec-Fetch-Site is "))
    assert "access-control" not in head
    assert "\r\nconnection: close" in head
    assert batches(server) == before


@pytest.mark.parametrize("name", sorted(ANSWERED))
def test_over_http_everyone_else_is_answered(server: Server, name: str) -> None:
    lines = ANSWERED[name]
    status, head, _ = said(
        server, *(line.format(port=port_of(server)) for line in lines), body=BODY if POST[:4] in lines[0] else b""
    )
    assert status == 200
    assert "access-control" not in head


def test_over_http_a_listed_host_is_answered(server: Server) -> None:
    host = "Host: tunnel.example:9000"
    assert said(server, POST, host)[0] == 200
    assert said(server, POST, host, "Origin: https://tunnel.example:9000", "Sec-Fetch-Site: same-origin")[0] == 200
    assert said(server, POST, host, "Origin: https://tunnel.example")[0] == 403


def test_it_is_counted_and_logged_like_every_answer(server: Server) -> None:
    said(server, "GET /ping HTTP/1.1", "Host: evil.example", "X-Request-Id: guarded-1")
    assert re.search(rb'^endpoint_requests_total\{status="403"\} [1-9]', server.request("/metrics").body, re.MULTILINE)
    lines: list[dict[str, Any]] = []

    def written() -> bool:
        lines[:] = [line for line in list(server.lines) if line.get("request_id") == "guarded-1"]
        return bool(lines)

    wait_for(written)
    assert [(line["status"], line["path"]) for line in lines] == [(403, "/ping")]
    assert "evil.example" in lines[0]["error"]


@pytest.mark.parametrize("size", [0, 10, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_past_and_the_answer_arrives(server: Server, size: int, *, chunked: bool) -> None:
    """Two requests at once: what comes after a refused body is not read as a request."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    body = (b"%x\r\n%b\r\n" % (size, bytes(size)) if size else b"") + b"0\r\n\r\n" if chunked else bytes(size)
    with connect(server) as stream:
        stream.sendall(f"{POST}\r\nHost: evil.example\r\n{length}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "forbidden"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_refused_body_takes_no_memory(tmp_path: Path) -> None:
    size, count = 25_000_000, 12
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log")

    def memory() -> int:
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    try:
        assert said(server, POST, "Host: evil.example")[0] == 403
        before = memory()
        with contextlib.ExitStack() as held:
            for _ in range(count):
                stream = held.enter_context(connect(server))
                stream.sendall(f"{POST}\r\nHost: evil.example\r\nContent-Length: {size}\r\n\r\n".encode())
                stream.sendall(bytes(size - 1))  # the last byte never comes
                assert stream.recv(12) == b"HTTP/1.1 403"
            assert memory() - before < size * count / 4
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(("bound", "address"), [("localhost", "127.0.0.1"), ("::1", "::1")])
def test_each_loopback_address_is_guarded(tmp_path: Path, bound: str, address: str) -> None:
    if bound == "::1" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", None, "--host", bound)
    literal = f"[{address}]" if ":" in address else address
    try:
        assert said(server, POST, f"Host: {literal}:{port_of(server)}", address=address)[0] == 200
        assert said(server, POST, f"Host: evil.example:{port_of(server)}", address=address)[0] == 403
    finally:
        assert server.stop() == 0


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_where_others_reach_it_nothing_is_checked(tmp_path: Path, processes: str) -> None:
    arguments = ("--host", "0.0.0.0", "--processes", processes)
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", {"ENDPOINT_WORKERS": "2"}, *arguments)
    try:
        for lines in (("Host: model.internal",), (), ("Host: x", "Origin: https://y", "Sec-Fetch-Site: cross-site")):
            status, head, _ = said(server, POST, *lines)
            assert status == 200
            assert "access-control" not in head
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_odd_http_under_a_foreign_name_never_reaches_the_model(tmp_path: Path, parser: str) -> None:
    """The corpus asks for Host: x; where test_load allows that name, here it is nobody's."""
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", without_httptools(tmp_path, parser))
    address = urlsplit(server.url)
    statuses: set[int] = set()
    try:
        for number in range(75):
            with socket.create_connection((address.hostname, address.port), timeout=5) as stream:
                answer = exchange(stream, raw(number), half_close=False)
            statuses |= {int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)}
        assert {400, 403} <= statuses <= {100, 400, 403}
        assert batches(server) == 0
    finally:
        assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
