"""Canonical TorchScript archives."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from compile.errors import CompileError
from compile.packaging import torchscript


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def traced(freeze: bool = True) -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    module = torch.jit.trace(Net().eval().requires_grad_(False), torch.zeros(1, 16))
    return torch.jit.freeze(module, optimize_numerics=False) if freeze else module


def test_traces_of_one_process_differ_for_torch_and_are_the_same_bytes_here(tmp_path: Path) -> None:
    plain, canonical = [], []
    for number in range(2):
        module = traced()
        torch.jit.save(module, str(tmp_path / "graph.pt"))
        plain.append((tmp_path / "graph.pt").read_bytes())
        torchscript.save(module, tmp_path / f"{number}.pt")
        canonical.append((tmp_path / f"{number}.pt").read_bytes())
    assert plain[0] != plain[1]  # else there is nothing to prove
    assert canonical[0] == canonical[1]


def test_the_archive_loads_and_computes_the_same(tmp_path: Path) -> None:
    module, x = traced(), torch.randn(1, 16)
    torchscript.save(module, tmp_path / "graph.pt")
    assert torch.equal(torch.jit.load(str(tmp_path / "graph.pt"))(x), module(x))


def test_nothing_of_this_machine_or_process_is_inside(tmp_path: Path) -> None:
    torchscript.save(traced(), tmp_path / "graph.pt")
    with zipfile.ZipFile(tmp_path / "graph.pt") as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names)
    assert not [name for name in names if "debug_pkl" in name or "serialization_id" in name or "mangle" in name]
    assert str(Path(__file__).parent).encode() not in content
    assert b"mangle" not in content


def test_tensors_start_at_multiples_of_64_bytes(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    torchscript.save(traced(), path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
            assert entry.compress_type == zipfile.ZIP_STORED


def test_a_tied_weight_is_stored_once(tmp_path: Path) -> None:
    torchscript.save(traced(), tmp_path / "graph.pt")
    with zipfile.ZipFile(tmp_path / "graph.pt") as archive:
        sizes = [e.file_size for e in archive.infolist() if e.filename.startswith("graph/constants/")]
    assert sorted(sizes) == [16 * 4, 16 * 4, 16 * 16 * 4]


def test_a_module_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="Freeze it"):
        torchscript.save(traced(freeze=False), tmp_path / "graph.pt")
