"""The native server as a process of its own, over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import inference_code
from inference_code.artifact import manifest as m
from inference_code.server.__main__ import main as server_command
from tests.inference_code.artifacts import (
    BUCKET,
    Server,
    change_manifest,
    child_environment,
    depth_artifact,
    doubling_artifact,
    encoded,
    gradient,
    npy,
    read_npy,
    sums_artifact,
)
from tests.inference_code.helpers import SLOW, error_of, fails, wait_for

PICTURE = encoded(Image.fromarray(gradient()))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims width x height."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10_000_000))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_ping_and_routes(depth_server: Server) -> None:
    assert depth_server.request("/ping").status == 200
    for path, method, status in (
        ("/", "GET", 404),
        ("/models", "GET", 404),
        ("/ping/", "GET", 404),
        ("/invocations", "GET", 405),
        ("/invocations", "PUT", 405),
        ("/ping", "POST", 405),
    ):
        answer = depth_server.request(path, b"" if method != "GET" else None, method)
        assert (path, answer.status) == (path, status)
        error_of(answer)
        assert ("allow" in answer.headers) == (status == 405)


PICTURES = {
    "jpeg": encoded(Image.fromarray(gradient()), "JPEG"),
    "png": PICTURE,
    "webp": encoded(Image.fromarray(gradient()), "WEBP"),
    "grey": encoded(Image.fromarray(gradient()[:, :, 0])),
    "grey jpeg": encoded(Image.fromarray(gradient()[:, :, 0]), "JPEG"),
    "rgba": encoded(Image.fromarray(np.dstack([gradient(), gradient()[:, :, :1]]))),
    "16 bit": encoded(Image.fromarray(gradient()[:, :, 0].astype(np.uint16) * 257)),
    "palette": encoded(Image.fromarray(gradient()).quantize(16)),
    "cmyk": encoded(Image.fromarray(gradient()).convert("CMYK"), "JPEG"),
    "black and white": encoded(Image.fromarray(gradient()).convert("1")),
}


@pytest.mark.parametrize("kind", sorted(PICTURES))
def test_each_kind_of_picture_gets_its_map(depth_server: Server, kind: str) -> None:
    content_type = "image/jpeg" if "jpeg" in kind or kind == "cmyk" else "image/webp" if kind == "webp" else "image/png"
    answer = depth_server.request(body=PICTURES[kind], Content_Type=content_type)
    assert answer.status == 200
    depth = read_npy(answer.body)
    assert (depth.shape, depth.dtype) == ((30, 40), np.float32)
    if kind != "rgba":  # the picture gets brighter to the right, and so does the map
        assert depth[15, 35] > depth[15, 5]


def test_an_upright_map_for_a_turned_photograph(depth_server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(gradient()).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    found = read_npy(depth_server.request(body=turned, Content_Type="image/jpeg").body)
    straight = encoded(Image.fromarray(gradient()), "JPEG", quality=95)
    expected = read_npy(depth_server.request(body=straight, Content_Type="image/jpeg").body)
    assert found.shape == (30, 40)
    assert np.abs(found - expected).max() < 0.3


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/x-npy"),
        ("*/*", "application/x-npy"),
        ("application/x-npy", "application/x-npy"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "application/json"),
        ("application/json;q=0.2, image/png;q=0.7", "image/png"),
    ],
)
def test_each_accept_gets_its_form(depth_server: Server, accept: str | None, kind: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = depth_server.request(body=PICTURE, Content_Type="image/png", **headers)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)


def test_the_rehearsal_is_said_in_every_form(depth_server: Server) -> None:
    for accept in ("application/x-npy", "image/png", "application/json", "text/html"):
        answer = depth_server.request(body=PICTURE, Content_Type="image/png", Accept=accept)
        assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "rehearsal=true"
        if accept == "application/json":
            assert json.loads(answer.body)["rehearsal"] is True
        if accept == "image/png":
            with Image.open(io.BytesIO(answer.body)) as image:
                assert image.text["rehearsal"] == "true"


def test_size_model_by_either_header(depth_server: Server) -> None:
    for headers in (
        {"Accept": "application/x-npy; size=model"},
        {"X_Amzn_SageMaker_Custom_Attributes": "size=model"},
    ):
        answer = depth_server.request(body=PICTURE, Content_Type="image/png", **headers)
        assert read_npy(answer.body).shape == (BUCKET, BUCKET)


class Evil:
    def __reduce__(self) -> Any:
        return (open, ("evil.txt", "w"))


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def claiming(count: int) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 3, 3), }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


HOSTILE = {
    "pickled npy": (pickled(), "application/x-npy", 400, "never"),
    "npy claiming too much": (claiming(10**12), "application/x-npy", 400, "9000000000000 elements"),
    "text as picture": (b"just a text file\n" * 50, "image/jpeg", 400, "not a JPEG"),
    "text": (b"just a text file\n" * 50, "text/plain", 415, "text/plain"),
    "text as npy": (b"just a text file\n" * 50, "application/x-npy", 400, "not an npy file"),
    "truncated jpeg": (PICTURES["jpeg"][:-200], "image/jpeg", 400, "decoded"),
    "bomb": (bomb(50_000, 50_000), "image/png", 413, "pixels"),
    "small bomb": (bomb(2_000, 2_000), "image/png", 413, "2000 x 2000 = 4000000 pixels; at most 1000000"),
    "nan": (npy(np.full((4, 4, 3), np.nan, np.float32)), "application/x-npy", 400, "NaN"),
    "wrong dtype": (npy(np.zeros((4, 4, 3), np.int32)), "application/x-npy", 400, "int32"),
    "wrong rank": (npy(np.zeros(4, np.uint8)), "application/x-npy", 400, "shape [4]"),
    "empty": (b"", "image/png", 400, "empty"),
    "empty npy": (b"", "application/x-npy", 400, "npy"),
    "no type": (b"no picture", "", 415, "absent"),
    "bad type": (PICTURE, "picture", 415, "not a media type"),
    "too long": (bytes(2_000_001), "image/png", 413, "2000001 bytes; at most 2000000"),
    "too many items": (npy(np.zeros((4, 4, 4, 3), np.uint8)), "application/x-npy", 413, "4 items; at most 3"),
    "answer too large": (encoded(Image.new("L", (900, 900))), "image/png", 413, "3240128 bytes"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_requests_get_their_status_and_the_server_lives(depth_server: Server, name: str) -> None:
    body, content_type, status, part = HOSTILE[name]
    headers = {"Content_Type": content_type}
    answer = depth_server.request(body=body, **headers)
    assert answer.status == status
    assert part in error_of(answer)["detail"]
    assert not Path("evil.txt").exists()
    assert depth_server.request(body=PICTURE, Content_Type="image/png").status == 200


def test_not_acceptable(depth_server: Server) -> None:
    answer = depth_server.request(body=PICTURE, Content_Type="image/png", Accept="image/gif")
    assert answer.status == 406
    assert "application/x-npy, image/png, application/json" in error_of(answer)["detail"]


def connect(server: Server) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)


def test_a_body_without_length_is_cut_off_at_the_limit(depth_server: Server) -> None:
    connection = connect(depth_server)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 200_000_000:
            sent += 100_000
            yield bytes(100_000)

    try:
        connection.request("POST", "/invocations", endless(), {"Content-Type": "image/png"}, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (413, "too_large")
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server closed the connection while we were still sending, before its answer was read
    finally:
        connection.close()
    assert sent < 200_000_000
    assert depth_server.request("/ping").status == 200


@pytest.mark.parametrize("head", [b"GET /ping?" + b"x" * 300_000, b"GET /ping HTTP/1.1\r\nX: " + b"y" * 300_000])
def test_a_head_that_never_ends_is_cut_off(depth_server: Server, head: bytes) -> None:
    address = urlsplit(depth_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as stream:
        with contextlib.suppress(ConnectionError):
            stream.sendall(head)
        with contextlib.suppress(ConnectionResetError):  # the rest of the head was not read
            assert "more than 65536 bytes" in refusal(stream)["detail"]
    assert depth_server.request("/ping").status == 200


def test_a_head_below_the_limit_is_read(depth_server: Server) -> None:
    assert depth_server.request("/ping", X_Noise="x" * 50_000).status == 200


def test_huge_headers_are_refused_and_the_server_lives(depth_server: Server) -> None:
    connection = connect(depth_server)
    try:
        connection.request("POST", "/invocations", PICTURE, {"Content-Type": "image/png", "X-Noise": "x" * 1_000_000})
        assert connection.getresponse().status in (400, 431)
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        connection.close()
    assert depth_server.request("/ping").status == 200


def refusal(stream: socket.socket) -> dict[str, str]:
    """The JSON of a 400 that closes the connection."""
    head, _, body = b"".join(iter(lambda: stream.recv(10_000), b"")).partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 400 bad request"
    assert {"content-type: application/json", f"content-length: {len(body)}", "connection: close"} <= set(lines)
    found = json.loads(body)
    assert found.keys() == {"error", "detail"}
    return found  # type: ignore[no-any-return]


NO_HTTP = {
    "nonsense": b"\x00\x01\x02 nonsense\r\n\r\n",
    "bad header": b"GET /ping HTTP/1.1\r\nHost x\r\n\r\n",
    "two lengths": b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "bad length": b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
}


def refuses_what_is_no_http(server: Server) -> None:
    address = urlsplit(server.url)
    for name, text in NO_HTTP.items():
        with socket.create_connection((address.hostname, address.port), timeout=30) as stream:
            stream.sendall(text)
            assert refusal(stream)["error"] == "bad_request", name
    with socket.create_connection((address.hostname, address.port), timeout=30) as stream:  # after a good request
        stream.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in stream.recv(10_000).split(b"\r\n")[0]
        stream.sendall(NO_HTTP["nonsense"])
        assert refusal(stream)["error"] == "bad_request"
    assert server.request("/ping").status == 200


def test_what_is_no_http_is_refused_as_json(depth_server: Server) -> None:
    refuses_what_is_no_http(depth_server)


def test_without_httptools_it_is_refused_as_json_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['httptools'] = None\n")
    variables = {"PYTHONPATH": f"{tmp_path}:{child_environment()['PYTHONPATH']}", "ENDPOINT_ALLOWED_HOSTS": "x"}
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", variables)
    try:
        refuses_what_is_no_http(server)
        assert server.request(body=npy(np.ones(3, np.float32)), Content_Type="application/x-npy").status == 200
    finally:
        assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_client_that_goes_away_while_sending(depth_server: Server) -> None:
    address = urlsplit(depth_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as stream:
        stream.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    assert depth_server.request(body=PICTURE, Content_Type="image/png").status == 200


def test_many_at_once_are_answered_each_with_its_own(depth_server: Server) -> None:
    bodies = [encoded(Image.new("RGB", (5 + index, 7), (index, index, index))) for index in range(30)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: depth_server.request(body=body, Content_Type="image/png"), bodies))
    maps = [read_npy(answer.body) for answer in answers]
    assert [depth.shape for depth in maps] == [(7, 5 + index) for index in range(30)]
    means = [float(depth.mean()) for depth in maps]
    assert means == sorted(means)


def test_a_forty_megapixel_picture(tmp_path: Path) -> None:
    """With the default limits: up to 40 million pixels are read, and the answer's size decides."""
    server = Server(depth_artifact(tmp_path / "artifact"), tmp_path / "log")
    try:
        large = encoded(Image.new("L", (8000, 5000), 128), "JPEG")
        answer = server.request(body=large, Content_Type="image/jpeg")
        assert answer.status == 413
        detail = error_of(answer)["detail"]
        assert "8000 x 5000" in detail
        assert "160000128 bytes" in detail
        small = server.request(body=large, Content_Type="image/jpeg", Accept="application/x-npy;size=model")
        assert read_npy(small.body).shape == (BUCKET, BUCKET)
        larger = encoded(Image.new("L", (8001, 5000), 128), "JPEG")
        answer = server.request(body=larger, Content_Type="image/jpeg", Accept="application/x-npy;size=model")
        assert answer.status == 413
        assert "8001 x 5000 = 40005000 pixels; at most 40000000" in error_of(answer)["detail"]
    finally:
        assert server.stop() == 0


