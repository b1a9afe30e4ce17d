"""`inferentia buckets`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compile.projects import ENTRY, run, write_entry, write_spec

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    path = tmp_path / "lengths.txt"
    path.write_text("12 400\n30 900\n31 100\n64 20\n200 7\n511\n512 3\n")
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    path = tmp_path / "photographs.csv"
    path.write_text("height,width,count\n300,400,50\n400,300,20\n1080,1920,30\n100,100,9\n")
    return path


def answered(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *arguments: str) -> dict[str, Any]:
    code = run(monkeypatch, "buckets", "--json", *arguments)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    return found


def test_lengths(tmp_path: Path, lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    found = answered(
        monkeypatch, capsys, "--sizes", str(lengths), "--count", "3", "--multiple-of", "8", "--root", str(tmp_path)
    )
    assert yaml.safe_load(found["yaml"]) == {"compile": {"buckets": [{"tokens": 32}, {"tokens": 64}, {"tokens": 512}]}}
    assert found["exact"]
    assert found["chosen"]["waste"] < found["evenly_spaced"]["waste"] < found["one_bucket"]["waste"]
    assert [row["bucket"] for row in found["evenly_spaced"]["buckets"]] == [[184], [352], [512]]
    picture = Path(found["plot"])
    assert picture == tmp_path / "build" / "buckets" / "lengths.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in picture.parent.iterdir()] == ["lengths.png"]


def test_pictures(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    picture = tmp_path / "plot.svg"
    found = answered(monkeypatch, capsys, "--sizes", str(photographs), "--count", "2", "--plot", str(picture))
    assert not found["exact"]
    assert found["proven_share_of_the_best_saving"] == 0.5
    assert yaml.safe_load(found["yaml"])["compile"]["buckets"][-1] == {"image": [1080, 1920]}
    assert "<svg" in picture.read_text()


def test_for_a_person(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "buckets", "--sizes", str(photographs), "--root", str(tmp_path)) == 0
    shown = capsys.readouterr()
    assert "evenly spaced" in shown.out
    assert shown.out.count("compile:\n  buckets: [{image: ") == 1
    assert "elements of the input" in shown.err


def test_the_shapes_and_the_memory_of_a_spec(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_spec(tmp_path)
    given = (
        "tiny",
        "--sizes",
        str(photographs),
        "--shorter-side",
        "56",
        "--multiple-of",
        "14",
        "--root",
        str(tmp_path),
    )
    found = answered(monkeypatch, capsys, *given)
    chosen = [tuple(row["bucket"]) for row in found["chosen"]["buckets"]]
    assert sorted(chosen) == [(56, 56), (56, 70), (56, 98), (70, 56)]
    assert found["memory"]["most"] == 4
    assert "fit ml.inf1.2xlarge" in found["memory"]["reason"]
    room = found["memory"]["weights"] * 2 + found["memory"]["activations"]
    fewer = answered(monkeypatch, capsys, *given, "--memory", f"{room}B")
    assert len(fewer["chosen"]["buckets"]) == fewer["memory"]["most"] == 2
    assert run(monkeypatch, "buckets", *given, "--memory", "1kB") == 1
    assert "Not even one bucket fits" in capsys.readouterr().err


def test_the_dimension_of_the_model_is_named(
    tmp_path: Path, lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    source = ENTRY.replace("torch.randn(batch, 8,", 'torch.randn(batch, bucket["x"], 8,')
    write_entry(tmp_path, source)
    found = answered(monkeypatch, capsys, "own", "--sizes", str(lengths), "--root", str(tmp_path))
    assert found["yaml"].startswith("compile:\n  buckets: [{x: ")


def test_memory_by_hand(lengths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    given = ("--sizes", str(lengths), "--memory", "1GiB", "--weights", "400MiB", "--activations", "100MiB")
    found = answered(monkeypatch, capsys, *given, "--root", str(tmp_path))
    assert found["memory"]["most"] == len(found["chosen"]["buckets"]) == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--cost", "time"), "--cost 'time' is unknown"),
        (("--cost", "flops"), "needs --hidden"),
        (("--hidden", "8"), "belong to --cost flops"),
        (("--cost", "flops", "--hidden", "8", "--patch", "14"), "a picture's patches"),
        (("--shorter-side", "518"), "the sizes are lengths"),
        (("--memory", "2"), "--memory '2' is not a size of memory"),
        (("--memory", "2GiB"), "needs --memory and --weights"),
        (("--weights", "2GiB"), "needs --memory and --weights"),
        (("--weights", "0B", "--memory", "1B"), "--weights is nothing"),
        (("tiny", "--weights", "1B"), "follow from tiny"),
        (("--plot", "x.doc"), "is no picture"),
        (("--count", "0"), "--count"),
    ],
)
def test_wrong_use(
    lengths: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: tuple[str, ...], part: str
) -> None:
    assert run(monkeypatch, "buckets", "--sizes", str(lengths), *arguments) == 2
    assert part in " ".join(capsys.readouterr().err.split())


def test_a_bad_file_is_1_and_a_missing_one_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    (tmp_path / "bad.txt").write_text("a\nb\n")
    assert run(monkeypatch, "buckets", "--sizes", str(tmp_path / "bad.txt")) == 1
    error = capsys.readouterr().err
    assert "line 1: 'a'" in error
    assert "line 2: 'b'" in error
    assert run(monkeypatch, "buckets", "--sizes", str(tmp_path / "none.txt")) == 2


def test_sizes_that_the_model_does_not_have(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_entry(tmp_path)
    assert run(monkeypatch, "buckets", "own", "--sizes", str(photographs), "--root", str(tmp_path)) == 1
    assert "The sizes are pictures" in capsys.readouterr().err
