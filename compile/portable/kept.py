"""Files that are kept together under a key, in one tar: what was captured, or compiled, of a variant.

The first member, files.json, has the key and the sha256 of every other file. Standard library alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from compile.portable.process import COST, LOG, REQUEST, RESULT

FILES = "files.json"
COMPILED, ANSWERS = "graph.pt", "answers.safetensors"
# Of the driver's folder; the compiler's own work directory can be many times the graph.
OF_COMPILED = (REQUEST, RESULT, COMPILED, ANSWERS, COST, LOG)
_TIME = 315532800  # 1980-01-01, as model.tar.gz has it


def pack(folder: Path, names: Sequence[str], key: str, to: Path) -> None:
    """Writes those of the files that are there; `to` appears when it is whole."""
    there = [name for name in names if (folder / name).is_file()]
    listed = {"key": key, "files": {name: file_digest(folder / name) for name in there}}
    text = json.dumps(listed, sort_keys=True).encode()
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.new")
    try:
        with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(member(FILES, len(text)), io.BytesIO(text))
            for name in there:
                with (folder / name).open("rb") as file:
                    tar.addfile(member(name, (folder / name).stat().st_size), file)
        draft.replace(to)
    finally:
        draft.unlink(missing_ok=True)


def member(name: str, size: int) -> tarfile.TarInfo:
    """A regular file without a date or an owner."""
    found = tarfile.TarInfo(name)
    found.size, found.mtime, found.mode = size, _TIME, 0o644
    return found


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()
