"""The stock container for real: TorchServe and SageMaker's toolkit run the artifact and the handler unchanged.

Two sets of versions: those of the Inf1 image (Python 3.10, torch 1.13.1), and the newest ones. See stock.py for how
they run without Docker; where they cannot, the tests are skipped with the reason.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.inference_code.artifacts import Response, Server, encoded, gradient, npy, read_npy

if sys.version_info < (3, 11):
    pytest.skip("this lane starts from Python 3.11, and runs the servers of both", allow_module_level=True)

from endpoint_spec import EndpointSpec, platforms
from endpoint_spec.derive import MANIFEST_VARIABLE, worker_environment, workers
from endpoint_spec.loading import load
from tests.compile.projects import TINY
from tests.embedded_aws.running import wait_for
from tests.endpoint_spec.projects import a_lock
from tests.inference_code.load import Sent, send_all
from tests.inference_code.stock import PORT, ROOT, STACKS, Container, Stack, obstacle, unpack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DEPTH = f"""\
name: tiny
model: {{family: depth_anything_v2, variant: vits, weights: "random:0", options: {TINY}}}
compile: {{target: TARGET, batch_sizes: [1, 4]}}
serve: {{SERVE, limits: {{items: 4}}}}
"""
# Two workers on either.
SERVE = {
    "torchserve310": ("inf1", "instance_type: ml.inf1.xlarge, cores_per_worker: 2"),
    "torchserve": ("inf2", "instance_type: ml.inf2.xlarge"),
}
PHOTOGRAPH = ROOT / "examples" / "photographs" / "coffee.jpg"
NPY = "application/x-npy"


@dataclass
class Project:
    """A user's project of one spec, built as a rehearsal for a stack."""

    stack: Stack
    root: Path

    def build(self, name: str, text: str) -> Path:
        """The unpacked artifact."""
        self.write(name, text)
        command = [str(self.stack.builder), "-m", "compile", "build", name, "--rehearse"]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return unpack(self.root / "build" / "rehearsal" / name / "model.tar.gz", self.root / "unpacked" / name)

    def write(self, name: str, text: str) -> Path:
        """The spec's file."""
        target, serve = SERVE[self.stack.name]
        path = self.root / "endpoints" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("TARGET", target).replace("SERVE", serve))
        return path

    def small(self, handler: str) -> Path:
        """An artifact of a model that doubles three numbers, with the text of a user's handler."""
        folder = self.root / "small"
        source = (
            "import shutil, sys; from pathlib import Path; from tests.inference_code import artifacts\n"
            "folder = Path(sys.argv[1])\n"
            "shutil.copytree('inference_code', folder / 'code/inference_code', ignore=lambda *_: ['__pycache__'])\n"
            "shutil.copy('inference_code/inference.py', folder / 'code')\n"
            "artifacts.doubling_artifact(folder, sys.argv[2])\n"
        )
        subprocess.run([str(self.stack.builder), "-c", source, str(folder), handler], cwd=ROOT, check=True)
        return folder

    def environment(self) -> dict[str, str]:
        """What the deployment gives the container, for any artifact."""
        spec = load(self.write("tiny", DEPTH), self.root)
        return worker_environment(spec, a_lock(spec)) | {MANIFEST_VARIABLE: ""}


@pytest.fixture(scope="module", params=sorted(STACKS))
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    stack = STACKS[request.param]
    reason = obstacle(stack)
    if reason:
        pytest.skip(f"the stock container (toolkit {stack.toolkit}) is NOT tested here: {reason}")
    return Project(stack, tmp_path_factory.mktemp(stack.name))


@dataclass
class Pair:
    """The same artifact in the stock container and in the native server."""

    container: Container
    native: Server
    environment: dict[str, str]


@pytest.fixture(scope="module")
def pair(project: Project) -> Iterator[Pair]:
    model = project.build("tiny", DEPTH)
    environment = project.environment()
    container = Container(project.stack, model, project.root / "container", environment)
    native = None
    try:
        limits = {name: text for name, text in environment.items() if name.startswith(("ENDPOINT_", "OMP_"))}
        code = {"PYTHONPATH": str(model / "code"), **limits}
        native = Server(model, project.root / "native.log", code, python=str(project.stack.builder))
        container.ready(2)
        yield Pair(container, native, environment)
    finally:
        log = container.stop()
        if native is not None:
            native.stop()
    assert "Traceback" not in log, log[-5000:]


