"""A build from end to end, and everything that may go wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import endpoint_spec as specs
from compile.errors import CompileError
from compile.packaging import archive, artifact, golden_sample, graph_file
from compile.packaging.local_server import running
from compile.pipeline import repackage, verify
from compile.pipeline.build import Result
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from endpoint_spec.lock import check, lock_path, read_lock
from inference_code.artifact import manifest as manifests
from tests.compile.projects import ENTRY, HANDLER, ROOT, WITH_SAMPLE, files, rehearse, write_entry, write_spec


def test_the_lock_says_what_was_proven(built: Result) -> None:
    lock = read_lock(lock_path(built.spec, rehearsal=True))
    assert lock == built.lock
    assert check(built.spec, lock, rehearsal=True) == []
    assert lock.rehearsal
    assert lock.target == "inf1"
    assert lock.weights.source == "random:0"
    assert "random (seed 0)" in built.weights
    assert lock.versions["torch"] == str(torch.__version__)
    (graph,) = lock.graphs
    assert [(t.name, t.shape) for t in graph.inputs] == [("pixel_values", [1, 3, 56, 56])]
    assert [(t.name, t.shape) for t in graph.outputs] == [("predicted_depth", [1, 56, 56])]
    assert lock.parity.inputs >= 5
    assert 1e-7 < lock.parity.error < 1e-4
    assert 1 < lock.parity.maximum < 100
    assert lock.digests.artifact == manifests.file_sha256(built.artifact)
    assert lock.artifact.bytes == built.artifact.stat().st_size


def test_every_operator_is_accounted_for_as_a_prediction(built: Result) -> None:
    (graph,) = built.lock.graphs
    assert graph.coverage is not None
    assert graph.subgraphs is not None
    assert graph.coverage.predicted
    assert graph.coverage.total == (216 if torch.__version__.startswith("1.") else 213)
    assert graph.subgraphs.predicted
    assert graph.subgraphs.count == 1


def test_the_artifact_runs_with_its_own_code_alone(built: Result, tmp_path: Path) -> None:
    archive.extract(built.artifact, tmp_path / "model")
    manifest = manifests.read(tmp_path / "model")
    manifests.verify_files(manifest, tmp_path / "model")
    assert built.lock.manifest_sha256 == manifests.file_sha256(tmp_path / "model" / manifests.FILE_NAME)
    assert manifest.rehearsal
    assert (tmp_path / "model" / "code" / "inference.py").is_file()
    sample = built.lock.sample
    assert sample is not None
    with running(tmp_path / "model", golden_sample.environment(built.spec, built.lock), tmp_path / "log") as worker:
        sampled = plan(built.spec, rehearse=True).definition.sample
        assert sampled is not None
        asked = sampled({"image": [56, 56]})
        answer = worker.invoke(asked.body, asked.content_type, asked.accept)
        process = worker.process
    assert golden_sample.difference(answer, sample.answer) <= sample.answer.tolerance
    assert sample.answer.shape == [96, 128]
    assert process.poll() is not None


MADE = ["build/rehearsal/own.lock.json", "build/rehearsal/own/model.graph", "build/rehearsal/own/model.tar.gz"]


def test_nothing_but_artifact_lock_and_graph_file_stays(tmp_path: Path) -> None:
    rehearse(write_entry(tmp_path))
    assert sorted(files(tmp_path)) == MADE


def test_a_build_that_changes_nothing_changes_no_byte(tmp_path: Path) -> None:
    path = write_entry(tmp_path)
    assert rehearse(path).changed
    before = files(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    assert not rehearse(path).changed
    assert files(tmp_path) == before
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times


def test_the_artifact_before_is_kept_for_a_rollback(tmp_path: Path) -> None:
    first = rehearse(write_entry(tmp_path, weights='"random:1"'))
    content = first.artifact.read_bytes()
    second = rehearse(write_entry(tmp_path, weights='"random:2"'))
    assert second.lock.previous == first.lock.artifact
    assert (second.artifact.parent / "previous.tar.gz").read_bytes() == content
    rehearse(write_entry(tmp_path, weights='"random:2"'))
    assert read_lock(lock_path(second.spec, rehearsal=True)).previous == first.lock.artifact


RANDOM_AT_INFERENCE = ENTRY.replace("return self.layer(x)", "return self.layer(x) + torch.rand(x.shape[0], 4)")
# Traced for the first example only: the branch is fixed, as a trace does.
BRANCHES = ENTRY.replace("return self.layer(x)", "return self.layer(x) * (2 if x.sum() > 0 else 1)")
ALLOWED = "compile: {accept: {findings: [data-dependent]}}\n"


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        (RANDOM_AT_INFERENCE, "", "it draws random numbers"),
        (BRANCHES, "", r"data-dependent, .*model.py:\d+: Python decides here by a tensor's value"),
        (BRANCHES, ALLOWED, "does not compute what the model computes:\n.*output output: error"),
    ],
)
def test_a_graph_that_is_not_the_model_leaves_no_artifact(tmp_path: Path, source: str, more: str, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        rehearse(write_entry(tmp_path, source, more=more))
    assert files(tmp_path) == {}
    assert list((tmp_path / "build" / "rehearsal" / "own").iterdir()) == []


def test_a_failed_build_leaves_the_one_before(tmp_path: Path) -> None:
    rehearse(write_entry(tmp_path))
    before = files(tmp_path)
    with pytest.raises(CompileError):
        rehearse(write_entry(tmp_path, RANDOM_AT_INFERENCE))
    assert files(tmp_path) == before


def test_unsupported_operators_beyond_what_is_accepted(tmp_path: Path) -> None:
    source = ENTRY.replace("self.layer(x)", "torch.erfinv(torch.tanh(self.layer(x)) / 2)")
    with pytest.raises(CompileError, match="min_supported") as caught:
        rehearse(write_entry(tmp_path, source))
    assert "aten::erfinv (1)" in str(caught.value)
    assert "predicted" in str(caught.value)
    assert files(tmp_path) == {}
    accept = "compile: {accept: {min_supported: 50%, max_subgraphs: 9}}\n"
    accepted = rehearse(write_entry(tmp_path, source, more=accept))
    coverage = accepted.lock.graphs[0].coverage
    assert coverage is not None
    assert coverage.total - coverage.supported == 1


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse(write_entry(tmp_path))
    before = files(tmp_path)

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "write_archive", full)
    with pytest.raises(OSError, match="No space left"):
        rehearse(write_entry(tmp_path, weights='"random:9"'))
    assert files(tmp_path) == before


# The references of batch 2 are asked for when the graph of batch 1 is on the disk.
KILLED = """\
def references(bucket, batch, right=references):
    import os, signal
    if batch == 2 and os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return right(bucket, batch)

