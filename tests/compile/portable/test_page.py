"""docs/portable-graph.md says what the code does, and its programs run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compile.portable import decode, file, tensors
from tests.compile.portable import captures, graph_files, replays

PAGE = (replays.ROOT / "docs" / "portable-graph.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph file with a host part."""
    path = tmp_path_factory.mktemp("graphs") / "bert.graph"
    graph_files.written(path, *captures.of_family(("bert", "base-uncased"), "inf1"))
    return path


@pytest.mark.parametrize("number", [0, 1])
def test_its_programs_replay_a_file(number: int, written: Path, tmp_path: Path) -> None:
    if number == 0:
        pytest.importorskip("safetensors.torch")
    (tmp_path / "program.py").write_text(PROGRAMS[number])
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", written],
        env={**os.environ, "PYTHONPATH": str(replays.ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    errors = [float(line.rsplit(" ", 1)[1]) for line in done.stdout.splitlines()]
    assert len(errors) == len(decode.read(written.with_name("bert.graph.unpacked")).variants[0].outputs)
    assert max(errors) < 1e-5


def test_it_has_both_programs() -> None:
    assert len(PROGRAMS) == 2


def test_its_bounds_are_those_of_the_code() -> None:
    assert f"{file.LARGEST_GRAPH >> 20} MB" in PAGE
    assert f"header {tensors.LARGEST_HEADER >> 20} MB" in PAGE
    assert file.MOST_BYTES == 1 << 40
    assert "at most 2^40 bytes" in PAGE
    assert (decode.DEEPEST_NAME, decode.DEEPEST_ARGUMENT) == (64, 4)
    assert f"Dtypes: {', '.join(tensors.DTYPES)}." in PAGE


def test_every_field_is_described(written: Path) -> None:
    content = json.loads((written.with_name("bert.graph.unpacked") / file.GRAPH).read_text())
    (graph,) = content["graphs"]
    parts = [graph["host"], graph["device"]]
    nodes = [node for part in parts for node in part["nodes"]]
    objects = [content, graph, graph["wiring"], *graph["references"], *parts, *nodes]
    keys = {key for one in objects for key in one}
    assert {"format", "wiring", "host", "references", "state", "operator", "kwargs"} < keys
    assert keys - set(re.findall(r"`\"?(\w+)", PAGE)) == set()
    fields = {key for key in re.findall(r"`\{\"(\w+)\": ", PAGE) if key not in ("tokens", "image", "inputs")}
    assert fields == {"value", *decode._KINDS}
