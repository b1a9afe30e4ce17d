"""Files of torch.save as the world has them: of any age, with more in them than weights, and made to harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shlex
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import endpoint_spec as specs
from compile.definition import GraphDefinition, ModelDefinition
from compile.errors import CompileError
from compile.frontend import weights
from tests.compile.projects import write_entry

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.5, -2.0])}


def save(content: Any, path: Path, *, zipped: bool, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def require_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_view_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)
    tensors = {f"of {dtype}": torch.ones(2, 3).to(dtype) for dtype in dtypes}
    whole = torch.arange(12.0).reshape(3, 4)
    tensors |= {"whole": whole, "turned": whole.T[1:], "empty": torch.empty(0, 3), "single": torch.tensor(7)}
    found = weights.read(save(tensors, tmp_path / "w.pth", zipped=zipped, protocol=protocol))
    require_equal(found, tensors)
    found["whole"].fill_(5)
    assert bool((found["turned"] == 5).all())


def test_a_legacy_file_of_python_2_is_read(tmp_path: Path) -> None:
    """torch of Python 2 wrote bytes for names, and an OrderedDict as a call with a list of pairs."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x011U\x03cpuK\x02Ntq\x01Q"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00K\x02\x85K\x01\x85tR"
    content = b"\x80\x02ccollections\nOrderedDict\n](](U\x04biasq\x02" + tensor + b"ee\x85R."
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, stream, 2)
    stream.write(content)
    pickle.dump(["1"], stream, 2)
    stream.write(struct.pack("<q2f", 2, 1.5, -2.0))
    (tmp_path / "w.pth").write_bytes(stream.getvalue())
    require_equal(weights.read(tmp_path / "w.pth"), {"bias": STATE["bias"]})