def both(pair: Pair, body: bytes, **headers: str) -> Response:
    """The stock container's answer, once it is known to be the native server's."""
    stock, native = (one.request(body=body, **headers) for one in (pair.container, pair.native))
    kept = {"content-type", "x-amzn-sagemaker-custom-attributes"}
    shown = [
        (one.status, {name.lower(): text for name, text in one.headers.items() if name.lower() in kept})
        for one in (stock, native)
    ]
    assert shown[0] == shown[1]
    assert same(*(values(one.body, shown[0][1]["content-type"]) for one in (stock, native)))
    return stock


def values(body: bytes, content_type: str) -> Any:
    """What an answer says."""
    if content_type == NPY:
        return read_npy(body)
    if content_type == "image/png":
        return np.asarray(Image.open(io.BytesIO(body)), np.float32) / 65535
    return json.loads(body)


def same(one: Any, other: Any) -> bool:
    """Equal, numbers to within what TorchScript's own optimising between its first calls makes of them."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and any(isinstance(item, dict) for item in one):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (list, float, np.ndarray)):
        first, second = np.asarray(one), np.asarray(other)
        return first.shape == second.shape and np.allclose(first, second, rtol=1e-5, atol=1e-5 * np.abs(first).max())
    return bool(one == other)


def test_exactly_the_planned_workers_and_no_batching_of_torchserves(pair: Pair) -> None:
    found = pair.container.description()
    assert len(found["workers"]) == found["minWorkers"] == found["maxWorkers"] == 2
    assert found["batchSize"] == 1
    seconds = int(pair.environment["SAGEMAKER_TS_RESPONSE_TIMEOUT"])
    assert found["responseTimeout"] == seconds > 60
    if "startupTimeout" in found:  # from TorchServe 0.12 on
        assert found["startupTimeout"] == seconds


@pytest.mark.parametrize("accept", ["application/x-npy", "image/png;q=0.5, application/json;q=0.1", "", "*/*"])
def test_a_photograph_is_answered_as_by_the_native_server(pair: Pair, accept: str) -> None:
    answer = both(pair, PHOTOGRAPH.read_bytes(), Content_Type="image/jpeg", Accept=accept)
    assert answer.status == 200
    if answer.headers["content-type"] == NPY:
        assert read_npy(answer.body).std() > 0


def test_npy_and_attributes_are_answered_as_by_the_native_server(pair: Pair) -> None:
    headers = {"Content_Type": NPY, "Accept": NPY, "X_Amzn_SageMaker_Custom_Attributes": "size=model"}
    answer = both(pair, npy(gradient()), **headers)
    assert (answer.status, read_npy(answer.body).shape) == (200, (56, 56))


def test_several_items_are_answered_in_order_and_one_fails_alone(pair: Pair) -> None:
    pictures = [encoded(Image.fromarray(one)) for one in (gradient(), gradient()[::-1])]
    one, two = (base64.b64encode(picture).decode() for picture in pictures)
    body = json.dumps([{"image": one}, {"image": "AAAA"}, {"image": two}]).encode()
    answer = both(pair, body, Content_Type="application/json", Accept="application/json; size=model")
    found = json.loads(answer.body)
    assert answer.status == 200
    assert len(found) == 3
    assert found[1]["error"] == "bad_request"
    assert found[0] != found[2]


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded"])
def test_what_torchserve_parses_itself_is_refused_in_words(pair: Pair, content_type: str) -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=body\r\nContent-Type: image/png\r\n\r\nX\r\n--b--\r\n"
    answer = pair.container.request(body=body, Content_Type=content_type)
    assert (answer.status, answer.headers["content-type"]) == (415, "application/json")
    assert "JSON list" in json.loads(answer.body)["detail"]


class Bomb:
    """A pickle that leaves a file behind where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def hostile(folder: Path) -> dict[str, tuple[bytes, str, int]]:
    """Name to (body, content type, status)."""
    objects = npy(np.zeros(3))
    pickled = objects[:128].replace(b"'<f8'", b"'|O' ") + pickle.dumps(Bomb(folder / "pickled"))
    return {
        "a pickle": (pickle.dumps(Bomb(folder / "pickled")), NPY, 400),
        "an npy with a pickle": (pickled, NPY, 400),
        "half a JSON": (b'{"image": ', "application/json", 400),
        "half a JSON with a charset": (b'{"image": ', "application/json; charset=utf-8", 400),
        "JSON that is not UTF-8": (b'{"image": "\xff"}', "application/json", 400),
        "CSV that is not UTF-8": (b"\xff\xfe", "text/csv", 415),
        "JSON with a charset that is not UTF-8": (b'{"image": "\xff"}', "application/json; charset=utf-8", 400),
        "a list of nothing": (b"[]", "application/json", 400),
        "too many items": (b'[{"image": ""}, {"image": ""}, {"image": ""}, {"image": ""}, 1]', "application/json", 413),
        "no picture": (b"no picture", "image/jpeg", 400),
        "half a picture": (PHOTOGRAPH.read_bytes()[:20_000], "image/jpeg", 400),
        "text": (b"hello", "text/plain", 415),
        "csv": (b"1,2,3", "text/csv", 415),
        "no type": (b"hello", "", 415),
        "no body": (b"", "image/jpeg", 400),
        "a long body": (b"x" * 25_000_000, "application/octet-stream", 415),
    }


