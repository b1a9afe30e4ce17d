"""A graph captured here is compiled by the Python that has the compiler, and proven again there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import endpoint_spec as specs
from compile.errors import CompileError
from compile.pipeline.build import build
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from compile.targets import process_runner
from tests.compile.projects import ROOT, write_entry

OLD = ROOT / ".venv310" / "bin" / "python"
STAND_IN = Path(__file__).parent / "stand_in"

pytestmark = [
    pytest.mark.skipif(not OLD.is_file(), reason="SKIPPED: there is no .venv310; make test-python310 installs it"),
    pytest.mark.skipif(torch.__version__.startswith("1."), reason="graphs are captured with the project's torch"),
]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("NEURON_STAND_IN", "success")


def built(folder: Path, target: str = "inf1") -> Any:
    spec = specs.load(write_entry(folder, more=f"compile: {{target: {target}}}\n"))
    planned = plan(spec, rehearse=False, compiler_python=OLD)
    return build(resolve(planned, Silent()), Silent())


def test_a_model_of_this_python_is_compiled_by_torch_1_13(tmp_path: Path) -> None:
    result = built(tmp_path)
    assert result.lock.versions["torch"].startswith("1.13.1")
    assert result.lock.versions["python"].startswith("3.10.")
    assert result.lock.versions["captured-with-torch"] == torch.__version__
    (details,) = result.lock.parity.details.values()
    (error,) = details["replayed"].values()
    assert 0 <= error <= details["outputs"][0]["bound"]
    assert result.lock.stand_in
    found = json.loads((tmp_path / "build/record/own/main-x_8-batch_1/result.json").read_text())["found"]
    assert found["executable"] == str(OLD)


def test_what_the_old_torch_computes_otherwise_is_one_error_with_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = process_runner.archives.extract

    def changed(archive: Path, folder: Path, **how: Any) -> None:
        extract(archive, folder, **how)
        file = folder / "graph.json"
        content = json.loads(file.read_text())
        node = next(one for one in content["graphs"][0]["device"]["nodes"] if one["operator"] == "aten::linear")
        node["operator"] = "aten::linear"
        node["largest"] = [2 * node["largest"][0] + 1]
        reference = content["graphs"][0]["references"][0]
        other = content["graphs"][0]["references"][1]
        reference["outputs"] = other["outputs"]
        file.write_text(json.dumps(content))

    monkeypatch.setattr(process_runner.archives, "extract", changed)
    with pytest.raises(CompileError) as caught:
        built(tmp_path)
    text = str(caught.value)
    assert "output output of reference 0 differs by" in text
    assert "the first node that differs is device node 1, aten::linear" in text
    assert "here" in text
    assert "was recorded" in text


def test_a_python_without_the_sdk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(CompileError, match=rf"torch_neuron, which is not installed in {OLD}"):
        built(tmp_path)


def test_a_python_that_cannot_run_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no torch here >&2\nexit 3\n")
    broken.chmod(0o755)
    spec = specs.load(write_entry(tmp_path))
    with pytest.raises(CompileError, match="no torch here"):
        plan(spec, rehearse=False, compiler_python=broken)
