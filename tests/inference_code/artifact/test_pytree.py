from __future__ import annotations

import collections
import dataclasses
import json
from typing import Any

import pytest

from inference_code.artifact.pytree import Record, StructureError, check, flatten, restore


class Leaf:
    """Stands for a tensor."""


def is_leaf(value: Any) -> bool:
    return isinstance(value, Leaf)


@dataclasses.dataclass
class Boxes:
    corners: Leaf
    scores: list[Leaf]
    label: str = "cat"


class ModelOutput(collections.OrderedDict):
    """Like transformers' ModelOutput: a dict that is a dataclass."""


ModelOutput = dataclasses.dataclass(ModelOutput)  # type: ignore[misc]
Pair = collections.namedtuple("Pair", ["left", "right"])


def through_json(value: Any) -> Any:
    flat = flatten(value, is_leaf)
    structure = json.loads(json.dumps(flat.structure, sort_keys=True))
    check(structure, len(flat.leaves))
    return restore(structure, flat.leaves)


@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: a,
        lambda a, b: (a, [b, None, 3, 0.5, "x", True]),
        lambda a, b: {"z": a, "a": {"deep": (b,)}},
        lambda a, b: Pair(a, {"k": b}),
    ],
)
def test_what_was_flattened_comes_back(build: Any) -> None:
    value = build(Leaf(), Leaf())
    back = through_json(value)
    assert back == value
    assert type(back).__name__ == type(value).__name__


def test_dict_order_survives_sorted_json() -> None:
    assert list(through_json({"z": Leaf(), "a": Leaf()})) == ["z", "a"]


def test_dataclass_comes_back_with_its_name_and_fields() -> None:
    value = Boxes(Leaf(), [Leaf(), Leaf()])
    back = through_json(value)
    assert dataclasses.asdict(back).keys() == {"corners", "scores", "label"}
    assert (back.corners, back.scores, back.label) == (value.corners, value.scores, "cat")
    assert type(back).__name__ == "Boxes"


def test_model_output_is_read_both_ways() -> None:
    value = ModelOutput()
    value["logits"] = leaf = Leaf()
    back = through_json(value)
    assert isinstance(back, Record)
    assert back["logits"] is leaf is back.logits
    with pytest.raises(AttributeError, match="there are: logits"):
        _ = back.loss


def test_names_are_dotted_paths() -> None:
    assert flatten(Leaf(), is_leaf).names == ("output",)
    assert flatten({"a": (Leaf(), {"b": Leaf()})}, is_leaf).names == ("a.0", "a.1.b")


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({}, "no tensor"),
        ({"a": None}, "no tensor"),
        ({1: Leaf()}, "not text"),
        ({"a.b": Leaf(), "a": {"b": Leaf()}}, "a.b"),
        ({"x": [Leaf(), {1, 2}]}, "x.1 is a set"),
        ([Leaf(), float("nan")], "1 is a float"),
    ],
)
def test_what_cannot_be_described_is_said(value: Any, part: str) -> None:
    with pytest.raises(StructureError, match=part):
        flatten(value, is_leaf)


@pytest.mark.parametrize(
    "structure",
    [
        {"kind": "tensor", "index": 1},
        {"kind": "list", "items": [{"kind": "tensor", "index": 0}, {"kind": "tensor", "index": 0}]},
        {"kind": "set", "items": []},
        {"kind": "dict", "entries": [["a"]]},
        {"kind": "dict", "entries": {"a": {"kind": "tensor", "index": 0}}},
        {"kind": "dataclass", "type": "A B", "entries": [["a", {"kind": "tensor", "index": 0}]]},
        {"kind": "namedtuple", "type": "A", "entries": [["class", {"kind": "tensor", "index": 0}]]},
        {"kind": "constant"},
        [],
        None,
    ],
)
def test_a_bad_description_is_refused(structure: Any) -> None:
    with pytest.raises(StructureError):
        check(structure, 1)