@pytest.mark.parametrize("name", sorted(hostile(Path())))
def test_errors_are_the_native_servers_json_without_traceback(pair: Pair, name: str, tmp_path: Path) -> None:
    body, content_type, status = hostile(tmp_path)[name]
    before = {worker["pid"] for worker in pair.container.workers()}
    answer = both(pair, body, Content_Type=content_type, Accept=NPY)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert json.loads(answer.body).keys() == {"error", "detail"}
    assert b"Traceback" not in answer.body
    assert not (tmp_path / "pickled").exists(), "the pickle was executed"
    assert {worker["pid"] for worker in pair.container.workers()} == before, "a worker has died"


def test_a_body_above_the_limit_is_refused_by_torchserve_and_nothing_dies(pair: Pair) -> None:
    """SageMaker refuses it earlier; TorchServe's 413 has no body."""
    before = {worker["pid"] for worker in pair.container.workers()}
    most = int(pair.environment["TS_MAX_REQUEST_SIZE"])
    answer = pair.container.request(body=b"x" * (most + 1), Content_Type="image/jpeg")
    assert (answer.status, answer.body) == (413, b"")
    assert {worker["pid"] for worker in pair.container.workers()} == before


def test_200_requests_at_once_each_get_their_own_answer(pair: Pair) -> None:
    bodies = [npy(np.roll(gradient(), shift, axis=1)) for shift in range(20)]
    headers = f"Content-Type: {NPY}\r\nAccept: {NPY}\r\n"
    requests = [Sent(number, bodies[number % 20], headers) for number in range(200)]
    answers = pair.container.inside(lambda: send_all(f"http://127.0.0.1:{PORT}", requests, 16))
    expected = [pair.native.request(body=body, Content_Type=NPY, Accept=NPY).body for body in bodies]
    assert sorted(one.number for one in answers) == list(range(200))
    assert len(set(expected)) == 20
    assert {one.status for one in answers} == {200}
    maps = [read_npy(body) for body in expected]
    wrong = [
        one.number
        for one in answers
        if [number for number, map_ in enumerate(maps) if same(read_npy(one.body), map_)] != [one.number % 20]
    ]
    assert wrong == []


# Timeouts, and models that cannot be loaded ------------------------------------------------------------------------

SLEEPER = """\
import time
import numpy as np

def preprocess(request):
    time.sleep(float(request.body))
    return np.ones(3, np.float32)

def postprocess(outputs, item):
    return {"slept": True}
"""


@pytest.fixture(scope="module")
def sleeper(project: Project) -> Path:
    """An artifact whose handler sleeps for as many seconds as the body says."""
    return project.small(SLEEPER)


