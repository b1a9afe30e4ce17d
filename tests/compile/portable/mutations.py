"""Run as a script: damages every kind of thing in a graph file, and replays what is still read.

    python mutations.py FOLDER SEED COUNT

FOLDER: an unpacked graph file. Exit 1, with the change, when anything but GraphFileError or ReplayError is raised; a
crash ends the process. Memory is bounded, so that what asks for too much fails here. Torch alone, from 1.13.1 on.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
ENOUGH = 6 << 30  # bytes of address space: torch and its libraries take half

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    1 << 20,
    1 << 31,
    1 << 40,
    (1 << 62) - 1,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    10**30,
    -(1 << 63),
]
OTHERS = [None, True, False, 0.5, -0.0, 1e300, "", "x", "float32", "input", [], {}, [0], [1, 2], [[]], {"value": 0}]
OTHERS += [
    {"value": 1 << 40},
    {"number": "nan"},
    {"number": []},
    {"dtype": "int64"},
    {"dtype": "complex64"},
    {"dtype": {}},
]
OTHERS += [{"memory_format": "channels_last"}, {"memory_format": "__class__"}, {"format": 1, "value": 2}]
TEXTS = [
    "",
    "a..b",
    "__class__",
    "forward",
    "training",
    "T_destination",
    "n" * 1000,
    "a." * 500 + "b",
    "\x1b[2J",
    "\n",
    "1" * 70,
]
TEXTS += [
    "aten::relu_",
    "aten::zeros",
    "aten::mm.out",
    "aten::",
    "prim::Print",
    "aten::_assert_async",
    "x::y",
    "device",
    "host",
]


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in the JSON."""
    yield path
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in entries:
        yield from places(value, (*path, name))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        content = content[name]
    return content


def changed(content: Any, kept: random.Random, operators: list[str]) -> tuple[Any, str]:
    """A copy with one thing in it replaced, removed, doubled or exchanged, and what that was."""
    made = copy.deepcopy(content)
    path = kept.choice([path for path in places(made) if path])
    holder, name = at(made, path[:-1]), path[-1]
    value = holder[name]
    several = isinstance(value, (list, dict)) and len(value) > 0
    kind = kept.choice(["replace", "replace", "replace", "remove", "double", "exchange"])
    if kind == "replace":
        alike = {
            int: [*NUMBERS, *([value + 1, value - 1, value * 2, -value] if isinstance(value, int) else [])],
            str: [*TEXTS, *operators, *(at(made, other) for other in places(made) if isinstance(at(made, other), str))],
        }
        holder[name] = kept.choice(alike.get(type(value), OTHERS) if kept.random() < 0.7 else [*OTHERS, *NUMBERS])
    elif kind == "remove":
        del holder[name]
    elif kind == "double" and isinstance(holder, list):
        holder.insert(name, copy.deepcopy(value))
    elif several and isinstance(value, list):
        kept.shuffle(value)
    else:
        other = kept.choice([path for path in places(made) if path])
        holder[name] = copy.deepcopy(at(made, other))
    return made, f"{kind} {'.'.join(map(str, path))}: {value!r:.100} -> {at_or_none(made, path)!r:.100}"


def at_or_none(content: Any, path: tuple[Any, ...]) -> Any:
    try:
        return at(content, path)
    except (LookupError, TypeError):
        return None


def ended(folder: Path) -> str:
    """How reading, checking and replaying ends: the name of what is raised, or "replayed"."""
    from compile.portable import check, decode  # noqa: PLC0415
    from compile.portable.file import GraphFileError  # noqa: PLC0415
    from compile.portable.replay import ReplayError  # noqa: PLC0415

    try:
        file = decode.read(folder)
        check.require(file)
    except GraphFileError as error:
        if len(str(error)) > 30_000:
            raise ValueError(f"a message of {len(str(error))} characters") from error
        return "refused"
    try:
        for variant in file.variants:
            whole = file.whole(variant)
            for number in range(len(variant.references)):
                whole(*file.reference(variant, number)[0])
    except ReplayError:
        return "failed in the replay"
    return "replayed"


def main(folder: Path, seed: int, count: int) -> int:
    import torch  # noqa: PLC0415

    from compile.portable import operators  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    resource.setrlimit(resource.RLIMIT_AS, (ENOUGH, ENOUGH))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    content = json.loads((folder / "graph.json").read_bytes())
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "tensors.safetensors").symlink_to((folder / "tensors.safetensors").resolve())
        for number in range(seed, seed + count):
            damaged, what = changed(content, random.Random(number), sorted(operators.allowed()))
            (place / "graph.json").write_text(json.dumps(damaged))
            sys.stderr.write(f"{number} {what}\n")  # the last line names what crashed the process
            try:
                found[ended(place)] += 1
            except BaseException:  # anything else is the finding
                traceback.print_exc()
                return 1
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
