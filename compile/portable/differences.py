"""What differs between two graphs: operators by module, weights, inputs, outputs and references.

Where an operator comes from (its source line) is not compared. Standard library and torch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from compile.portable.file import GraphFile, Node, Part, PortableVariant
from compile.portable.replay import Ref, replaced


@dataclass(frozen=True)
class Difference:
    """One of them. where: graph, part and module; kind: "added", "removed" or "changed"; before, after: "" for none."""

    graph: str
    part: str
    module: str
    kind: str
    what: str
    before: str = ""
    after: str = ""


def of_files(before: GraphFile, after: GraphFile) -> list[Difference]:
    """Differences of all graphs, which are matched by role, bucket and batch size. Headers are not compared."""
    old, new = ({str(variant): variant for variant in file.variants} for file in (before, after))
    found = [Difference(name, "", "", "removed", "the graph") for name in old if name not in new]
    found += [Difference(name, "", "", "added", "the graph") for name in new if name not in old]
    for name in old:
        if name in new:
            found += of_variants(old[name], new[name])
    return found


def of_variants(before: PortableVariant, after: PortableVariant) -> list[Difference]:
    """Differences of two graphs."""
    name = str(before)
    found = []
    for part, one, other in (("host", before.host, after.host), ("device", before.device, after.device)):
        found += _of_parts(name, part, one or _NONE, other or _NONE)
    for what in ("inputs", "outputs", "structure", "wiring", "references"):
        one, other = getattr(before, what), getattr(after, what)
        if one != other:
            found.append(Difference(name, "", "", "changed", what, *_shown(what, one, other)))
    return found


_NONE = Part((), (), (), ())


def _of_parts(graph: str, part: str, before: Part, after: Part) -> list[Difference]:
    found = [Difference(graph, part, *row) for row in (*_of_nodes(before, after), *_of_weights(before, after))]
    if not found and _compared(before) != _compared(after):
        found.append(Difference(graph, part, "", "changed", "which values the operators read"))
    return found


def _of_nodes(before: Part, after: Part) -> Iterator[tuple[str, ...]]:
    """Rows of module, kind, what, before and after."""
    old, new = _by_module(before.nodes), _by_module(after.nodes)
    for module in dict.fromkeys([*old, *new]):
        mine, its = old.get(module, []), new.get(module, [])
        for kind, begin, end, start, stop in SequenceMatcher(None, mine, its, autojunk=False).get_opcodes():
            if kind == "equal":
                continue
            gone, come = mine[begin:end], its[start:stop]
            if len(gone) == len(come) and [one[0] for one in gone] == [one[0] for one in come]:
                yield from ((module, "changed", one[0], one[1], two[1]) for one, two in zip(gone, come, strict=True))
            else:
                yield from ((module, "removed", name, text, "") for name, text in gone)
                yield from ((module, "added", name, "", text) for name, text in come)


def _by_module(nodes: Sequence[Node]) -> Mapping[str, list[tuple[str, str]]]:
    """Operators, each with its constants and what it makes, but for the numbers of values, which follow the order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for node in nodes:
        found.setdefault(node.module, []).append((node.operator, call(node)))
    return found


def call(node: Node) -> str:
    """Arguments and results in one line, with % for each value of the graph."""
    args, kwargs = replaced((node.args, dict(node.kwargs)), lambda leaf: _Any() if isinstance(leaf, Ref) else leaf)
    given = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    return f"({given}) -> {', '.join(map(str, node.types))}"


class _Any:
    def __repr__(self) -> str:
        return "%"


def _of_weights(before: Part, after: Part) -> Iterator[tuple[str, ...]]:
    old, new = ({one.name: one for one in part.state} for part in (before, after))
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if one is None or other is None:
            kind = "added" if one is None else "removed"
            yield "", kind, f"weight {name}", one.tensor if one else "", other.tensor if other else ""
        elif (one.tensor, one.parameter) != (other.tensor, other.parameter):
            yield (
                "",
                "changed",
                f"weight {name}",
                _weight(one.tensor, one.parameter),
                _weight(other.tensor, other.parameter),
            )


def _weight(digest: str, parameter: bool) -> str:
    return f"{digest} {'parameter' if parameter else 'buffer'}"


def _compared(part: Part) -> Any:
    nodes = [(node.operator, node.args, node.kwargs, node.outputs, node.types, node.module) for node in part.nodes]
    return part.inputs, part.state, nodes, part.outputs


def _shown(what: str, before: Any, after: Any) -> tuple[str, str]:
    if what in ("inputs", "outputs"):
        return ", ".join(map(str, before)), ", ".join(map(str, after))
    return ("", "") if what in ("references", "wiring") else (str(before), str(after))