def test_a_changed_graph_ends_with_one_line(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path / "a")
    graph = m.read(folder).graphs[0].file
    (folder / graph).write_bytes(b"I am no graph")
    assert f"{graph}: sha256 is " in fails(folder)


def test_a_graph_that_is_none_ends_with_one_line(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path / "a")
    graph = m.read(folder).graphs[0].file
    (folder / graph).write_bytes(b"I am no graph")
    change_manifest(folder, files=dict(m.read(folder).files) | {graph: m.file_sha256(folder / graph)})
    assert f"graph {graph} cannot be loaded" in fails(folder)


def test_another_torch_ends_with_one_line(tmp_path: Path) -> None:
    error = fails(sums_artifact(tmp_path / "a", versions={"torch": "1.2.3"}))
    assert "torch 1.2.3" in error
    assert str(torch.__version__).split("+")[0] in error


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process, which saves the seconds that importing torch takes."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str) -> tuple[int, str]:
        code = server_command(arguments)
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("ENDPOINT_MAX_PIXELS", "40M", "ENDPOINT_MAX_PIXELS is '40M'"),
        ("ENDPOINT_CORES_PER_WORKER", "1", "takes 4 cores a copy, ENDPOINT_CORES_PER_WORKER is 1"),
    ],
)
def test_a_wrong_environment_ends_with_one_line(
    tmp_path: Path, in_process: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, part: str
) -> None:
    monkeypatch.setenv(name, value)
    code, error = in_process("--model-dir", str(sums_artifact(tmp_path, cores_per_copy=4)), "--port", "0")
    assert (code, part in error, error.count("\n")) == (1, True, 1)


