"""YAML without its surprises: one document, plain strings as keys, no anchors, tags or tabs, numbers as in YAML 1.2.

PyYAML follows YAML 1.1, where `no` is false, `1e-5` a string and `1:30` the number 90. The rules for plain scalars here
are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema). Every fault carries its line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import SpecError, SpecErrors, dotted, fault_of, shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
_DIGITS = 40
_SURROGATE = re.compile("[\ud800-\udfff]")  # "\\ud800" in double quotes makes one; UTF-8 has none
_HALF = ("holds half a character, a surrogate", "Write the character itself.")

Keys = tuple["str | int", ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:null|Null|NULL|~|)$", ["n", "N", "~", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


@dataclass
class Document:
    """A parsed file: plain data, the line (from 1) of each key and item, and faults that left data to continue with."""

    file: str
    data: Any
    lines: dict[Keys, int] = field(default_factory=dict)
    errors: list[SpecError] = field(default_factory=list)

    def line(self, path: Keys) -> int:
        """The line of a key, or of the nearest thing around it that was written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add(self, path: Keys, value: Any, problem: str, remedy: str) -> None:
        """Note a fault of the value at `path`."""
        self.add_at(self.line(path), path, shown(value), problem, remedy)

    def add_at(self, line: int, path: Keys, text: str, problem: str, remedy: str) -> None:
        """Note a fault on a line; text: the value as the message shows it."""
        self.errors.append(SpecError(self.file, dotted(path), text, problem, remedy, line))


def read(path: Path, file: str) -> Document:
    """Read and parse a file; `file` is the name used in messages.

    Raises SpecErrors when nothing can be made of the file: unreadable, too large, not UTF-8, empty, not YAML, or using
    what is refused here (several documents, anchors, aliases, tags, tabs as indentation).
    """
    return parse(_text(path, file), file)


def parse(text: str, file: str) -> Document:
    """Parse YAML text, as `read` does."""
    faults = _tabs(text, file)
    if faults:
        raise SpecErrors(faults)
    try:
        faults = _refused_events(text, file)
        if faults:
            raise SpecErrors(faults)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise SpecErrors([_syntax(error, file)]) from None
    except yaml.YAMLError as error:
        raise fault_of(file, f"is not YAML: {_flat(error)}", "Correct the file.", 1) from None
    if node is None:
        raise fault_of(file, "is empty", "Write at least name and model; the files in zoo/ are examples to copy.", 1)
    document = Document(file, None)
    document.lines[()] = 1
    document.data = _value(node, (), document)
    return document


def _text(path: Path, file: str) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            problem = f"has {size} bytes, more than the {MAX_BYTES} that a spec may have"
            raise fault_of(file, problem, "Make it smaller.")
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise fault_of(file, problem, "Name a file that exists and is readable.") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise fault_of(file, problem, "Save the file as UTF-8.", line) from None
    for number, line_text in enumerate(text.split("\n"), 1):
        if found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]", line_text):
            problem = f"holds the control character U+{ord(found.group()):04X}"
            raise fault_of(file, problem, "Remove it and save the file as plain UTF-8 text.", number)
    return text


def _tabs(text: str, file: str) -> list[SpecError]:
    return [
        _fault(file, number, "is indented with a tab, which YAML does not allow", "Indent with spaces.")
        for number, line in enumerate(text.splitlines(), 1)
        if "\t" in line[: len(line) - len(line.lstrip())] and line.strip()
    ]


def _refused_events(text: str, file: str) -> list[SpecError]:
    faults: list[SpecError] = []
    documents = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents == 2:
                faults.append(_fault(file, line, "begins a second document (---)", "Keep one document a file."))
        elif isinstance(event, AliasEvent):
            faults.append(
                _fault(file, line, f"uses the alias *{event.anchor}", "Write the value out; aliases are not read.")
            )
        elif isinstance(event, NodeEvent):
            faults += _refused_node(event, file, line)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            faults.append(_fault(file, line, f"is nested deeper than {MAX_DEPTH} levels", "Make it flatter."))
            break
    return faults


def _refused_node(event: NodeEvent, file: str, line: int) -> list[SpecError]:
    faults = []
    if event.anchor:
        faults.append(
            _fault(file, line, f"defines the anchor &{event.anchor}", "Write the value out; anchors are not read.")
        )
    if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag:
        faults.append(_fault(file, line, f"uses the tag {shown(event.tag)}", "Remove the tag; write plain values."))
    return faults


def _value(node: Node, path: Keys, document: Document) -> Any:
    if isinstance(node, MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            document.lines[(*path, index)] = item.start_mark.line + 1
            items.append(_value(item, (*path, index), document))
        return items
    assert isinstance(node, ScalarNode)  # noqa: S101  (the composer makes no other nodes)
    return _scalar(node, path, document)


def _mapping(node: MappingNode, path: Keys, document: Document) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != "tag:yaml.org,2002:str":
            text = shown(key_node.value) if isinstance(key_node, ScalarNode) else "a list or mapping"
            problem = "is not a string, so it cannot be a key"
            remedy = f'Write a name; quote it ("{text}") if it is meant as text.'
            document.add_at(line, path, text, problem, remedy)
            continue
        key = str(key_node.value)
        if _SURROGATE.search(key):
            document.add_at(line, path, shown(key), *_HALF)
            continue
        if key in result:
            first = document.lines[(*path, key)]
            problem = f"is given twice (first on line {first})"
            document.add_at(line, (*path, key), "", problem, "Keep one of them.")
            continue
        document.lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), document)
    return result


def _scalar(node: ScalarNode, path: Keys, document: Document) -> Any:
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    # A sha256 may consist of digits alone, or of digits around one e; so a long run of them is text.
    if kind in ("int", "float") and len(text) <= _DIGITS:
        return _number(kind, text, path, document)
    if _SURROGATE.search(text):
        document.add(path, text, *_HALF)
        return None
    return text


def _number(kind: str, text: str, path: Keys, document: Document) -> int | float | None:
    if kind == "int" and re.match(r"[-+]?0[0-9]", text):
        problem = "begins with a zero, which YAML 1.1 reads as octal and YAML 1.2 as decimal"
        document.add(path, text, problem, "Leave the zero out; quote it if it is meant as text.")
        return None
    if kind == "int" and len(text) <= 19:
        return int(text)
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if kind == "int" or not math.isfinite(number):
        document.add(path, text, "is not a finite number of a reasonable size", "Write an ordinary number.")
        return None
    return number


def _syntax(error: yaml.MarkedYAMLError, file: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    if error.problem and "'\\t'" in error.problem:
        return _fault(file, line, "holds a tab between its parts, which YAML does not allow", "Use spaces.")
    problem = f"is not YAML: {_flat(error.problem or error.context)}"
    return _fault(file, line, problem, "Correct the line; a value with : or # or quotes in it needs quotes around it.")


def _flat(text: object) -> str:
    return " ".join(str(text).split())


def _fault(file: str, line: int, problem: str, remedy: str) -> SpecError:
    return SpecError(file, "", "", problem, remedy, line)
