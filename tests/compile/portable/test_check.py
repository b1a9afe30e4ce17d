"""The check knows what every operator makes before it runs, in this torch."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from compile.portable import operators
from compile.portable.check import _Checked
from compile.portable.file import GraphFileError, Node, Part, function_of
from compile.portable.replay import Ref, replaced, type_of
from tests.compile.portable.operator_calls import calls

VERSION = str(torch.__version__)
# What only a CPU takes: whole numbers with a fraction as a factor.
REFUSED = {"aten::index_add": "it takes no such arguments: alpha argument of type"}


@pytest.mark.parametrize("overload", sorted(operators.allowed()))
def test_what_an_operator_makes_is_known_before_it_runs(overload: str) -> None:
    """Of every call that this torch runs and that a file may hold."""
    try:
        function = function_of(overload)
    except GraphFileError:
        assert VERSION.partition("+")[0] in operators._entries()[overload]["lacking"]
        return
    tried = 0
    for label, positional, named in calls(overload):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = function(*positional, **named)
            except Exception:  # such a call is in no file
                continue
        given: list[Tensor] = []

        def numbered(leaf: Any, given: list[Tensor] = given) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            given.append(leaf)
            return Ref(len(given) - 1)

        args, kwargs = replaced((tuple(positional), named), numbered)
        if isinstance(kwargs.get("memory_format"), int):
            kwargs["memory_format"] = torch.contiguous_format  # 0, as the schema has it; a file has the name
        if operators.problem(VERSION, overload, args, kwargs) is not None:
            continue
        types = tuple(map(type_of, made if isinstance(made, (list, tuple)) else (made,)))
        node = Node(overload, args, kwargs, tuple(range(100, 100 + len(types))), types)
        part = Part(tuple(range(len(given))), (), (node,), node.outputs)
        problems = list(_Checked("", part, list(map(type_of, given)), {}, VERSION).problems())
        assert [one for one in problems if overload not in REFUSED or REFUSED[overload] not in one] == [], label
        tried += 1
    assert tried > 0