@FORMS
def test_what_stands_beside_the_weights_is_skipped(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .ckpt of Lightning: hyper-parameters of classes that are not here, optimizer states, callbacks."""
    theirs = ModuleType("their_project")
    exec("class Options(dict):\n  pass\nclass Schedule:\n  pass\ndef later(x): pass", theirs.__dict__)
    for name in ("Options", "Schedule", "later"):
        getattr(theirs, name).__module__ = "their_project"
    monkeypatch.setitem(sys.modules, "their_project", theirs)
    schedule = theirs.Schedule()
    schedule.__dict__.update(names={"a", "b"}, shape=np.ones(3), path=Path("x"), call=theirs.later, keys={(1, (2,)): 3})
    options = theirs.Options(rate=1e-3, schedule=schedule)
    options.extra = [schedule]
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        **{"epoch": 3, "pytorch-lightning_version": "2.1", "state_dict": STATE, "best": torch.tensor(0.7)},
        **{"hyper_parameters": options, "optimizer_states": [optimizer.state_dict()]},
        **{
            "optimizer": optimizer.state_dict(),
            "callbacks": {"Checkpoint{'a': 1}": {"best": torch.tensor(1.0), "n": 2}},
        },
    }
    save(content, tmp_path / "w.ckpt", zipped=zipped)
    monkeypatch.delitem(sys.modules, "their_project")
    require_equal(weights.read(tmp_path / "w.ckpt"), STATE)


@FORMS
def test_a_module_that_was_saved_whole_is_its_state_dict(tmp_path: Path, zipped: bool) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first[0].weight
            self.register_buffer("passing", torch.ones(2), persistent=False)

    Own.__module__, Own.__qualname__ = __name__, "Own"
    globals()["Own"] = Own
    try:
        save({"model": Own(), "epoch": 1}, tmp_path / "w.pt", zipped=zipped)
    finally:
        del globals()["Own"]
    require_equal(weights.read(tmp_path / "w.pt"), weights.read(tmp_path / "w.pt", "model"))
    names = [f"first.0.{name}" for name in ("weight", "bias")]
    names += [f"first.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert list(weights.read(tmp_path / "w.pt")) == [*names, "second.weight", "second.bias"]


@FORMS
@pytest.mark.parametrize("average", ["ema", "model_ema", "state_dict_ema", "params_ema"])
def test_of_several_sets_the_spec_chooses(tmp_path: Path, zipped: bool, average: str) -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    nested = {"module": other, "updates": 5} if average == "ema" else other
    save({"params": STATE, average: nested, "iter": 4}, tmp_path / "w.pth", zipped=zipped)
    with pytest.raises(CompileError) as caught:
        weights.read(tmp_path / "w.pth")
    assert f"params (2 tensors), {average} (2 tensors)" in caught.value.problem
    assert f"key: {average}}}" in caught.value.remedy
    require_equal(weights.read(tmp_path / "w.pth", average), other)
    require_equal(weights.read(tmp_path / "w.pth", "params"), STATE)
    with pytest.raises(CompileError, match=rf"no key none(.|\n)*there is params, {average}"):
        weights.read(tmp_path / "w.pth", "none")


def linear(module: nn.Module | None = None) -> ModelDefinition:
    module = module or nn.Linear(3, 2)
    return ModelDefinition(
        {"main": GraphDefinition(module.eval(), lambda _, __: {}, lambda _, __: [])}, [{"x": 4}], "tensor"
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model_ema."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_prefix_is_named_and_chosen(tmp_path: Path, prefix: str, suffix: str) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in STATE.items()} | {"loss.scale": torch.ones(2)}
    path = tmp_path / f"w.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    with pytest.raises(CompileError) as caught:
        weights.fill(specs.load(write_entry(tmp_path, weights=f"{{file: w.{suffix}}}")), linear())
    assert f"prefix: {prefix}}}" in caught.value.remedy
    definition = linear()
    spec = specs.load(write_entry(tmp_path, weights=f"{{file: w.{suffix}, prefix: {prefix}}}"))
    report = weights.fill(spec, definition)
    require_equal(dict(definition.weights.state_dict()), STATE)
    assert report.source == f"file:w.{suffix} (prefix {prefix})"
    with pytest.raises(CompileError, match=r"no name that begins with net\.(.|\n)*the names are such as"):
        weights.load(linear(), state, "w", "net.")


class Wrapped(nn.Module):
    """Names its part as torch.compile does, which torch 1.13 does not have."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self._orig_mod = part


class Parts(nn.Module):
    """With a part below a part, as a model is of which only these are compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        self.head = nn.Linear(2, 1)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_names_of_a_part_that_was_compiled_are_the_models(tmp_path: Path, prefix: str) -> None:
    module = Parts()
    whole = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    compiled, wrapped = Parts(), getattr(torch, "compile", Wrapped)
    compiled.encoder[1] = wrapped(compiled.encoder[1])
    compiled.encoder = wrapped(compiled.encoder)
    compiled.load_state_dict(dict(zip(compiled.state_dict(), whole.values(), strict=True)))
    state = {f"{prefix}{name}": tensor for name, tensor in compiled.state_dict().items()}
    assert f"{prefix}encoder._orig_mod.1._orig_mod.weight" in state
    torch.save(state, tmp_path / "w.pth")
    definition = linear(Parts())
    if prefix:
        with pytest.raises(CompileError, match=rf"prefix: {prefix}}}"):
            weights.load(definition, weights.read(tmp_path / "w.pth"), "w")
    weights.load(definition, weights.read(tmp_path / "w.pth"), "w", prefix or None)
    require_equal(dict(definition.weights.state_dict()), whole)
    both = {**whole, "encoder._orig_mod.0.weight": whole["encoder.0.weight"] + 1}
    with pytest.raises(CompileError, match=r"both encoder\.0\.weight and encoder\._orig_mod\.0\.weight"):
        weights.load(linear(Parts()), both, "w")


def test_a_model_that_has_such_names_itself_keeps_them() -> None:
    module = nn.Sequential(Wrapped(nn.Linear(3, 2)))
    state = {name: tensor + 1 for name, tensor in module.state_dict().items()}
    weights.load(linear(module), state, "w")
    require_equal(dict(module.state_dict()), state)


def test_a_choice_has_a_cache_key_of_its_own(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")

    def identity(choice: str) -> str:
        return weights.resolve(
            specs.load(write_entry(tmp_path, weights=f"{{file: w.safetensors{choice}}}"))
        ).report.identity

    assert len({identity(""), identity(", prefix: a"), identity(", prefix: b"), identity(", key: a")}) == 4


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (nn.BatchNorm1d(3), lambda state: state.pop("num_batches_tracked")),
        (nn.Linear(3, 2), lambda state: state.update(weight=state["weight"].half(), bias=state["bias"].double())),
        (nn.Linear(3, 2), lambda state: state.update(bias=torch.tensor([1, 2]))),
    ],
    ids=["a BatchNorm without its counter", "other dtypes", "integers"],
)
def test_what_strict_loading_takes_is_taken(module: nn.Module, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    change(state)
    weights.load(linear(module), state, "w")
    for name, tensor in state.items():
        assert torch.equal(module.state_dict()[name], tensor.to(module.state_dict()[name].dtype))


class Older(nn.Module):
    """Reads a form of its own that it had before, as modules of torch do; its scale was of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:  # type: ignore[override]
        if f"{prefix}gain" in state:
            state[f"{prefix}scale"] = state.pop(f"{prefix}gain")
        super()._load_from_state_dict(state, prefix, *rest)


@pytest.mark.parametrize("name", ["scale", "gain"])
def test_a_module_reads_its_older_forms(name: str) -> None:
    module = Older()
    weights.load(linear(module), {name: torch.tensor([3.0])}, "w")
    assert module.scale.item() == 3


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_index_is_read_with_its_files(tmp_path: Path, kind: str) -> None:
    stem = "model" if kind == "safetensors" else "pytorch_model"
    index, places = tmp_path / f"{stem}.{kind}.index.json", {}
    for number, (name, tensor) in enumerate(STATE.items(), 1):
        places[name] = f"{stem}-0000{number}-of-00002.{kind}"
        write = save_file if kind == "safetensors" else torch.save
        write({name: tensor}, tmp_path / places[name])
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": places}))
    command = f"sha256sum {index.name} {' '.join(sorted(places.values()))} | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    total = printed.split()[0]
    definition = linear()
    spec = specs.load(write_entry(tmp_path, weights=f"{{file: {index.name}, sha256: {total}}}"))
    assert weights.fill(spec, definition).sha256 == total
    require_equal(dict(definition.weights.state_dict()), STATE)


def test_the_files_of_an_index_are_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(STATE, "model-00001-of-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    asked = []

    def download(_: str, name: str, revision: str | None) -> str:
        asked.append(name)
        if name == "model.safetensors":
            raise weights.EntryNotFoundError("404", response=FakeResponse())
        return str(tmp_path / name)

    monkeypatch.setattr(weights, "hf_hub_download", download)
    definition = linear()
    weights.fill(specs.load(write_entry(tmp_path, weights='"hub:org/name"')), definition)
    require_equal(dict(definition.weights.state_dict()), STATE)
    assert asked == ["model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"]


class FakeResponse:
    headers: ClassVar[dict[str, str]] = {}
    request = None


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.ckpt", "pytorch_model.bin.index.json"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(CompileError, match=rf"pointer of Git LFS(.|\n)*git lfs pull --include {name}"):
        weights.read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"\n<!DOCTYPE html><html>", "HTML page"), (b"", "empty file"), (b"GGUF\3", "neither")]
)
def test_other_files_are_called_what_they_are(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CompileError, match=problem):
        weights.read(tmp_path / "w.pth")