def test_a_folder_without_manifest_ends_with_one_line(tmp_path: Path, in_process: Any) -> None:
    code, error = in_process("--model-dir", str(tmp_path), "--port", "0")
    assert (code, "not an unpacked model.tar.gz" in error, error.count("\n")) == (1, True, 1)


def test_a_handler_that_cannot_be_imported_ends_with_one_line(tmp_path: Path, in_process: Any) -> None:
    folder = doubling_artifact(tmp_path / "a", "import not_there_at_all\n")
    code, error = in_process("--model-dir", str(folder), "--port", "0")
    assert "No module named 'not_there_at_all' (my_handler.py, line 1)" in error
    assert (code, error.count("\n")) == (1, 1)


def test_a_port_in_use_is_said_before_the_model_is_loaded(tmp_path: Path, in_process: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, error = in_process("--model-dir", str(tmp_path), "--port", str(port))
    assert code == 1
    assert error == f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port with --port\n"


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--port", "x"), ("--what",), ()])
def test_wrong_use_ends_with_two(in_process: Any, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        in_process(*(("--model-dir", "x", *arguments) if arguments else ()))
    assert caught.value.code == 2


def test_sigterm_lets_the_request_in_work_finish(tmp_path: Path) -> None:
    source = SLOW.replace("    time", "    open(__file__ + '.in', 'w').close()\n    time")
    folder = doubling_artifact(tmp_path / "a", source)
    server = Server(folder, tmp_path / "log")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.request, body=b"1.5", Content_Type="text/plain")
        wait_for((folder / "code/handler/models/my_handler.py.in").exists)
        server.process.send_signal(signal.SIGTERM)
        assert answer.result().body == b"[2, 2, 2]"
    assert server.stop() == 0


def test_more_than_the_queue_holds_is_503_with_retry_after(tmp_path: Path) -> None:
    source = SLOW.replace("    time", "    open(__file__ + '.in', 'w').close()\n    time")
    folder = doubling_artifact(tmp_path / "a", source)
    server = Server(folder, tmp_path / "log", {"ENDPOINT_MAX_QUEUE": "1"})
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.request, body=b"2", Content_Type="text/plain")
            wait_for((folder / "code/handler/models/my_handler.py.in").exists)
            second = server.request(body=b"0", Content_Type="text/plain")
            assert (second.status, second.headers["retry-after"]) == (503, "1")
            assert error_of(second)["error"] == "unavailable"
            assert server.request("/ping").status == 200
            assert first.result().status == 200
        assert server.request(body=b"0", Content_Type="text/plain").status == 200
    finally:
        server.stop()


