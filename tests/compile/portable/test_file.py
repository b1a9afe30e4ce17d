"""The graph file: written, read and written again; and damaged in every place."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compile.portable import check, decode, file, operators
from tests.compile.portable import graph_files, mutations


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two graph files, unpacked: one with a host part and one without."""
    return graph_files.made(tmp_path_factory.mktemp("graphs"))


def test_one_graph_has_a_host_part_and_one_has_none(folders: dict[str, Path]) -> None:
    assert decode.read(folders["bert"]).variants[0].host is not None
    assert decode.read(folders["plain"]).variants[0].host is None


@pytest.mark.parametrize("name", ["bert", "plain"])
def test_what_is_read_is_written_again_byte_for_byte(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    found = decode.read(folders[name])
    check.require(found)
    file.write(tmp_path / "again.graph", found.header, found.variants, graph_files.stored(found.tensors))
    assert (tmp_path / "again.graph").read_bytes() == folders[name].with_suffix("").read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["again.graph"]


@pytest.mark.parametrize("name", ["bert", "plain"])
def test_it_answers_as_the_original(name: str, folders: dict[str, Path]) -> None:
    found = decode.read(folders[name])
    (variant,) = found.variants
    for number in range(len(variant.references)):
        inputs, outputs = found.reference(variant, number)
        for made, wanted in zip(found.whole(variant)(*inputs), outputs, strict=True):
            torch.testing.assert_close(made, wanted)


def test_a_file_that_cannot_be_written_leaves_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    found = decode.read(folders["plain"])
    graphs, store = found.variants, graph_files.stored(found.tensors)
    with pytest.raises(ValueError, match="JSON"):
        file.write(tmp_path / "x.graph", {"a": float("nan")}, graphs, store)
    node = replace(graphs[0].device.nodes[0], kwargs={"x": object()})
    damaged = replace(graphs[0], device=replace(graphs[0].device, nodes=(node,)))
    with pytest.raises(file.GraphFileError, match="an argument of type object cannot be kept"):
        file.write(tmp_path / "x.graph", {}, [damaged], store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "count"), [("bert", 25), ("plain", 75)])
def test_any_damage_is_refused_or_replays(name: str, count: int, folders: dict[str, Path]) -> None:
    """In a process of its own, whose memory is bounded, and which may crash."""
    done = subprocess.run(
        [sys.executable, mutations.__file__, str(folders[name]), "7", str(count)],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads(done.stdout)
    assert sum(ends.values()) == count
    assert ends["refused"] > count / 2
    assert ends["replayed"] > 0


def test_every_kind_of_end_is_seen(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of the damage by itself: a graph as it was, and an exception that is none of the project's."""
    assert mutations.ended(folders["plain"]) == "replayed"

    def fail(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(check, "require", fail)
    with pytest.raises(KeyError):
        mutations.ended(folders["plain"])


# -- damage by name

Change = Callable[[Any], object]


def refused(folder: Path, tmp_path: Path, change: Change, version: str = "") -> str:
    """The message for graph.json after `change` of what it holds."""
    content = copy.deepcopy(json.loads((folder / file.GRAPH).read_bytes()))
    change(content)
    (tmp_path / file.GRAPH).write_text(json.dumps(content))
    (tmp_path / file.TENSORS).write_bytes((folder / file.TENSORS).read_bytes())
    with pytest.raises(file.GraphFileError) as found:
        check.require(decode.read(tmp_path), version)
    return str(found.value)


def node(content: Any, number: int = 0) -> Any:
    return content["graphs"][0]["device"]["nodes"][number]


def test_the_graph_that_is_damaged(folders: dict[str, Path]) -> None:
    """Which the cases below speak of."""
    nodes = json.loads((folders["plain"] / file.GRAPH).read_bytes())["graphs"][0]["device"]["nodes"]
    assert [one["operator"].removeprefix("aten::") for one in nodes] == [
        *("_convolution", "relu", "_convolution", "max_pool2d", "flatten.using_ints", "linear", "mul.Tensor"),
        *("softmax.int", "mean.dim", "cat"),
    ]


FORMAT = "this project reads 1:"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(format=2),
            f"graph.json has the format 2, {FORMAT} a newer version of the project wrote it",
        ),
        (lambda c: c.update(format=0), f"graph.json has the format 0, {FORMAT} it is older than this project reads"),
        (lambda c: c.update(format=True), "graph.json.format is True"),
        (lambda c: c.update(graphs=[]), "graph.json has no graph"),
        (lambda c: c.pop("header"), "graph.json has no 'header'"),
        (lambda c: node(c).pop("operator"), "graph.json.graphs[0].device.nodes[0] has no 'operator'"),
        (
            lambda c: node(c).update(args=[[[[[[1]]]]]]),
            "graph.json.graphs[0].device.nodes[0].args[0] is [1], no argument",
        ),
        (
            lambda c: node(c)["args"].append({"number": []}),
            "graph.json.graphs[0].device.nodes[0].args[13] is {'number': []}, no argument",
        ),
        (
            lambda c: c["graphs"][0]["device"]["state"][0].__setitem__(2, "0" * 64),
            f"graph.json.graphs[0].device.state[0] is '{'0' * 64}', no tensor of the file",
        ),
        *(
            (
                lambda c, name=name: c["graphs"][0]["device"]["state"][0].__setitem__(1, name),
                f"graph.json.graphs[0].device.state[0] is {name!r:.80}, no name",
            )
            for name in ("a..b", "", "a b", "a/b", "x" * 1025, "a." * 64 + "b", "a\nb")
        ),
        *(
            (
                lambda c, name=name: c["graphs"][0]["device"]["state"][0].__setitem__(1, name),
                "a weight has a name that no module can have:",
            )
            for name in ("__class__", "forward", "a.forward.b", "training", "__dict__.x")
        ),
    ],
)
def test_what_is_wrong_is_named(change: Change, message: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert refused(folders["plain"], tmp_path, change).startswith(message)


@pytest.mark.parametrize("text", ["NaN", "1e999", '{"format": 1, "format": 1}', "[" * 100_000, "\xff", ""])
def test_what_is_no_json(text: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / file.GRAPH).write_bytes(text.encode("latin-1"))
    with pytest.raises(file.GraphFileError, match=r"^graph\.json cannot be read: "):
        decode.read(tmp_path)


def test_a_graph_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / file.GRAPH).open("wb") as large:
        large.truncate(file.LARGEST_GRAPH + 1)
    with pytest.raises(file.GraphFileError, match=r"^graph\.json has 67108865 bytes, more than 67108864$"):
        decode.read(tmp_path)