def quantized() -> dict[str, Any]:
    weight = torch.quantize_per_tensor(STATE["weight"], 0.5, 0, torch.qint8)
    return {"weight": weight, "bias": STATE["bias"].to_sparse()}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (lambda: {**STATE, "epoch": 3}, "zip"),
        (lambda: {**STATE, "epoch": 3}, "plain pickle"),
        (lambda: {"state_dict": {**STATE, "names": ["a"]}, "options": Path("a")}, "legacy"),
        (lambda: {name: tensor.numpy() for name, tensor in STATE.items()}, "plain pickle"),
        (quantized, "zip"),
    ],
)
def test_the_command_that_an_error_prints_converts_what_was_refused(
    tmp_path: Path, content: Callable[[], dict[str, Any]], form: str
) -> None:
    path = tmp_path / "it's here.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content()))
    else:
        save(content(), path, zipped=form == "zip")
    require_converted(path)


@pytest.mark.slow
def test_the_command_converts_torchscript_and_shared_tensors(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.load_state_dict(STATE)
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pt")
    require_converted(tmp_path / "script.pt")
    save({**STATE, "weight": STATE["weight"], "twin": STATE["weight"], "epoch": 3}, tmp_path / "twin.pt", zipped=False)
    assert torch.equal(require_converted(tmp_path / "twin.pt")["twin"], STATE["weight"])


def test_the_command_writes_over_no_file(tmp_path: Path) -> None:
    """Also where the refused file has the name that a converted one would get."""
    save(STATE, tmp_path / "w.safetensors", zipped=True)  # of another program, which names its files so
    converted = require_converted(
        save({**STATE, "epoch": 3}, tmp_path / "w.pth", zipped=True), tmp_path / "w-2.safetensors"
    )
    refused = save({**STATE, "epoch": 3}, tmp_path / "w.safetensors", zipped=True)
    before = refused.read_bytes()
    require_equal(require_converted(refused, tmp_path / "w-3.safetensors"), converted)
    assert refused.read_bytes() == before


def require_converted(path: Path, target: Path | None = None) -> dict[str, Tensor]:
    with pytest.raises(CompileError, match="Nothing in the file was executed") as caught:
        weights.read(path)
    command = shlex.split(caught.value.remedy[caught.value.remedy.index("python -c") :])
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command[0] = sys.executable
    subprocess.run(command, cwd=path.parent, env=elsewhere, check=True, capture_output=True, timeout=120)
    target = target or path.with_suffix(".safetensors")
    found = weights.read(target)
    for name, tensor in STATE.items():
        assert torch.allclose(found[name], tensor, atol=0.5)
    assert found.keys() == load_file(target).keys()
    return found


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@FORMS
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_beside_the_weights_is_never_run(tmp_path: Path, zipped: bool, protocol: int) -> None:
    content = {"state_dict": STATE, "hyper_parameters": Trap(tmp_path / "trap"), "callbacks": [Trap(tmp_path / "trap")]}
    require_equal(weights.read(save(content, tmp_path / "w.ckpt", zipped=zipped, protocol=protocol)), STATE)
    assert not (tmp_path / "trap").exists()


HEAD = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
NAMED = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x001X\x03\x00\x00\x00cpu"


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x80\x02K\x01r\xff\xff\xff\xff.",
        b"\x80\x02K\x01p" + b"9" * 5000 + b"\n.",
        b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s.",
        b"\x80\x02" + b"](" * 300_000 + b".",
        b"\x80\x04\x8e" + b"\x7f" * 8,
        b"\x80\x05\x96" + b"\x7f" * 8,
        b"\x80\x02X\xff\xff\xff\x7f",
        b"\x80\x02cos\nmkdir\n}X\x08\x00\x00\x00__dict__K\x01sb.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x02(ios\nmkdir\n.",
        b"\x80\x02Ppersistent\n.",
        b"\x80\x02" + NAMED + b"\x8a\x08" + b"\xff" * 7 + b"\x7fNtQ.",
        b"\x80\x02" + NAMED + b"J\xff\xff\xff\xffNtQ.",
        b"\x80\x02}" * 3 + b"K\x01" * 100_000 + b"2" * 100_000 + b".",
        b"\x80\x02]" + b"0" * 9 + b".",
        b"\x80\x02" + b"N" * (5 << 20) + b".",
        b"\x80\x04\x95" + struct.pack("<q", 5 << 20) + b"N" * (5 << 20) + b".",
        b"\x80\x02X" + struct.pack("<i", 33 << 20) + b"a" * (33 << 20) + b".",
    ],
)
@FORMS
def test_a_hostile_pickle_is_refused_in_one_line(tmp_path: Path, hostile: bytes, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", hostile)
    else:
        path.write_bytes(HEAD + hostile + pickle.dumps(["1"], 2) + struct.pack("<q", 1 << 60))
    with pytest.raises(CompileError) as caught:
        weights.read(path)
    assert "\n" not in caught.value.problem
    assert len(caught.value.problem) < 400 + len(str(path))


def test_sets_within_sets_are_counted_once(tmp_path: Path) -> None:
    """A memo makes a small pickle a large tree."""
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + NAMED + b"K\x01NtQK\x00)" + b")tR"
    names = b"".join(b"X\x04\x00\x00\x00" + f"{number:04}".encode() + b"h\x00" for number in range(9999))
    inner = b"}(" + names.replace(b"h\x00", b"h\x01") + b"uq\x02"
    content = b"\x80\x02" + tensor + b"q\x010" + inner + b"0}(" + names.replace(b"h\x00", b"h\x02") + b"uq\x030"
    content += b"}(" + names.replace(b"h\x00", b"h\x03") + b"u."
    (tmp_path / "w.pth").write_bytes(HEAD + content + pickle.dumps(["1"], 2) + struct.pack("<qf", 1, 1))
    with pytest.raises(CompileError, match="hold 9999 sets of tensors"):
        weights.read(tmp_path / "w.pth")


def test_a_damaged_legacy_file_is_refused(tmp_path: Path) -> None:
    """Cut off anywhere, or with any byte changed: refused, or read as tensors; never another error."""
    path = save({"state_dict": STATE, "epoch": 3}, tmp_path / "w.pth", zipped=False)
    whole, chance = path.read_bytes(), random.Random(1)
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole[:-cut])
        with pytest.raises(CompileError):
            weights.read(path)
    for _ in range(400):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(changed)
        with suppress(CompileError):
            weights.read(path)


def test_a_list_of_storages_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save(STATE, tmp_path / "w.pth", zipped=False)
    whole = path.read_bytes()
    for keys in ([], ["1", "2"], None, [["1"]]):
        place = whole.rindex(b"\x80\x02]")
        end = whole.index(b".", place) + 1
        path.write_bytes(whole[:place] + pickle.dumps(keys, 2) + whole[end:])
        with pytest.raises(CompileError, match="were not read"):
            weights.read(path)