def test_a_body_that_does_not_arrive_is_408(tmp_path: Path) -> None:
    variables = {"ENDPOINT_BODY_TIMEOUT_S": "0.3", "ENDPOINT_ALLOWED_HOSTS": "x"}
    server = Server(doubling_artifact(tmp_path / "a"), tmp_path / "log", variables)
    try:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as stream:
            stream.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
            answer = b"".join(iter(lambda: stream.recv(10_000), b""))
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b'"request_timeout"' in answer
    finally:
        assert server.stop() == 0


def test_a_failing_handler_is_500_and_its_traceback_stays_in_the_log(tmp_path: Path) -> None:
    source = "def preprocess(request):\n    return {}['secret']\ndef postprocess(outputs, item): ...\n"
    server = Server(doubling_artifact(tmp_path / "a", source), tmp_path / "log")
    try:
        answer = server.request(body=b"x")
        assert answer.status == 500
        assert error_of(answer) == {
            "error": "internal_error", "detail": "preprocess failed with KeyError; the worker's log has the details",
        }  # fmt: skip
    finally:
        server.stop()
    log = server.log.read_text()
    assert "Traceback" in log
    assert "KeyError: 'secret'" in log


def test_the_packed_code_serves_from_its_own_folder(tmp_path: Path) -> None:
    """As a container runs it: code/ alone on sys.path, the working directory elsewhere."""
    folder = tmp_path / "a"
    shutil.copytree(
        Path(inference_code.__file__).parent,
        folder / "code/inference_code",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(Path(inference_code.__file__).parent / "inference.py", folder / "code/inference.py")
    doubling_artifact(folder, "from helper import preprocess, postprocess\n", {"helper.py": SLOW})
    server = Server(folder, tmp_path / "log", {"PYTHONPATH": str(folder / "code")})
    try:
        assert server.request(body=b"0", Content_Type="text/plain").body == b"[2, 2, 2]"
    finally:
        assert server.stop() == 0
