"""`python -m compile`: exit codes, messages, and JSON for machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import endpoint_spec as specs
from tests.compile.projects import ENTRY, files, rehearse, run, write_entry, write_spec


def test_list_names_families_variants_and_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list", "--json") == 0
    rows = {row["family"]: row for row in json.loads(capsys.readouterr().out)["families"]}
    assert rows["depth_anything_v2"]["variants"] == ["vits", "vitb", "vitl"]
    assert rows["depth_anything_v2"]["task"] == "depth-estimation"


def test_build_and_verify_print_json_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path)
    assert run(monkeypatch, "build", "own", "--rehearse", "--json", "--root", str(tmp_path)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["artifact"] == "build/rehearsal/own/model.tar.gz"
    assert result["changed"]
    assert "random (seed 0)" in result["weights"]
    assert json.loads((tmp_path / result["lock_path"]).read_text()) == result["lock"]
    assert run(monkeypatch, "verify", "own", "--rehearse", "--json", "--root", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["passed"]


def test_build_shows_its_plan_first_and_the_outcome_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path)
    assert run(monkeypatch, "build", "own", "--rehearse", "--root", str(tmp_path)) == 0
    shown = capsys.readouterr()
    assert "Plan: build own" in shown.err
    assert "random:0" in shown.err
    assert "Weights are random (seed 0)" in shown.out
    assert "predicted" in shown.out
    assert "rehearsal" in shown.out


def test_verify_fails_with_1_on_a_changed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse(write_entry(tmp_path))
    write_entry(tmp_path, ENTRY.replace("self.layer(x)", "self.layer(x) + 1"))
    assert run(monkeypatch, "verify", "own", "--rehearse", "--json", "--root", str(tmp_path)) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["passed"] for check in checks] == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("build", "nope", "--rehearse"), 2, "no endpoint 'nope'"),
        (("build",), 2, "Missing argument"),
        (("frobnicate",), 2, "No such command"),
        (("verify", "tiny", "--rehearse"), 1, "inferentia build tiny --rehearse"),
        (("package", "tiny"), 1, "inferentia build tiny"),
        (("serve", "tiny"), 1, "inferentia build tiny"),
        (("new", "tiny"), 2, "exists already"),
        (("new", "other", "--from", "zoo/nothing"), 2, "no such spec"),
    ],
)
def test_wrong_use_and_failures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    write_spec(tmp_path)
    root = () if arguments == ("frobnicate",) else ("--root", str(tmp_path))
    assert run(monkeypatch, *arguments, *root) == code
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown
    assert "Traceback" not in shown


def test_a_folder_without_endpoints_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "build", "x", "--root", str(tmp_path)) == 2
    assert "There is no folder endpoints/" in capsys.readouterr().err


def test_a_faulty_spec_is_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_spec(tmp_path, more="colour: red\nscale: {min: -1}\n")
    assert run(monkeypatch, "build", "tiny", "--rehearse", "--root", str(tmp_path)) == 1
    shown = capsys.readouterr().err
    assert "colour" in shown
    assert "scale.min" in shown


@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_without_the_neuron_sdk_a_real_build_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    package = {"inf1": "torch_neuron", "inf2": "torch_neuronx"}[target]
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    write_spec(tmp_path, more=f"compile: {{target: {target}}}\n")
    assert run(monkeypatch, "build", "tiny", "--root", str(tmp_path)) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert package in shown
    assert "--rehearse" in shown
    assert files(tmp_path) == {}


def test_the_placeholder_of_the_package_index_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch_neuron").mkdir()
    (tmp_path / "torch_neuron" / "__init__.py").write_text("raise RuntimeError('WRONG PACKAGE. Install from ...')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_spec(tmp_path)
    assert run(monkeypatch, "build", "tiny", "--root", str(tmp_path)) == 1
    assert "placeholder (WRONG PACKAGE), not the Neuron SDK" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("source", [None, "zoo/kept", "model.py:build"])
def test_new_writes_a_spec_that_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None) -> None:
    write_entry(tmp_path)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "kept.yaml").write_text(
        "# kept\nname: kept\nmodel: {family: depth_anything_v2, variant: vitb, weights: 'random:0'}\n"
    )
    arguments = () if source is None else ("--from", source)
    assert run(monkeypatch, "new", "fresh", *arguments, "--root", str(tmp_path)) == 0
    path = tmp_path / "endpoints" / "fresh.yaml"
    loaded = specs.load(path)
    assert loaded.name == "fresh"
    if source == "zoo/kept":
        assert path.read_text().startswith("# kept")
        assert loaded.model.variant == "vitb"
    if source == "model.py:build":
        assert loaded.model.entry == source


def test_new_writes_nothing_that_is_not_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "endpoints").mkdir()
    assert run(monkeypatch, "new", "not_a_name!", "--root", str(tmp_path)) == 1
    shown = capsys.readouterr().err
    assert "endpoints/not_a_name!.yaml was not written: name: not_a_name! is not a name" in shown
    assert ".new-" not in shown  # the draft, which is gone
    assert list((tmp_path / "endpoints").iterdir()) == []
    assert run(monkeypatch, "new", "mine", "--from", "nowhere.py:build", "--root", str(tmp_path)) == 1
    assert list((tmp_path / "endpoints").iterdir()) == []