def test_a_handler_that_takes_too_long_is_ended_and_replaced(project: Project, sleeper: Path, tmp_path: Path) -> None:
    """Every setting that holds the limit gets a short one; the toolkit's versions heed different ones."""
    environment = project.environment()
    limit = environment["SAGEMAKER_TS_RESPONSE_TIMEOUT"]
    short = environment | {name: "15" for name, text in environment.items() if text == limit}
    assert sum(text == "15" for text in short.values()) == 4
    container = Container(project.stack, sleeper, tmp_path / "container", short)
    try:
        container.ready(2)
        assert container.request(body=b"0.1", Content_Type="text/plain").status == 200
        answer = container.request(body=b"100", Content_Type="text/plain")
        assert answer.status == 500
        assert b"Traceback" not in answer.body
        container.ready(2)
        assert container.request(body=b"0.1", Content_Type="text/plain").status == 200
    finally:
        container.stop()


def test_a_model_that_cannot_be_loaded_ends_the_server(project: Project, sleeper: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(sleeper), str(broken)], check=True)
    (graph,) = (broken / "graphs").iterdir()
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    container = Container(project.stack, broken, tmp_path / "container", project.environment())
    try:
        wait_for(
            lambda: "the server ends: no worker of it could load the model" in container.log.read_text(),
            "the model is refused",
            120,
        )
        wait_for(lambda: not healthy(container), "nobody answers /ping", 60)
        again = [time.sleep(0.5) or healthy(container) for _ in range(20)]  # TorchServe alone would start workers anew
    finally:
        log = container.stop()
    assert not any(again)
    assert "The model cannot be served: " in log
    assert "sha256" in log


def healthy(container: Container) -> bool:
    """Whether /ping says so. Toolkit 2.0.21 outlives its server (nobody reaps it), but nobody answers any more."""
    try:
        return container.process.poll() is None and container.request("/ping").status == 200
    except OSError:
        return False


def test_a_worker_that_is_killed_is_replaced_and_the_server_stays(
    project: Project, sleeper: Path, tmp_path: Path
) -> None:
    container = Container(project.stack, sleeper, tmp_path / "container", project.environment())
    try:
        container.ready(2)
        before = {worker["pid"] for worker in container.workers()}
        container.kill_worker()
        container.ready(2, without=before)
        assert container.request(body=b"0", Content_Type="text/plain").status == 200
    finally:
        container.stop()


# Every platform row ------------------------------------------------------------------------------------------------

# TorchServe and the toolkit are real; only the model is nothing, and torch a name, so that 64 workers fit in here.
LIGHT = """\
import json, os

def model_fn(model_dir, context=None):
    return "nothing"

def input_fn(body, content_type, context=None):
    return body

def predict_fn(data, model, context=None):
    return {name: os.environ.get(name) for name in ("NEURON_RT_NUM_CORES", "OMP_NUM_THREADS", "ENDPOINT_WORKERS")}

def output_fn(prediction, accept, context=None):
    return json.dumps(prediction), "application/json"
"""


@pytest.mark.parametrize("instance_type", platforms.instance_types())
def test_every_instance_gets_exactly_its_workers(instance_type: str, tmp_path: Path) -> None:
    target = instance_type.split(".")[1]
    stack = STACKS["torchserve310" if target == "inf1" else "torchserve"]
    reason = obstacle(stack)
    if reason:
        pytest.skip(f"the stock container (toolkit {stack.toolkit}) is NOT tested here: {reason}")
    model = tmp_path / "model"
    (model / "code" / "torch").mkdir(parents=True)
    (model / "code" / "torch" / "__init__.py").write_text("")
    (model / "code" / "inference.py").write_text(LIGHT)
    (tmp_path / "endpoints").mkdir()
    path = tmp_path / "endpoints" / "tiny.yaml"
    text = DEPTH.replace("TARGET", target).replace("SERVE", f"instance_type: {instance_type}")
    path.write_text(text)
    spec: EndpointSpec = load(path, tmp_path)
    environment = worker_environment(spec, a_lock(spec))
    container = Container(stack, model, tmp_path / "container", environment)
    try:
        container.ready(workers(spec), 300)
        found = container.description()
        assert found["minWorkers"] == found["maxWorkers"] == workers(spec) == platforms.platform(instance_type).cores
        seen = json.loads(container.request(body=b"x", Content_Type="text/plain").body)
        assert seen == {name: environment[name] for name in seen}
        assert int(seen["NEURON_RT_NUM_CORES"]) * workers(spec) == platforms.platform(instance_type).cores
    finally:
        container.stop()
