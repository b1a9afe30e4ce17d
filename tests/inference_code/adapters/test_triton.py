"""The artifact under a real tritonserver: SageMaker's frontend, tritonclient, batches, errors, and what cannot load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_code.adapters.triton.__main__ import main
from inference_code.adapters.triton.model import media_type
from tests.inference_code.artifacts import Response, Server, change_manifest, depth_artifact, encoded, gradient, npy
from tests.inference_code.load import Sent, send_all
from tests.inference_code.tritons import HOME, ROOT, Triton, obstacle

RAW = "application/vnd.sagemaker-triton.binary+json;json-header-size=0"
PICTURE = encoded(Image.fromarray(gradient()))


def packed(folder: Path) -> Path:
    """A depth artifact with its code, as a build makes it."""
    package = ROOT / "inference_code"
    shutil.copytree(package, folder / "code" / "inference_code", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "inference.py", folder / "code")
    return depth_artifact(folder)


# The repository ----------------------------------------------------------------------------------------------------


def test_a_repository_holds_all_that_triton_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = packed(tmp_path / "artifact")
    assert main(["--model-dir", str(artifact), "--to", str(tmp_path / "repository"), "--name", "depth"]) == 0
    made = tmp_path / "repository" / "depth"
    assert capsys.readouterr().out == f"{made}\n"
    assert sorted(path.name for path in made.iterdir()) == ["1", "config.pbtxt"]
    assert 'name: "depth"' in (made / "config.pbtxt").read_text()
    assert (made / "1" / "artifact" / "manifest.json").read_bytes() == (artifact / "manifest.json").read_bytes()
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["depth"], "something is left behind"
    assert main(["--model-dir", str(artifact), "--to", str(tmp_path / "repository"), "--name", "depth"]) == 1
    assert "is there already" in capsys.readouterr().err


def test_what_is_no_artifact_makes_no_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model-dir", str(tmp_path), "--to", str(tmp_path / "repository")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "repository").exists()
    with pytest.raises(SystemExit) as caught:
        main(["--model-dir", str(tmp_path), "--to", str(tmp_path), "--name", "../x"])
    assert caught.value.code == 2


def test_a_body_without_a_type_is_known_by_its_first_bytes() -> None:
    bodies = (npy(gradient()), PICTURE, encoded(Image.fromarray(gradient()), "JPEG"), b'{"x": 1}', b"")
    kinds = ["application/x-npy", "image/png", "image/jpeg", "application/json", "application/json"]
    assert [media_type(body) for body in bodies] == kinds


# The server --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.version_info < (3, 11):
        pytest.skip("Triton's environment is of Python 3.11")
    reason = obstacle()
    if reason:
        pytest.skip(f"Triton is NOT tested here: {reason}")
    return packed(tmp_path_factory.mktemp("triton") / "artifact")


@pytest.fixture(scope="module")
def triton(artifact: Path) -> Iterator[Triton]:
    folder = artifact.parent
    assert main(["--model-dir", str(artifact), "--to", str(folder / "repository")]) == 0
    server = Triton(folder / "repository", folder / "triton", environment={"OMP_NUM_THREADS": "1"})
    try:
        server.wait()
        yield server
    finally:
        log = server.stop()
    assert "Traceback" not in log, log[-4000:]


def invoke(triton: Triton, body: bytes, content_type: str = RAW) -> Response:
    request = urllib.request.Request(f"{triton.url}/invocations", body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Response(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, dict(error.headers), error.read())


def outputs(answer: Response) -> dict[str, Any]:
    """The outputs of a binary answer: the body's bytes, the content type's text."""
    size = int(answer.headers["Content-Type"].rpartition("=")[2])
    header, data = json.loads(answer.body[:size]), answer.body[size:]
    found, start = {}, 0
    for output in header["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        found[output["name"]] = data[start:end] if output["datatype"] == "UINT8" else data[start + 4 : end].decode()
        start = end
    return found


@pytest.mark.slow
def test_sagemakers_frontend_answers_as_the_native_server(triton: Triton, artifact: Path, tmp_path: Path) -> None:
    native = Server(artifact, tmp_path / "log")
    try:
        for body, kind in ((PICTURE, "image/png"), (npy(gradient()), "application/x-npy")):
            expected = native.request(body=body, Content_Type=kind)
            answer = invoke(triton, body)
            assert answer.status == 200
            found = outputs(answer)
            assert found["content_type"] == expected.headers["content-type"]
            assert found["body"] == expected.body
    finally:
        native.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [(b"no picture", "bad_request"), (PICTURE[:100], "bad_request"), (b"", None), (npy(np.zeros(3)), "bad_request")],
)
def test_errors_are_400_and_in_words(triton: Triton, body: bytes, said: str | None) -> None:
    answer = invoke(triton, body)
    assert 400 <= answer.status < 500
    if said is not None:  # an empty body is refused by Triton itself
        assert json.loads(answer.body)["error"].startswith(f"{said}: ")
    assert invoke(triton, PICTURE).status == 200


@pytest.mark.slow
def test_many_at_once_each_get_their_own_answer(triton: Triton) -> None:
    bodies = [npy(np.roll(gradient(), shift, axis=1)) for shift in range(20)]
    alone = [outputs(invoke(triton, body))["body"] for body in bodies]
    assert len(set(alone)) == 20
    requests = [Sent(number, bodies[number % 20], f"Content-Type: {RAW}\r\n") for number in range(400)]
    answers = send_all(triton.url, requests, 32)
    assert sorted(one.number for one in answers) == list(range(400))
    assert {one.status for one in answers} == {200}
    assert [one.number for one in answers if alone[one.number % 20] not in one.body] == []


CLIENT = """
import importlib, json, sys
import numpy as np
triton = importlib.import_module(f"tritonclient.{sys.argv[1]}")
client = triton.InferenceServerClient(sys.argv[2])
body = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
def ask(body, parameters):
    tensor = triton.InferInput("body", list(body.shape), "UINT8")
    tensor.set_data_from_numpy(body)
    try:
        answer = client.infer("model", [tensor], parameters=parameters, request_id="7")
        said = answer.get_response()
        assert (said["id"] if isinstance(said, dict) else said.id) == "7"
        kind, body = answer.as_numpy("content_type")[0].decode(), answer.as_numpy("body").tobytes()
        return [kind, body[:9].decode("latin1")]
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
found = [ask(body, one) for one in json.loads(sys.argv[3])] + [ask(body[:100], None), ask(body[:0], None)]
print(json.dumps({"ready": client.is_model_ready("model"), "found": found}))
"""
STREAM = """
import queue, sys
import numpy as np
import tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
body = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
came = queue.Queue()
client.start_stream(lambda result, error: came.put((result, error)))
for number in range(8):
    sent = body if number != 5 else body[:100]
    tensor = triton.InferInput("body", list(sent.shape), "UINT8")
    tensor.set_data_from_numpy(sent)
    client.async_stream_infer("model", [tensor], request_id=str(number))
