"""Code that a user brings may do anything: the command line answers with one message, and builds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.frontend.loading import from_entry
from tests.compile.projects import ENTRY, files, run, write_entry

LINEAR = "return self.layer(x)"
DEFINITION = 'ModelDefinition({"main": graph}, [{"x": 8}], "tensor")'
REFERENCES = 'return [{"x": torch.randn(batch, 8, generator=torch.Generator().manual_seed(i))} for i in range(5)]'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def build():", "def build():\n    raise ValueError('no luck')", "build failed: ValueError: no luck (model"),
        ("def build():", "def build():\n    raise SystemExit(0)", "model.entry model.py:build failed: SystemExit"),
        ("import torch\n", "import torch\nraise SystemExit(0)\n", "model.py, line 2: SystemExit"),
        ("def build():", "def build(options, more):", "build failed: TypeError: build() missing 1 required"),
        ('{"main": graph}', '{"main": 3}', "build failed: AttributeError"),
        ('[{"x": 8}]', "[3]", "bucket 3 is no mapping"),
        (REFERENCES, "raise KeyError('nope')", "failed: KeyError: 'nope' (model.py, line 15)"),
        (REFERENCES, "return [{'x': torch.zeros(1, 8)}, {'x': 3}] * 3", "reference 1, input 'x' is int"),
        (LINEAR, "raise IndexError('[deep]')", "forward of Net failed: IndexError: [deep] (model.py, line 12)"),
        (LINEAR, "return self.layer(x[0, 0])", "forward of Net failed: RuntimeError"),
        (LINEAR, "return self.layer(x).to_sparse()", "layout torch.sparse_coo"),
    ],
)  # fmt: skip
def test_a_fault_is_one_message(
    old: str,
    new: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert old in ENTRY
    write_entry(tmp_path, ENTRY.replace(old, new))
    assert run(monkeypatch, "build", "own", "--rehearse", "--root", str(tmp_path)) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert files(tmp_path) == {}


def test_a_fault_that_nobody_expected_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of ours")

    write_entry(tmp_path)
    monkeypatch.setattr("compile.pipeline.plan.plan", fail)
    arguments = ("build", "own", "--rehearse", "--root", str(tmp_path))
    assert run(monkeypatch, *arguments) == 1
    assert "unexpected ZeroDivisionError: of ours" in capsys.readouterr().err
    monkeypatch.setenv("COMPILE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, *arguments)


def test_an_entry_in_a_package_may_import_relatively(tmp_path: Path) -> None:
    package = tmp_path / "own_package" / "models"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "parts.py").write_text("from ..sizes import WIDTH\n")
    (package.parent / "sizes.py").write_text("WIDTH = 8\n")
    (package / "net.py").write_text("from .parts import WIDTH\n" + ENTRY.replace("nn.Linear(8", "nn.Linear(WIDTH"))
    made = from_entry("own_package/models/net.py:build", tmp_path, {})
    assert made.graphs["main"].module.layer.in_features == 8


@pytest.mark.parametrize(("old", "new"), [("def build():", "def build():\n    stop()"), ("import torch\n", "STOP\n")])
def test_sigterm_in_a_users_code_is_no_fault_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    """What compile/__main__.py raises for the signal ends the command, with the code that a shell gives it."""
    stop = "raise SystemExit(143)"
    write_entry(tmp_path, ENTRY.replace(old, new.replace("stop()", stop).replace("STOP", f"import torch\n{stop}")))
    assert run(monkeypatch, "build", "own", "--rehearse", "--root", str(tmp_path)) == 143
    assert "failed" not in capsys.readouterr().err
    assert files(tmp_path) == {}
