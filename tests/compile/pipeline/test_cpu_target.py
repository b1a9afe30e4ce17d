"""A build for the target cpu: a true one, with a lock of its own, that a processor serves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import endpoint_spec as specs
from compile.errors import CompileError
from compile.packaging import archive
from compile.pipeline import verify
from compile.pipeline.build import Result, build
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from compile.remote import bundle
from compile.targets import cpu as target
from endpoint_spec import platforms
from endpoint_spec.lock import check, lock_path, read_lock
from inference_code.artifact import manifest as manifests
from inference_code.errors import LoadError
from inference_code.execution import model as runtime
from inference_code.settings import Settings
from tests.compile.projects import WITH_SAMPLE, run, write_entry

CPU = "compile: {target: cpu, batch_sizes: [2]}\n"
# A batch norm behind a convolution, which freezing folds into it.
FOLDED = WITH_SAMPLE.replace("        self.layer = nn.Linear(8, 4)\n", "        self.layer = nn.Linear(8, 4)\n"
    "        self.conv, self.norm = nn.Conv1d(1, 1, 3, padding=1), nn.BatchNorm1d(1)\n"
).replace("return self.layer(x)", "return self.layer(self.norm(self.conv(x[:, None]))[:, 0])")  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Result:
    path = write_entry(tmp_path_factory.mktemp("cpu"), FOLDED, more=CPU)
    return build(resolve(plan(specs.load(path), rehearse=False), Silent()), Silent())


def test_its_lock_is_a_builds_with_parity_and_without_coverage(built: Result) -> None:
    lock = read_lock(lock_path(built.spec))
    assert (lock.target, lock.rehearsal, lock.stand_in, lock.on_cpu) == ("cpu", False, False, True)
    assert check(built.spec, lock) == []
    assert [(graph.coverage, graph.subgraphs) for graph in lock.graphs] == [(None, None)]
    assert lock.parity.inputs >= 5
    assert lock.parity.error <= lock.parity.bound
    assert lock.versions["torch"] == str(torch.__version__)
    assert lock.sample is not None
    assert lock.sample.answer.tolerance < 1e-3  # of the same graph, not of a chip's
    assert "rehearsal" not in (lock.sample.answer.json_value or {})
    assert not [name for name in specs.derive.worker_environment(built.spec, lock) if "NEURON" in name]


def test_what_is_served_is_what_was_compared_with_the_batch_norm_folded(built: Result, tmp_path: Path) -> None:
    archive.extract(built.artifact, tmp_path)
    manifest = manifests.read(tmp_path)
    assert (manifest.target, manifest.rehearsal, manifest.on_cpu) == ("cpu", False, True)
    (entry,) = manifest.graphs
    kinds = str(torch.jit.load(str(tmp_path / entry.file)).inlined_graph)
    assert ("aten::_convolution" in kinds, "aten::batch_norm" in kinds) == (True, False)
    checks = verify.verify(built.spec, rehearsal=False, reporter=Silent())
    assert [one.what for one in checks if not one.passed] == []
    assert {"sample", "parity: main, x 8, batch 2"} <= {one.what for one in checks}


def test_a_worker_with_another_torch_says_both_in_one_line(built: Result, tmp_path: Path) -> None:
    archive.extract(built.artifact, tmp_path)
    manifest = manifests.read(tmp_path)
    manifests.write(dataclasses.replace(manifest, versions={"torch": "2.12.9"}), tmp_path / manifests.FILE_NAME)
    with pytest.raises(LoadError, match=rf"^[^\n]*torch 2\.12\.9[^\n]*{torch.__version__[:6]}[^\n]*$"):
        runtime.open_artifact(tmp_path, Settings())


def test_a_build_with_another_torch_than_the_containers_is_refused(
    built: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = platforms.image("cpu", "native").model_copy(update={"torch": "9.9.9"})
    monkeypatch.setattr(target, "container_image", lambda _: other)
    with pytest.raises(CompileError, match=r"has torch 9\.9\.9, this Python has 2\."):
        plan(built.spec, rehearse=False)


def test_what_means_nothing_to_a_cpu_says_so(
    built: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CompileError, match="nothing is compiled elsewhere"):
        bundle.planned(built.spec, False, Silent())
    root = str(built.spec.root)
    assert run(monkeypatch, "analyze", "own", "--root", root) == 2
    assert "inferentia analyze own --target inf1" in capsys.readouterr().err.replace("\n", " ")
    assert run(monkeypatch, "analyze", "own", "--target", "inf1", "--root", root) == 0
    assert run(monkeypatch, "build", "own", "--plan", "--json", "--root", root) == 0
    assert '"host memory"' in capsys.readouterr().out
