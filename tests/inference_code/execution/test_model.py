from __future__ import annotations

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_code.artifact import manifest as m
from inference_code.errors import LoadError
from inference_code.execution import model as runtime
from inference_code.request import Item, ModelInfo
from inference_code.settings import Settings
from tests.inference_code.artifacts import change_manifest, doubling_artifact, sums_artifact


def loaded(folder: Path, **settings: Any) -> runtime.Model:
    values = Settings(**settings)
    return runtime.load(folder, runtime.open_artifact(folder, values), values)


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(LoadError) as caught:
        loaded(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loaded_model_restores_nested_outputs(tmp_path: Path) -> None:
    model = loaded(sums_artifact(tmp_path))
    found = model(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4, 5]]))
    assert found["sum"].tolist() == [6.0]
    assert (found["more"][0].tolist(), found["more"][1]) == ([[8, 10]], "x")
    with pytest.raises(ValueError, match="no graph takes tensors of shapes"):
        model(torch.zeros(9, 9))


def test_a_changed_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path)
    graph = m.read(folder).graphs[0].file
    before = m.file_sha256(folder / graph)
    (folder / graph).write_bytes((folder / graph).read_bytes() + b"x")
    text = refused(folder)
    assert graph in text
    assert before in text
    assert m.file_sha256(folder / graph) in text


def test_a_graph_is_not_loaded_before_its_digest_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sums_artifact(tmp_path)
    (folder / m.read(folder).graphs[-1].file).write_bytes(b"other")

    def not_this(*_: Any) -> None:
        raise AssertionError("torch.jit.load was called")

    monkeypatch.setattr(torch.jit, "load", not_this)
    assert "sha256" in refused(folder)


def test_another_torch_is_refused_with_both_versions(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path, versions={"torch": "0.0.7"})
    text = refused(folder)
    assert "torch 0.0.7" in text
    assert str(torch.__version__).split("+")[0] in text


def test_a_local_version_label_does_not_count(tmp_path: Path) -> None:
    release = str(torch.__version__).split("+")[0]
    loaded(sums_artifact(tmp_path, versions={"torch": f"{release}+neuron"}))


def test_a_file_that_is_no_torchscript_is_one_line(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path)
    graph = m.read(folder).graphs[0].file
    (folder / graph).write_bytes(b"I am no graph")
    files = dict(m.read(folder).files) | {graph: m.file_sha256(folder / graph)}
    change_manifest(folder, files=files)
    assert f"graph {graph} cannot be loaded" in refused(folder)


def test_an_output_that_is_not_as_the_manifest_says_is_refused(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path, batches=(1,))
    (graph,) = m.read(folder).graphs
    outputs = (dataclasses.replace(graph.outputs[0], dtype="float64"), graph.outputs[1])
    change_manifest(folder, graphs=(dataclasses.replace(graph, outputs=outputs),))
    text = refused(folder)
    assert "did not answer its warm-up" in text
    assert "float32" in text
    assert "float64" in text


def test_a_graph_that_raises_is_refused(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path, batches=(1,))
    (graph,) = m.read(folder).graphs
    change_manifest(folder, graphs=(dataclasses.replace(graph, inputs=graph.inputs[:1]),))
    assert "did not answer its warm-up" in refused(folder)


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_too_few_cores_are_refused_with_both_values(tmp_path: Path, cores: int) -> None:
    folder = sums_artifact(tmp_path, cores_per_copy=4)
    text = refused(folder, cores_per_worker=cores)
    assert "takes 4 cores a copy" in text
    assert f"ENDPOINT_CORES_PER_WORKER is {cores}" in text


def test_cores_that_fit_are_accepted(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path, cores_per_copy=2)
    loaded(folder, cores_per_worker=4)
    loaded(folder, neuron_cores=1)  # a rehearsal uses no NeuronCore