def test_constants_that_do_not_fit_their_digest(folders: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray((folders["plain"] / file.TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / file.TENSORS).write_bytes(content)
    (tmp_path / file.GRAPH).write_bytes((folders["plain"] / file.GRAPH).read_bytes())
    with pytest.raises(file.GraphFileError) as found:
        decode.read(tmp_path)
    assert str(found.value).startswith("tensors.safetensors: tensor '")
    assert "' does not fit its digest: it is " in str(found.value)


AT = "1 problem(s):\n  model, batch 1, device part, node"


def checked(folder: Path, tmp_path: Path, number: int, changed: dict[str, Any], version: str = "") -> str:
    """The message for a node that is changed, without where it comes from."""
    change = {"module": "", "source": "", **changed}
    return refused(folder, tmp_path, lambda content: node(content, number).update(change), version)


@pytest.mark.parametrize("name", ["aten::relu_", "aten::zeros", "aten::mm.out", "prim::Print", "aten::linear\u200b"])
def test_an_operator_that_no_file_may_hold(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    if not name.isprintable():
        where = "graph.json.graphs[0].device.nodes[1].operator"
        assert checked(folders["plain"], tmp_path, 1, {"operator": name}) == f"{where} is {name!r}, no name"
        return
    found = checked(folders["plain"], tmp_path, 1, {"operator": name})
    assert found == f"{AT} 1: {name}: it is not among the operators that a graph may hold"


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def allow(*names: str) -> None:
        found = operators.allowed() | set(names)
        monkeypatch.setattr(operators, "allowed", lambda: found)

    return allow


def test_an_operator_that_the_target_has_not(
    folders: dict[str, Path], tmp_path: Path, allow: Callable[..., None]
) -> None:
    name = "aten::scaled_dot_product_attention"
    call = {"operator": name, "args": [{"value": 8}] * 3}
    assert f"{name}: it is not among" in checked(folders["plain"], tmp_path, 1, call, "1.13.1")
    allow(name)
    assert checked(folders["plain"], tmp_path, 1, call, "1.13.1") == f"{AT} 1: {name}: torch 1.13.1 has no {name}."


def test_a_release_that_is_not_known(folders: dict[str, Path], tmp_path: Path) -> None:
    found = refused(folders["plain"], tmp_path, lambda content: None, "../1.0")
    assert "The operators of torch ../1.0 are not known here" in found


LARGE = 1 << 40
BYTES = "4398046511104 bytes; the most is 1099511627776"


def test_a_value_that_is_too_large(folders: dict[str, Path], tmp_path: Path) -> None:
    found = checked(folders["plain"], tmp_path, 1, {"outputs": [[9, "float32", [LARGE]]]})
    assert found == f"{AT} 1: aten::relu: it makes float32[{LARGE}], {BYTES}"


@pytest.mark.parametrize(
    ("name", "args", "makes"),
    [
        ("aten::zeros", [[LARGE]], f"float32[{LARGE}]"),
        ("aten::full", [[LARGE], 1.0], f"float32[{LARGE}]"),
        ("aten::new_zeros", [{"value": 0}, [LARGE]], f"float32[{LARGE}]"),
        ("aten::repeat", [{"value": 0}, [1 << 39, 1, 1, 1]], f"float32[{1 << 39}, 3, 4, 4]"),
        ("aten::expand", [{"value": 1}, [LARGE, 1, 1]], f"float32[{LARGE}, 1, 1]"),
        (
            "aten::max_unpool2d",
            [{"value": 0}, {"value": 0}, [1 << 20, 1 << 20]],
            f"float32[1, 3, {1 << 20}, {1 << 20}]",
        ),
        ("aten::one_hot", [{"value": 1}, LARGE], f"int64[1, 1, {LARGE}]"),
    ],
)
def test_a_shape_that_lies(
    name: str, args: list[Any], makes: str, folders: dict[str, Path], tmp_path: Path, allow: Callable[..., None]
) -> None:
    """A file states little and the operator would make much: known without running it."""
    allow("aten::zeros", "aten::full", "aten::new_zeros")

    def change(content: Any) -> None:
        part = content["graphs"][0]["device"]
        part["nodes"][1].update(operator=name, args=args, module="", source="", outputs=[[9, "float32", [1]]])
        del part["nodes"][2:]
        part["outputs"] = [9, 9]

    assert (
        refused(folders["plain"], tmp_path, change) == f"{AT} 1: {name}: it makes {makes}, the file states float32[1]"
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"operator": "aten::repeat", "args": [{"value": 8}, [{"value": 1}]]},
            "its argument repeats is [%1], a tensor where",
        ),
        (
            {"operator": "aten::one_hot", "args": [{"value": 8}]},
            "aten::one_hot is not read with num_classes=-1, because its result's size is then decided by data",
        ),
        (
            {"operator": "aten::to.dtype", "args": [{"value": 8}, (1 << 63) - 1]},
            "its argument dtype is 9223372036854775807",
        ),
        (
            {"operator": "aten::zeros_like", "args": [{"value": 8}], "kwargs": {"device": "cuda"}},
            "its argument device is 'cuda'",
        ),
        (
            {"operator": "aten::contiguous", "args": [{"value": 8}], "kwargs": {"memory_format": 77}},
            "its argument memory_format is 77",
        ),
        ({"args": [{"value": 99}]}, "it reads the value 99 before anything makes it"),
        ({"args": [{"value": 9}]}, "it reads the value 9 before anything makes it"),
        ({"args": [{"value": 8}, 1]}, "aten::relu takes 1 positional arguments"),
        ({"operator": "aten::flatten.using_ints", "args": [{"value": 8}, 9]}, "it takes no such arguments: "),
    ],
)
def test_a_call_that_is_none(
    changed: dict[str, Any], text: str, folders: dict[str, Path], tmp_path: Path, allow: Callable[..., None]
) -> None:
    allow("aten::zeros_like")
    operator = changed.get("operator", "aten::relu")
    assert f"{AT} 1: {operator}: {text}" in checked(folders["plain"], tmp_path, 1, changed)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda g: g["wiring"].update(host=[0]), "inputs are wired to its host part, and it has none"),
        (lambda g: g["wiring"].update(device=[["host", 0], ["input", 1]]), "device part: its 2 inputs are wired to"),
        (lambda g: g["wiring"]["outputs"].pop(), "2 outputs are named, 1 are wired"),
        (lambda g: g["wiring"]["outputs"].reverse(), "output 0 is float32[1, 5], it is wired to device 1"),
        (lambda g: g["inputs"][1].__setitem__(0, "image"), "two of its inputs have one name"),
        (
            lambda g: g["inputs"][1].__setitem__(2, [LARGE]),
            "its inputs have 4398046511296 bytes, more than 1099511627776",
        ),
        (
            lambda g: g["device"]["state"][1].__setitem__(0, 0),
            "two of its inputs and weights have one number or one name",
        ),
        (
            lambda g: g["device"]["state"][1].__setitem__(1, g["device"]["state"][0][1]),
            "two of its inputs and weights have one number or one name",
        ),
        (lambda g: g["device"]["outputs"].__setitem__(0, 999), "nothing makes its output 999"),
        (lambda g: g["device"]["nodes"][1]["outputs"][0].__setitem__(0, 0), "it makes a value that is there already"),
        (lambda g: g["references"][0]["inputs"].reverse(), "the inputs of reference 0 are of other shapes or dtypes"),
    ],
)
def test_a_graph_that_does_not_fit_together(
    change: Change, text: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    assert text in refused(folders["plain"], tmp_path, lambda content: change(content["graphs"][0]))


def test_a_graph_that_stands_in_it_twice(folders: dict[str, Path], tmp_path: Path) -> None:
    found = refused(folders["plain"], tmp_path, lambda content: content["graphs"].append(content["graphs"][0]))
    assert found == "1 problem(s):\n  model, batch 1 stands in it twice"


def test_all_problems_are_listed_together(folders: dict[str, Path], tmp_path: Path) -> None:
    def change(content: Any) -> None:
        for number in (1, 7, 8):
            node(content, number).update(operator="aten::zeros")

    assert refused(folders["plain"], tmp_path, change).startswith("3 problem(s):\n")


@pytest.mark.parametrize("name", ["bert", "plain"])
def test_a_replay_of_a_file_holds_no_other_tensors_of_it(name: str, folders: dict[str, Path]) -> None:
    """TorchScript saves all that a constant's storage holds, and a mapped file is one storage."""
    found = decode.read(folders[name])
    state = [held for part in found.parts(found.variants[0]) if part is not None for held in part.state_dict().values()]
    assert state
    for tensor in state:
        assert tensor.storage().nbytes() == tensor.numel() * tensor.element_size()
