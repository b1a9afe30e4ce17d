from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from inference_code.artifact import manifest as m


def example(**changes: Any) -> m.ArtifactManifest:
    graph = m.PackagedVariant(
        role="main",
        bucket={"image": [14, 14]},
        batch_size=2,
        file="graphs/main.pt",
        inputs=(m.TensorDescription("pixels", (2, 3, 14, 14), "float32"),),
        outputs=(m.TensorDescription("depth", (2, 14, 14), "float32"),),
        structure={"kind": "dict", "entries": [["depth", {"kind": "tensor", "index": 0}]]},
    )
    values: dict[str, Any] = {
        "name": "depth",
        "rehearsal": True,
        "stand_in": False,
        "target": "inf1",
        "digests": m.Digests("a" * 64, "b" * 64),
        "task": m.TaskEntry("depth-estimation", {"unit": "relative"}),
        "handler": None,
        "graphs": (graph,),
        "versions": {"torch": "1.13.1"},
        "cores_per_copy": 1,
        "environment": {"OMP_NUM_THREADS": "2"},
        "files": {"graphs/main.pt": "c" * 64},
    }
    return m.ArtifactManifest(**(values | changes))


def test_written_is_read_back_the_same(tmp_path: Path) -> None:
    m.write(example(), tmp_path / m.FILE_NAME)
    assert m.read(tmp_path) == example()
    assert [path.name for path in tmp_path.iterdir()] == [m.FILE_NAME]


def test_the_text_is_canonical() -> None:
    text = m.to_json(example())
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def damaged(path: list[Any], value: Any) -> dict[str, Any]:
    """The example as JSON, with one place replaced (or removed, for Ellipsis)."""
    data: Any = json.loads(m.to_json(example()))
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data  # type: ignore[no-any-return]


GRAPH = ["graphs", 0]


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (["format"], 2, "format is 2, this code reads format 1"),
        (["name"], ..., "missing key name"),
        (["extra"], 1, "unknown key extra"),
        (["name"], "", "name is ''"),
        (["rehearsal"], 1, "true or false"),
        (["target"], "gpu", "one of inf1, inf2"),
        (["digests", "build"], "xyz", "digests: build is 'xyz'"),
        (["task", "settings"], [], "task: settings"),
        (["handler"], "../evil.py", "relative path inside"),
        (["handler"], "handler/mine.py", "handler code/handler/mine.py is not among the files"),
        (["graphs"], [], "graphs is []"),
        ([*GRAPH, "file"], "/etc/passwd", "relative path inside"),
        ([*GRAPH, "file"], "graphs/other.pt", "graphs/other.pt is not among the files"),
        ([*GRAPH, "batch_size"], 0, "at least 1"),
        ([*GRAPH, "batch_size"], True, "at least 1"),
        ([*GRAPH, "inputs", 0, "dtype"], "complex64", "dtype is 'complex64'"),
        ([*GRAPH, "inputs", 0, "shape"], [2, -1], "list of whole numbers"),
        ([*GRAPH, "inputs", 0, "shape"], [3, 14, 14], "must be the batch size 2"),
        ([*GRAPH, "outputs", 0, "shape"], [], "must be the batch size 2"),
        ([*GRAPH, "outputs", 0, "item_axis"], 1, "its axis 1 must be the batch size 2"),
        ([*GRAPH, "outputs", 0, "item_axis"], -1, "a whole number from 0 on, or null"),
        ([*GRAPH, "outputs", 0, "item_axis"], True, "a whole number from 0 on, or null"),
        ([*GRAPH, "inputs", 0, "item_axis"], 1, "of an input it must be 0"),
        ([*GRAPH, "inputs", 0, "item_axis"], None, "of an input it must be 0"),
        ([*GRAPH, "structure"], {"kind": "tensor", "index": 4}, "structure"),
        (["versions"], {}, "no torch"),
        (["cores_per_copy"], "1", "cores_per_copy"),
        (["environment"], {"A": 1}, "object of texts"),
        (["files", "../x"], "c" * 64, "relative path"),
        (["files", "graphs/main.pt"], "C" * 64, "sha256"),
    ],
)
def test_each_bad_value_is_named(tmp_path: Path, path: list[Any], value: Any, part: str) -> None:
    (tmp_path / m.FILE_NAME).write_text(json.dumps(damaged(path, value)))
    with pytest.raises(m.ManifestError) as caught:
        m.read(tmp_path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert m.FILE_NAME in str(caught.value)


def test_two_graphs_for_one_case_are_refused() -> None:
    graph = example().graphs[0]
    with pytest.raises(m.ManifestError, match="two graphs for main"):
        m.to_json(example(graphs=(graph, graph)))


def test_two_inputs_of_one_name_are_refused() -> None:
    graph = example().graphs[0]
    with pytest.raises(m.ManifestError, match="two have one name"):
        m.to_json(example(graphs=(dataclasses.replace(graph, inputs=graph.inputs * 2),)))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1", b"[]", b'{"format": NaN}', b"[" * 100_000])
def test_a_file_that_is_no_manifest_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / m.FILE_NAME).write_bytes(content)
    with pytest.raises(m.ManifestError) as caught:
        m.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_says_what_the_folder_is_not(tmp_path: Path) -> None:
    with pytest.raises(m.ManifestError, match=r"not an unpacked model\.tar\.gz"):
        m.read(tmp_path)


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(m.ManifestError, match="cores_per_copy"):
        m.write(example(cores_per_copy=0), tmp_path / m.FILE_NAME)
    assert list(tmp_path.iterdir()) == []


def test_verify_files_names_the_file_and_both_digests(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    file = tmp_path / "graphs/main.pt"
    file.write_bytes(b"graph")
    good = hashlib.sha256(b"graph").hexdigest()
    m.verify_files(example(files={"graphs/main.pt": good}), tmp_path)
    with pytest.raises(m.ManifestError, match=rf"graphs/main\.pt: sha256 is {good}, the manifest says c{{64}}"):
        m.verify_files(example(), tmp_path)
    file.unlink()
    with pytest.raises(m.ManifestError, match=r"graphs/main\.pt: in the manifest, but not in"):
        m.verify_files(example(), tmp_path)
