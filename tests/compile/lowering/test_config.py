"""compile.lowering in a spec: every command lowers as it says, and a user's rewrite fails with its file and line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import endpoint_spec as specs
from compile.errors import CompileError
from compile.lowering import FOLD, REWRITES, config
from compile.lowering.config import ALL, made, of_spec
from endpoint_spec.lock import check, lock_path, read_lock
from endpoint_spec.places import rewrites
from tests.compile.projects import ENTRY, files, rehearse, run, write_entry

SOURCE = ENTRY.replace(
    "return self.layer(x)",
    "x = nn.functional.interpolate(self.layer(torch.sinc(x))[:, None], size=16, mode='linear')[:, 0]\n        return x",
)
CONSTANTS = "import math\n\nPI = math.pi\n"
SINC = """\
import torch

from compile.lowering import FunctionRewrite, Left
from constants import PI


class Sinc(FunctionRewrite):
    name = "sinc"
    why = "aten::sinc is not in the operator table"
    cost = "four element-wise operators"
    operators = frozenset({"sinc"})

    def apply(self, call, input):
        at_zero = (input == 0.0).to(input.dtype)
        angle = (input + at_zero) * PI
        return torch.sin(angle) / angle * (1.0 - at_zero) + at_zero
"""
OWN = "compile: {lowering: {rewrites: [own/sinc.py]}}\n"
ACCEPT = "accept: {min_supported: 10%, max_subgraphs: 9}"
OFF = f"compile: {{lowering: {{off: [interpolate], rewrites: [own/sinc.py]}}, {ACCEPT}}}\n"


@pytest.fixture(autouse=True)
def _fresh_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a constants.py of its own."""
    monkeypatch.delitem(sys.modules, "constants", raising=False)


def project(root: Path, more: str, sinc: str = SINC) -> Path:
    (root / "own").mkdir(exist_ok=True)
    (root / "own" / "sinc.py").write_text(sinc)
    (root / "own" / "constants.py").write_text(CONSTANTS)
    return write_entry(root, SOURCE, more=more)


def unsupported(root: Path) -> set[str]:
    spec = specs.load(root / "endpoints" / "own.yaml", root=root)
    (graph,) = read_lock(lock_path(spec, True)).graphs
    assert graph.coverage is not None
    return set(graph.coverage.unsupported)


def test_the_spec_knows_the_switches_that_lowering_has() -> None:
    assert set(rewrites()) == {rewrite.name for rewrite in REWRITES} | {FOLD}


def test_a_build_takes_the_users_rewrites_and_leaves_out_what_is_off(tmp_path: Path) -> None:
    rehearse(project(tmp_path, OWN))
    assert unsupported(tmp_path) == set()
    rehearse(project(tmp_path, OFF))
    assert unsupported(tmp_path) == {"aten::upsample_linear1d"}
    rehearse(project(tmp_path, f"compile: {{{ACCEPT}}}\n"))
    assert unsupported(tmp_path) == {"aten::sinc"}


def test_a_changed_rewrite_makes_the_lock_stale(tmp_path: Path) -> None:
    path = project(tmp_path, OWN)
    rehearse(path)
    spec = specs.load(path)
    assert check(spec, read_lock(lock_path(spec, True)), True) == []
    (tmp_path / "own" / "constants.py").write_text("PI = 3.14159\n")
    assert "build" in " ".join(check(spec, read_lock(lock_path(spec, True)), True))


def test_verify_and_analyze_lower_as_the_spec_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, OFF)
    where = ("--root", str(tmp_path))

    def asked(*arguments: str) -> Any:
        assert run(monkeypatch, *arguments, *where) == 0
        return json.loads(capsys.readouterr().out)

    found = asked("analyze", "own", "--lowered", "--json", "-")
    assert "aten::upsample_linear1d" in found["lowered"]["operators"]
    assert "aten::sinc" not in found["lowered"]["operators"]
    assert found["lowering"][0]["disabled"] == ["interpolate"]
    assert asked("verify", "own", "--per-module", "--json")["passed"]
    seen: list[config.Rewriting] = []
    real = config.Rewriting.lower
    monkeypatch.setattr(
        config.Rewriting, "lower", lambda self, *rest: seen.append(self) or real(self, *rest), raising=True
    )
    assert asked("verify", "own", "--precision", "fp32", "--json")["passed"]
    assert [(one.off, [rewrite.name for rewrite in one.own]) for one in seen] == [(("interpolate",), ["sinc"])]
    planned = asked("build", "own", "--plan", "--rehearse", "--json")
    assert planned["fits"]


def test_rewrites_on_the_command_line_come_beside_those_of_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, f"compile: {{lowering: {{off: [interpolate]}}, {ACCEPT}}}\n")
    more = ("--rewrites", str(tmp_path / "own" / "sinc.py"), "--root", str(tmp_path))
    assert run(monkeypatch, "analyze", "own", "--lowered", "--json", "-", *more) == 0
    operators = json.loads(capsys.readouterr().out)["lowered"]["operators"]
    assert "aten::sinc" not in operators
    assert "aten::upsample_linear1d" in operators


WRONG = {
    "raises where it is applied": (
        SINC.replace("* PI", "* input.nothing"),
        "A rewrite of your own failed: AttributeError: 'Tensor' object has no attribute 'nothing' (sinc.py, line 15)",
    ),
    "raises when it is read": (
        SINC.replace("from constants", "from nowhere"),
        "sinc.py cannot be run: ModuleNotFoundError: No module named 'nowhere' (sinc.py, line 4)",
    ),
    "ends Python": (SINC + "\nraise SystemExit(3)\n", "sinc.py ends Python when it is run: SystemExit: 3"),
    "defines none": ("x = 1\n", "sinc.py: defines no subclass of FunctionRewrite or ModuleRewrite"),
    "says too little": (SINC.replace("    cost =", "    costs ="), "Sinc does not define its cost"),
    "has a taken name": (SINC.replace('name = "sinc"', 'name = "pad"'), "the name 'pad' is another rewrite's"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_rewrite_is_said_with_its_place(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = WRONG[case]
    project(tmp_path, OWN, source)
    for command in (("build", "own", "--rehearse"), ("analyze", "own", "--lowered"), ("verify", "own", "--per-module")):
        assert run(monkeypatch, *command, "--root", str(tmp_path)) == 1
        shown = capsys.readouterr().err
        assert said in " ".join(shown.split())
        assert "Traceback" not in shown
        assert "COMPILE_TRACEBACK" not in shown
    assert files(tmp_path) == {}


def test_a_module_of_the_rewrite_that_is_not_python_is_named(tmp_path: Path) -> None:
    path = project(tmp_path, OWN)
    spec = specs.load(path)
    (tmp_path / "own" / "constants.py").write_text("PI = \n")
    with pytest.raises(CompileError, match=r"constants\.py, line 1: invalid syntax"):
        of_spec(spec)


def test_an_error_of_the_model_stays_the_models(tmp_path: Path) -> None:
    project(tmp_path, OWN)
    found = made([tmp_path / "own" / "sinc.py"], tmp_path)
    assert [rewrite.name for rewrite in found.own] == ["sinc"]
    assert ALL.own == ()

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError):
        found.lower(Odd().eval(), (torch.zeros(1),))
