"""`-v` and `-vv`: what a command logs to stderr while it lowers and analyzes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.compile.projects import ENTRY, run, write_entry

# A bicubic interpolation inside a submodule, and a write in place beside it.
UPSAMPLING = """
import torch
from torch import nn

class Up(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.up = Up()
    def forward(self, x):
        y = self.up(self.conv(x))
        y += 1
        return y.relu()

def build():
    return Net().eval(), torch.rand(1, 3, 4, 4)
"""


def logged(shown: str) -> list[str]:
    """The lines with `T` for each time of day and number of seconds."""
    return [re.sub(r"\b\d\d:\d\d:\d\d\b|\b\d+\.\d{3}(?= s)", "T", line) for line in shown.splitlines()]


def test_v_shows_each_rewrite_with_its_places_and_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "up.py").write_text(UPSAMPLING)
    arguments = ("analyze", "up.py:build", "--lowered", "--json", "-", "--root", str(tmp_path))
    assert run(monkeypatch, *arguments, "-v") == 0
    shown = capsys.readouterr()
    lines = logged(shown.err)
    assert json.loads(shown.out)["lowered"]["supported"] == 5
    assert "T compile.lowering.lower: strategy: follow its Python code, T s" in lines
    assert "T compile.lowering.lower: interpolate: 1 rewritten in T s: model.up (1x)" in lines
    assert "T compile.lowering.lower: in_place: 1 rewritten in T s: model (1x)" in lines
    assert "T compile.lowering.lower: lowered in T s: 2 constants of 256 bytes" in lines
    assert "T compile.lowering.host_split: host split in T s: 0 operators go to the host, 0 tables" in lines
    assert "T compile.analysis.analyze: Net: traced in T s, 4 operators, 3 supported" in lines
    assert any("aten::upsample_bicubic2d in up (1x) not supported" in line for line in lines)
    assert "T compile.analysis.analyze: partition safe: 5 operators in 1 of 1 candidate subgraphs" in lines
    assert "aten::matmul" not in shown.err


def test_vv_shows_the_graph_around_what_was_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "up.py").write_text(UPSAMPLING)
    assert run(monkeypatch, "analyze", "up.py:build", "--lowered", "-vv", "--root", str(tmp_path)) == 0
    shown = re.sub(r"%[\w.]+", "%", capsys.readouterr().err)
    before, after = shown.split("nodes before lowering:\n")[1].split("nodes after lowering:\n")
    assert re.search(r"> % : Float\(1, 3, 8, 8.*\) = aten::upsample_bicubic2d\(%, %, %, %\)", before)
    assert re.search(r"  % : Float\(1, 3, 4, 4.*\) = aten::_convolution\(", after)
    assert re.search(r"> % : Float\(1, 3, 8, 4.*\) = aten::matmul\(%, %\)\n> % .* = aten::matmul\(%, %\)", after)


def test_without_v_nothing_is_logged_and_v_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path, ENTRY)
    build = ("build", "own", "--rehearse", "--plan", "--root", str(tmp_path))
    assert run(monkeypatch, *build, "-v") == 0
    assert "compile.lowering" in capsys.readouterr().err
    assert run(monkeypatch, *build) == 0
    assert "compile.lowering" not in capsys.readouterr().err


def test_a_build_logs_its_weights_its_parity_and_what_was_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path, ENTRY)
    assert run(monkeypatch, "build", "own", "--rehearse", "--json", "-v", "--root", str(tmp_path)) == 0
    shown = capsys.readouterr()
    statement = "Weights are random (seed 0): outputs follow the input, but mean nothing."
    assert f"T compile.frontend.weights: {statement} Filled in T s." in logged(shown.err)
    assert json.loads(shown.out)["changed"]
    assert "compile.pipeline.graph: parity of main" in shown.err
    assert run(monkeypatch, "build", "own", "--rehearse", "--json", "-v", "--root", str(tmp_path)) == 0
    assert re.search(r"compile\.pipeline\.capture: main.* is in the cache: [0-9a-f]{64}", capsys.readouterr().err)
