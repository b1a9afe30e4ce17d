"""`graph`: what a graph file holds, and what differs between two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compile.portable import file
from compile.portable.tensors import TensorStore
from tests.compile.portable import captures
from tests.compile.projects import run, write_entry

Graphs = list[file.PortableVariant]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setenv("COLUMNS", "80")

    def shown(*arguments: object) -> tuple[int, str, str]:
        code = run(monkeypatch, "graph", *map(str, arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return shown


@pytest.fixture(scope="module")
def plain() -> tuple[Graphs, TensorStore]:
    """A graph of ten operators, whose first two are of the module `body`."""
    (graph,), store = captures.plain()
    nodes = [
        replace(node, module="body" if number < 2 else "", source="") for number, node in enumerate(graph.device.nodes)
    ]
    return [replace(graph, device=replace(graph.device, nodes=tuple(nodes)))], store


def write(path: Path, graphs: Graphs, store: TensorStore, **header: Any) -> Path:
    file.write(path, {"torch": "2.13.0", **header}, graphs, store)
    return path


def with_node(graph: file.PortableVariant, number: int, **changed: Any) -> file.PortableVariant:
    nodes = list(graph.device.nodes)
    nodes[number] = replace(nodes[number], **changed)
    return replace(graph, device=replace(graph.device, nodes=tuple(nodes)))


def test_operators_by_module_with_shapes_and_weights(
    plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]
) -> None:
    path = write(tmp_path / "a.graph", *plain, build={"digest": "ab" * 32}, note="\x1b[2J")
    code, text, _ = shown(path)
    assert code == 0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert str(path) in lines
    assert "in image float32[1, 3, 4, 4]" in lines
    assert any(line.startswith("body aten::_convolution float32[1, 4, 2, 2] first.w") for line in lines)
    assert "aten::relu float32[1, 4, 2, 2]" in lines, "a module is named once"
    assert any(line.startswith(". aten::_convolution") for line in lines)
    assert f'build: {{"digest": "{"ab" * 32}"}}' in lines
    digest = next(state.tensor for state in plain[0][0].device.state if state.name == "last.weight")
    assert f"last.weight float32[5, 8] 0.000 {digest[:12]}" in lines
    assert "\x1b[2J" not in text


def test_several_graphs_are_listed_and_one_is_chosen(
    plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]
) -> None:
    graphs = [replace(plain[0][0], role=role, bucket={"image": [4, 4], "n": 2}) for role in ("encoder", "step")]
    path = write(tmp_path / "a.graph", graphs, plain[1])
    _, text, _ = shown(path)
    assert "2 graph(s)" in text
    assert "image=4x4,n=2" in text
    assert "Choose one with --role, --bucket and --batch" in text
    assert "aten::relu" not in text
    _, text, _ = shown(path, "--role", "step", "--bucket", "image=4x4,n=2", "--batch", 1)
    assert "aten::relu" in text
    code, _, error = shown(path, "--role", "decoder", "--batch", 3)
    assert code == 2
    assert "has no graph --role decoder --batch 3" in error
    assert "--role encoder --bucket image=4x4,n=2 --batch 1; --role step" in error


def test_json_has_all_of_it(plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]) -> None:
    code, text, _ = shown(write(tmp_path / "a.graph", *plain), "--json")
    found = json.loads(text)
    assert (code, found["header"], found["format"]) == (0, {"torch": "2.13.0"}, 1)
    (graph,) = found["graphs"]
    device = plain[0][0].device
    assert [node["operator"] for node in graph["parts"]["device"]["nodes"]] == [one.operator for one in device.nodes]
    assert graph["parts"]["device"]["nodes"][0]["makes"] == [{"dtype": "float32", "shape": [1, 4, 2, 2]}]
    assert [one["digest"] for one in graph["parts"]["device"]["weights"]] == [one.tensor for one in device.state]
    assert graph["inputs"][1] == {"name": "scale", "dtype": "float32", "shape": [1, 1]}


def test_the_same_graphs(plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]) -> None:
    """Also where headers and source lines differ."""
    one = write(tmp_path / "a.graph", *plain)
    moved = with_node(plain[0][0], 3, source="mine.py:7")
    other = write(tmp_path / "b.graph", [moved], plain[1], commit="f00")
    assert shown("--diff", one, other)[:2] == (0, "The headers differ in: commit\nThe graphs are the same.\n")
    assert json.loads(shown("--diff", one, other, "--json")[1]) == {
        **{"before": str(one), "after": str(other), "same": True, "headers": ["commit"], "differences": []},
    }


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_what_differs(plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]) -> None:
    (graph,), store = plain
    before = write(tmp_path / "a.graph", [graph], store)
    state = [
        one if one.name != "first.bias" else replace(one, tensor=digest_of_another(store)) for one in graph.device.state
    ]
    after = with_node(graph, 1, operator="aten::sigmoid")
    after = with_node(after, 7, args=(after.device.nodes[7].args[0], -1, None))
    after = replace(after, device=replace(after.device, state=tuple(state)), references=())
    code, text, _ = shown("--diff", before, write(tmp_path / "b.graph", [after], store))
    assert code == 1
    bias = next(one.tensor for one in graph.device.state if one.name == "first.bias")
    assert lines_of(text) == [
        "model, batch 1, device, body",
        "- aten::relu (%) -> float32[1, 4, 2, 2]",
        "+ aten::sigmoid (%) -> float32[1, 4, 2, 2]",
        "model, batch 1, device",
        "~ aten::softmax.int (%, 1, None) -> float32[1, 8]  ->  (%, -1, None) -> float32[1, 8]",
        f"~ weight first.bias {bias[:12]} parameter  ->  {digest_of_another(store)[:12]} parameter",
        "model, batch 1",
        "~ references",
    ]


def digest_of_another(store: TensorStore) -> str:
    """Of a tensor of the same shape."""
    return store.add(captures.torch.arange(4.0))


def test_other_wiring_alone_is_a_difference(
    plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]
) -> None:
    (graph,), store = plain
    outputs = graph.device.nodes[9].args[0][::-1]
    changed = with_node(graph, 6, args=graph.device.nodes[6].args[::-1])
    assert outputs
    before, after = write(tmp_path / "a.graph", [graph], store), tmp_path / "b.graph"
    code, text, _ = shown("--diff", before, write(after, [changed], store))
    assert code == 1
    assert lines_of(text) == ["model, batch 1, device", "~ which values the operators read"]


def test_a_graph_that_only_one_file_has(
    plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]
) -> None:
    (graph,), store = plain
    before = write(tmp_path / "a.graph", [graph, replace(graph, role="step")], store)
    code, text, _ = shown("--diff", before, write(tmp_path / "b.graph", [graph, replace(graph, role="new")], store))
    assert code == 1
    assert lines_of(text) == ["step, batch 1", "- the graph", "new, batch 1", "+ the graph"]


def test_an_endpoint_that_is_not_built(tmp_path: Path, shown: Callable[..., Any]) -> None:
    write_entry(tmp_path)
    code, _, error = shown("own", "--rehearse", "--root", tmp_path)
    assert code == 1
    assert f"own has no graph file: {tmp_path}/build/rehearsal/own/model.graph is missing." in error
    assert "-> inferentia build own --rehearse" in error
    code, _, error = shown("own", "--root", tmp_path)
    assert (code, "-> inferentia build own\n" in error) == (1, True)


def test_an_endpoint_that_is_built(
    plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]
) -> None:
    write_entry(tmp_path)
    path = tmp_path / "build" / "rehearsal" / "own" / "model.graph"
    path.parent.mkdir(parents=True)
    write(path, *plain)
    assert shown("own", "--rehearse", "--root", tmp_path)[:2] == shown(path)[:2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give an endpoint or a FILE.graph, or --diff with two files."),
        (("a.graph", "--diff", "a.graph", "b.graph"), "Give an endpoint or a FILE.graph, or --diff"),
        (("missing.graph",), "There is no file missing.graph."),
        (("--diff", "missing.graph", "b.graph"), "There is no file missing.graph."),
        (("--diff", "a.graph"), "requires 2 arguments"),
        (("--diff", "a.graph", "b.graph", "--role", "x"), "--diff compares all graphs."),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], said: str, shown: Callable[..., Any]) -> None:
    code, _, error = shown(*arguments)
    assert (code, said in error) == (2, True), error


def test_a_file_that_is_damaged(plain: tuple[Graphs, TensorStore], tmp_path: Path, shown: Callable[..., Any]) -> None:
    whole = write(tmp_path / "a.graph", *plain).read_bytes()
    newer = whole.replace(b'"format":1', b'"format":2')
    other = whole.replace(b"aten::sigmoid", b"aten::sigmoid").replace(b"aten::relu", b"aten::rand")
    for content, said in (
        (whole[:3000], "it is damaged: it ends in the middle"),
        (b"", "it is damaged: it ends in the middle"),
        (newer, "graph.json has the format 2, this project reads 1: a newer version of the project wrote it"),
        (other, "aten::rand: it is not among the operators that a graph may hold"),
        (whole.replace(b"graph.json", b"graph.jsoN"), "it holds graph.jsoN, tensors.safetensors, not graph.json and"),
    ):
        path = tmp_path / "damaged.graph"
        path.write_bytes(with_sums(content))
        code, text, error = shown(path)
        assert (code, text) == (1, "")
        assert f"{path} is no graph file that can be read: " in error
        assert said in error
        assert "Traceback" not in error


def with_sums(content: bytes) -> bytes:
    """A tar whose headers were changed, with the sum that each has to have."""
    made = bytearray(content)
    if len(made) >= 512:
        made[148:156] = b" " * 8
        made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)