for _ in range(8):
    answer, error = came.get(timeout=60)
    print(error.message() if error else answer.get_response().id)
client.stop_stream()
"""


def by_client(source: str, *arguments: str) -> str:
    """What tritonclient's environment prints; PICTURE is its standard input."""
    command = [str(HOME / "bin" / "python"), "-c", source, *arguments]
    run = subprocess.run(command, input=PICTURE, capture_output=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "at_fault"), [("http", "400"), ("grpc", "StatusCode.INVALID_ARGUMENT")])
def test_tritonclient_reaches_it_and_chooses_the_answers_form(triton: Triton, protocol: str, at_fault: str) -> None:
    asked = [
        {"content_type": "image/png", "accept": "application/json; size=model"},
        {"accept": "image/png"},
        {"content_type": "image/png", "custom_attributes": "size=model"},
        {"accept": "a/b"},
        {"content_type": "text/plain"},
    ]
    address = triton.http if protocol == "http" else triton.grpc
    said = json.loads(by_client(CLIENT, protocol, address, json.dumps(asked)))
    assert said["ready"] is True
    kinds = [one[0] for one in said["found"]]
    assert kinds == ["application/json", "image/png", "application/x-npy", *[at_fault] * 4]
    assert said["found"][0][1].startswith('{"height"')
    words = ["not_acceptable: ", "unsupported_media_type: ", "bad_request: ", "bad_request: "]
    for (_, message), start in zip(said["found"][3:], words, strict=True):
        assert message.startswith(start)
        assert "Traceback" not in message


@pytest.mark.slow
def test_a_stream_of_grpc_brings_every_answer_and_the_bad_ones_error(triton: Triton) -> None:
    said = by_client(STREAM, triton.grpc).splitlines()
    assert sorted(one for one in said if one.isdecimal()) == ["0", "1", "2", "3", "4", "6", "7"]
    assert [one for one in said if not one.isdecimal()] == [
        "bad_request: the picture cannot be decoded: image file is truncated"
    ]


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_never_healthy(artifact: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    change_manifest(broken, versions={"torch": "1.0.0"})
    assert main(["--model-dir", str(broken), "--to", str(tmp_path / "repository")]) == 0
    server = Triton(tmp_path / "repository", tmp_path / "triton")
    try:
        end = time.monotonic() + 120
        while server.process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.5)
    finally:
        log = server.stop()
    assert server.process.returncode != 0
    assert "torch 1.0.0" in log
