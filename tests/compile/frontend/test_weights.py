"""Weights from files: checked, mapped, and never executed."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import endpoint_spec as specs
from compile.definition import GraphDefinition, ModelDefinition
from compile.errors import CompileError
from compile.frontend import weights
from compile.frontend.checkpoint import read_state_dict
from tests.compile.projects import write_entry


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight


def definition() -> ModelDefinition:
    graph = GraphDefinition(Net().eval(), lambda _, __: {}, lambda _, __: [])
    return ModelDefinition({"main": graph}, [{"x": 4}], "tensor")


def state() -> dict[str, torch.Tensor]:
    return {
        "first.weight": torch.arange(16.0).reshape(4, 4),
        "first.bias": torch.ones(4),
        "second.bias": torch.full((4,), 2.0),
    }


def spec_with(root: Path, source: str) -> specs.EndpointSpec:
    return specs.load(write_entry(root, weights=source))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_fills_the_model_and_its_digest_is_recorded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    save_file(state(), path) if suffix == "safetensors" else torch.save(state(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = definition()
    report = weights.fill(spec_with(tmp_path, f"{{file: w.{suffix}, sha256: {digest}}}"), made)
    assert report.sha256 == digest
    assert torch.equal(made.weights.state_dict()["first.weight"], state()["first.weight"])
    assert torch.equal(made.weights.state_dict()["second.weight"], state()["first.weight"])  # tied, in the file once


def test_another_digest_is_refused_with_both(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(CompileError) as caught:
        weights.fill(spec_with(tmp_path, f"{{file: w.safetensors, sha256: {'0' * 64}}}"), definition())
    assert "0" * 64 in str(caught.value)
    assert hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest() in str(caught.value)


def test_missing_unexpected_and_misshapen_keys_are_all_named(tmp_path: Path) -> None:
    wrong = state()
    del wrong["first.bias"]
    wrong["extra.weight"] = torch.zeros(1)
    wrong["second.bias"] = torch.zeros(5)
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(CompileError) as caught:
        weights.fill(spec_with(tmp_path, "{file: w.safetensors}"), definition())
    text = str(caught.value)
    assert "1 missing: first.bias" in text
    assert "1 unexpected: extra.weight" in text
    assert "second.bias is (5,), the model needs (4,)" in text


def test_an_s3_address_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    wanted = spec_with(tmp_path, f"{{s3: s3://bucket-of-weights/w.safetensors, sha256: {'a' * 64}}}")
    with pytest.raises(CompileError, match="inferentia fetch-weights own"):
        weights.fill(wanted, definition())


def test_fetched_s3_weights_are_found_by_digest(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w")
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    (tmp_path / "build" / "weights").mkdir(parents=True)
    (tmp_path / "w").rename(tmp_path / "build" / "weights" / digest)
    made = definition()
    weights.fill(spec_with(tmp_path, f"{{s3: s3://bucket-of-weights/w.safetensors, sha256: {digest}}}"), made)
    assert torch.equal(made.weights.state_dict()["first.bias"], torch.ones(4))


def test_a_hub_that_cannot_be_reached_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("We couldn't connect to the hub\nmore lines")

    monkeypatch.setattr(weights, "hf_hub_download", unreachable)
    with pytest.raises(CompileError) as caught:
        weights.fill(spec_with(tmp_path, '"hub:org/name"'), definition())
    assert "We couldn't connect to the hub" in str(caught.value)
    assert "{file:" in str(caught.value)
    assert "more lines" not in str(caught.value)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["in torch's archive", "a bare pickle", "in the legacy form"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, form: str) -> None:
    trap, path = tmp_path / "trap", tmp_path / "w.pth"
    content = {"first.weight": torch.zeros(4, 4), "x": Payload(trap)}
    if form == "in torch's archive":
        torch.save(content, path)
    elif form == "a bare pickle":
        path.write_bytes(pickle.dumps(Payload(trap)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CompileError):
        weights.read(path)
    assert not trap.exists()


def test_a_pickle_that_reads_past_its_storage_is_refused(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save({"w": torch.zeros(64)}, good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:16] if "/data/" in name else old.read(name))
    with pytest.raises(CompileError, match="holds 4 values, 64 are announced"):
        read_state_dict(bad)


@pytest.mark.parametrize(
    "damaged",
    [b"\x80\x02ccollections\nOrderedDict\nK\x01a.", b"\x80\x02", b"\x80\x04\x8e" + b"\x7f" * 8, b"\x80\x02K\x01Q."],
    ids=["append to a class", "cut off", "bytes beyond all memory", "a reference that is no storage"],
)
def test_a_damaged_pickle_is_refused(tmp_path: Path, damaged: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", damaged)
    with pytest.raises(CompileError, match="were not read"):
        read_state_dict(tmp_path / "w.pth")


def test_every_dtype_views_and_nested_dictionaries_are_read(tmp_path: Path) -> None:
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
    tensors = {str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes}
    tensors["view"] = torch.arange(12.0).reshape(3, 4).T[1:]
    tensors["parameter"] = nn.Parameter(torch.randn(3))
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.detach())
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 broken"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CompileError, match=r"w\.pth"):
        weights.read(tmp_path / "w.pth")


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-8])
    with pytest.raises(CompileError, match="damaged"):
        weights.read(tmp_path / "w.safetensors")