STAND_IN = '''
"""Stands for the Neuron SDK: TorchScript of the CPU needs no extension."""
__version__ = "1.13.1.2.11.13.0"
'''


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """An artifact that says that it was compiled for inf1, with the stand-in's version."""
    versions = {"torch": str(torch.__version__), "torch-neuron": "1.13.1.2.11.13.0"}
    return sums_artifact(tmp_path / "artifact", rehearsal=False, stand_in=True, versions=versions)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sdk"
    folder.mkdir()
    (folder / "torch_neuron.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(folder))
    return folder / "torch_neuron.py"


def test_a_compiled_artifact_needs_its_extension(compiled: Path) -> None:
    assert "torch-neuron 1.13.1.2.11.13.0, this machine has none" in refused(compiled)


def test_the_extension_is_imported_before_the_graphs_are_loaded(
    compiled: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    load = torch.jit.load

    def watched(*arguments: Any) -> Any:
        seen.append("torch_neuron" in sys.modules)
        return load(*arguments)

    monkeypatch.setattr(torch.jit, "load", watched)
    model = loaded(compiled, neuron_cores=3)
    assert seen == [True] * 6  # two graphs, three copies: one for each core
    assert model.max_concurrency == 3


def test_another_extension_is_refused_with_both_versions(compiled: Path, stand_in: Path) -> None:
    stand_in.write_text('__version__ = "1.13.1.2.9.0.0"')
    text = refused(compiled)
    assert "torch-neuron 1.13.1.2.11.13.0, this machine has 1.13.1.2.9.0.0" in text


def test_a_compiled_artifact_must_name_its_extension(compiled: Path) -> None:
    change_manifest(compiled, versions={"torch": str(torch.__version__)})
    assert "no version of torch-neuron" in refused(compiled)


def test_cores_of_the_process_are_compared_on_the_device(compiled: Path, stand_in: Path) -> None:
    change_manifest(compiled, cores_per_copy=4)
    assert "takes 4 cores a copy, NEURON_RT_NUM_CORES is 2" in refused(compiled, neuron_cores=2)


def test_a_rehearsal_runs_once_a_processor_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    folder = doubling_artifact(tmp_path)
    assert loaded(folder, workers=16).max_concurrency == 2
    assert loaded(folder, workers=1).max_concurrency == 1


def test_batches_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    model = loaded(doubling_artifact(tmp_path), workers=4)
    items = [[Item({"x": np.full(3, n * 10 + k, np.float32)}) for k in range(3)] for n in range(50)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model.scheduler.run, items))
    assert [[a[0] for a in part] for part in answers] == [[2 * (n * 10 + k) for k in range(3)] for n in range(50)]


def test_an_artifact_compiled_for_the_target_marks_nothing(compiled: Path, stand_in: Path) -> None:
    change_manifest(compiled, stand_in=False)
    assert ModelInfo.of(m.read(compiled)).metadata == {}
    change_manifest(compiled, stand_in=True)
    assert ModelInfo.of(m.read(compiled)).metadata == {"stand_in": True}


NEURONX = """
MOVED = []
__version__ = "2.9.0.2.9.0"

def move_trace_to_device(trace, device_id):
    MOVED.append((type(trace).__name__, device_id))
"""


@pytest.mark.parametrize(("separate", "moves"), [(True, [0, 0, 1, 1, 2, 2]), (False, [])])
def test_weights_beside_the_program_are_moved_to_their_core(
    separate: bool, moves: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_neuronx.py").write_text(NEURONX)
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = {"torch": str(torch.__version__), "torch-neuronx": "2.9.0.2.9.0"}
    changes = {"target": "inf2", "rehearsal": False, "stand_in": True, "separate_weights": separate}
    artifact = sums_artifact(tmp_path / "artifact", versions=versions, **changes)
    loaded(artifact, neuron_cores=3)
    moved = sys.modules["torch_neuronx"].MOVED
    assert [core for _, core in moved] == moves  # two graphs, three copies: one for each core
    assert {kind for kind, _ in moved} <= {"RecursiveScriptModule"}


def test_an_sdk_that_cannot_move_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch_neuronx.py").write_text('__version__ = "2.9.0.2.9.0"')
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = {"torch": str(torch.__version__), "torch-neuronx": "2.9.0.2.9.0"}
    changes = {"target": "inf2", "rehearsal": False, "stand_in": True, "separate_weights": True}
    artifact = sums_artifact(tmp_path / "artifact", versions=versions, **changes)
    assert "cannot be loaded: module 'torch_neuronx' has no attribute 'move_trace_to_device'" in refused(artifact)


@pytest.mark.parametrize("which", ["inputs", "outputs"])
def test_a_tensor_larger_than_the_memory_is_one_line(tmp_path: Path, which: str) -> None:
    folder = sums_artifact(tmp_path)
    graph = m.read(folder).graphs[0]
    first, *others = getattr(graph, which)
    absurd = dataclasses.replace(first, shape=(graph.batch_size, 2**40))
    change_manifest(folder, graphs=(dataclasses.replace(graph, **{which: (absurd, *others)}),))
    assert "has shape [1, 1099511627776], 4398046511104 bytes; this machine has" in refused(folder)
