"""examples/own-model, in a copied folder, without editing a file of the project."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

import endpoint_spec as specs
from compile.frontend import loading
from compile.packaging import archive as package
from compile.pipeline import verify
from compile.pipeline.build import Result
from compile.progress import Silent
from inference_code.artifact import manifest as manifests
from tests.compile.projects import ROOT, rehearse

SPEC = Path("endpoints/vibration.yaml")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("copied") / "own"
    shutil.copytree(ROOT / "examples" / "own-model", root, ignore=shutil.ignore_patterns("build", "__pycache__"))
    return rehearse(root / SPEC)


def test_nested_outputs_are_named_in_the_lock(own: Result) -> None:
    for graph in own.lock.graphs:
        names = [output.name for output in graph.outputs]
        assert names == ["wear.score", "wear.bands.low", "wear.bands.middle", "wear.bands.high", "rebuilt"]
    assert [graph.batch_size for graph in own.lock.graphs] == [1, 4]


def test_the_unused_input_is_reported(own: Result) -> None:
    assert [graph.unused_inputs for graph in own.lock.graphs] == [["recorded_at"]] * 2


def test_the_tied_weight_is_stored_once(own: Result, tmp_path: Path) -> None:
    package.extract(own.artifact, tmp_path)
    weights = loading.definition(own.spec).weights
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in weights.parameters())
    for graph in own.lock.graphs:
        with zipfile.ZipFile(tmp_path / graph.file) as archive:
            stored = sum(e.file_size for e in archive.infolist() if e.filename.startswith("graph/constants/"))
        assert parameters <= stored < parameters + 64 * 64 * 4


def test_its_code_travels_in_the_artifact(own: Result) -> None:
    with tarfile.open(own.artifact) as tar:
        names = set(tar.getnames())
    assert {"code/handler/models/vibration_handler.py", "code/handler/models/windows.py"} <= names
    assert "code/handler/models/vibration.py" not in names  # the network itself is in the graphs


def test_verify_passes(own: Result) -> None:
    checks = verify.verify(own.spec, rehearsal=True, reporter=Silent())
    assert [(found.what, found.detail) for found in checks if not found.passed] == []
    assert any(found.what == "sample" for found in checks)


def test_the_manifest_has_the_structure_that_restores_the_outputs(own: Result, tmp_path: Path) -> None:
    package.extract(own.artifact, tmp_path)
    manifest = manifests.read(tmp_path)
    restored = manifests.restore(manifest.graphs[0].structure, ["score", "low", "middle", "high", "rebuilt"])
    assert restored["wear"].bands == {"low": "low", "middle": "middle", "high": "high"}
    assert restored["rebuilt"] == "rebuilt"


def post(url: str, body: bytes, content_type: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": content_type, "Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_serve_prints_a_curl_line_answers_and_ends(own: Result) -> None:
    root = own.spec.root
    command = [sys.executable, "-u", "-m", "compile", "serve", "vibration", "--port", "0", "--root", str(root)]
    environment = {**os.environ, "COLUMNS": "300"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell's background job ignores SIGINT, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no threads in this test)
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline(), process.stdout.readline()]
        url = re.search(r"http://127\.0\.0\.1:\d+/invocations", said[1])
        assert said[1].startswith("curl ")
        assert url is not None
        sample = own.lock.sample
        assert sample is not None
        status, answer = post(url[0], base64.b64decode(sample.request.body), "text/csv")
        assert (status, answer) == (200, sample.answer.json_value)
        assert answer["verdict"] in ("worn", "sound")
        assert post(url[0], b"1,2,3", "text/csv")[0] == 400
        assert post(url[0], b"1,2,3", "image/png")[0] == 415
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url[0].replace("invocations", "ping"), timeout=5)
    assert not [left for left in own.artifact.parent.iterdir() if left.name.startswith(".staging-")]


def test_the_spec_has_no_fault() -> None:
    assert specs.load(ROOT / "examples" / "own-model" / SPEC).serve.handler == "models/vibration_handler.py"