"""


def test_ctrl_c_in_the_middle_of_a_build_is_130_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    write_entry(tmp_path, ENTRY.replace("def build():", KILLED.replace("SIGKILL", "SIGINT") + "def build():"),
                more="compile: {batch_sizes: [1, 2]}\n")  # fmt: skip
    command = [sys.executable, "-m", "cli", "build", "own", "--rehearse", "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DIE": "1"}, capture_output=True, check=False)
    assert done.returncode == 130, done.stderr
    assert b"Traceback" not in done.stderr
    assert {name.split("/")[1] for name in files(tmp_path)} == {"cache"}  # the graph that was finished, and proven
    assert not list((tmp_path / "build").rglob(".staging-*"))


def test_killed_in_the_middle_nothing_half_written_is_taken_for_a_build(tmp_path: Path) -> None:
    deadly = ENTRY.replace("def build():", KILLED + "def build():")
    path = write_entry(tmp_path, deadly, more="compile: {batch_sizes: [1, 2]}\n")
    command = [sys.executable, "-m", "compile", "build", "own", "--rehearse", "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DIE": "1"}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    left = list((tmp_path / "build" / "rehearsal" / "own").iterdir())
    assert [entry.name.startswith(".staging-") for entry in left] == [True]
    assert [path.name for path in left[0].rglob("*.pt")] == ["main-x_8-batch_1.pt"]
    assert not lock_path(specs.load(path), rehearsal=True).exists()
    assert len(list((tmp_path / "build" / "cache").iterdir())) == 1  # the graph that was finished, and proven
    rehearse(path)
    made = [name for name in sorted(files(tmp_path)) if not name.startswith("build/cache/")]
    assert made == MADE
    assert not left[0].exists()


def test_a_handler_that_fails_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(HANDLER.replace('return {"version": 1}', "raise RuntimeError('no sensor')"))
    with pytest.raises(CompileError, match="The artifact answered 500"):
        rehearse(write_entry(tmp_path, WITH_SAMPLE, more="serve: {handler: handler.py}\n"))
    assert files(tmp_path) == {}


def test_a_handler_that_cannot_be_imported_stops_the_build_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import a_module_that_is_nowhere\n" + HANDLER)
    with pytest.raises(CompileError, match="a_module_that_is_nowhere"):
        rehearse(write_entry(tmp_path, WITH_SAMPLE, more="serve: {handler: handler.py}\n"))
    assert files(tmp_path) == {}


def test_package_takes_the_handler_of_now_and_the_graphs_of_then(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(HANDLER)
    path = write_entry(tmp_path, WITH_SAMPLE, more="serve: {handler: handler.py}\n")
    first = rehearse(path)
    assert first.lock.sample is not None
    handler = tmp_path / "handler.py"
    handler.write_text(handler.read_text().replace("1}", "2}"))
    assert "Run: inferentia package own --rehearse" in check(first.spec, first.lock, rehearsal=True)[0]
    lock, changed = repackage.repackage(first.spec, rehearsal=True, reporter=Silent())
    assert changed
    assert check(first.spec, lock, rehearsal=True) == []
    assert lock.graphs == first.lock.graphs
    assert lock.previous == first.lock.artifact
    assert lock.sample is not None
    assert json.dumps(lock.sample.answer.json_value) != json.dumps(first.lock.sample.answer.json_value)


def test_package_refuses_a_stale_build(tmp_path: Path) -> None:
    rehearse(write_entry(tmp_path))
    path = write_entry(tmp_path, weights='"random:5"')
    with pytest.raises(CompileError, match="inferentia build own --rehearse"):
        repackage.repackage(specs.load(path), rehearsal=True, reporter=Silent())


def test_verify_finds_graphs_that_are_not_the_model_any_more(tmp_path: Path) -> None:
    path = write_entry(tmp_path)
    rehearse(path)
    checks = verify.verify(specs.load(path), rehearsal=True, reporter=Silent())
    assert all(found.passed for found in checks)
    write_entry(tmp_path, ENTRY.replace("self.layer(x)", "self.layer(x) * 1.001"))
    checks = verify.verify(specs.load(path), rehearsal=True, reporter=Silent())
    assert [found.what for found in checks if not found.passed] == ["lock fits the spec", "parity: main, x 8, batch 1"]


def test_an_artifact_that_was_changed_is_refused_with_both_digests(tmp_path: Path) -> None:
    result = rehearse(write_entry(tmp_path))
    result.artifact.write_bytes(result.artifact.read_bytes() + b"x")
    with pytest.raises(CompileError) as caught:
        artifact.find(result.spec, rehearsal=True)
    assert result.lock.digests.artifact in str(caught.value)


def test_buckets_and_batch_sizes_make_a_graph_each(tmp_path: Path) -> None:
    more = "compile: {buckets: [{image: [56, 56]}, {image: [28, 42]}], batch_sizes: [1, 2]}\n"
    result = rehearse(write_spec(tmp_path, more=more))
    assert [(g.bucket["image"], g.batch_size) for g in result.lock.graphs] == [
        ([56, 56], 1), ([56, 56], 2), ([28, 42], 1), ([28, 42], 2)
    ]  # fmt: skip
    assert len({g.file for g in result.lock.graphs}) == 4


def test_the_graphs_in_the_archive_hold_no_path_of_this_machine(built: Result, tmp_path: Path) -> None:
    archive.extract(built.artifact, tmp_path)
    for path in (tmp_path / "graphs").iterdir():
        with zipfile.ZipFile(path) as graph:
            content = b"".join(graph.read(name) for name in graph.namelist())
        for place in (str(ROOT), sys.prefix, str(tmp_path.parent)):
            assert place.encode() not in content
    assert str(ROOT) not in (tmp_path / "manifest.json").read_text()
    assert str(ROOT) not in lock_path(built.spec, rehearsal=True).read_text()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('broken on purpose')", "line 1: ValueError: broken on purpose"),
        ("def build():\n    return 3\n", "returned a int, not a ModelDefinition"),
        (ENTRY.replace('"tensor"', '"sorting"'), "task 'sorting' is not built in"),
        (ENTRY.replace('{"x": torch.randn(batch, 8,', '{"z": torch.randn(batch, 8,'), "has no parameter z"),
    ],
)
def test_faults_of_an_entry_are_named(tmp_path: Path, source: str, said: str) -> None:
    if "def build" not in source:
        source += "\ndef build(): ...\n"
    with pytest.raises(CompileError, match=said):
        rehearse(write_entry(tmp_path, source))


def test_the_graph_file_lies_beside_the_artifact_and_replays_as_the_original(tmp_path: Path) -> None:
    result = rehearse(write_entry(tmp_path, more="compile: {batch_sizes: [1, 2]}\n"))
    found = graph_file.read(result.artifact.with_name(graph_file.NAME))
    assert found.header["build_digest"] == result.lock.digests.build
    assert found.header["made_by"]["torch"] == torch.__version__
    assert [variant.batch_size for variant in found.variants] == [1, 2]
    weights = {state.tensor for variant in found.variants for state in variant.device.state}
    assert len(weights) == 2  # shared by both
    for variant in found.variants:
        inputs, expected = found.reference(variant, 0)
        with torch.no_grad():
            (answer,) = found.whole(variant)(*inputs)
        assert torch.allclose(answer, expected[0], atol=1e-6)


@pytest.mark.parametrize("stated", [True, False])
def test_a_graph_files_header_has_the_license_that_the_spec_states(tmp_path: Path, stated: bool) -> None:
    save_file({"layer.weight": torch.zeros(4, 8), "layer.bias": torch.zeros(4)}, tmp_path / "w.safetensors")
    weights = "{file: w.safetensors" + (", license: apache-2.0}" if stated else "}")
    spec = specs.load(write_entry(tmp_path, weights=weights))
    header = resolve(plan(spec, rehearse=True), Silent()).header
    assert header["weights"].get("license") == ("apache-2.0" if stated else None)
    assert header["weights"]["source"] == "file:w.safetensors"
