"""A compiled variant as one file: its graphs and everything that a build knows of them, each with its sha256.

variant.tar holds variant.json first, then artifact/ (the graph as it is served), cpu/ (the same graph for this CPU,
where the target's own does not run here) and record/ (the compiler's log). A build that has it continues as if it had
compiled the variant itself.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.files import copy, place, staging
from compile.packaging import archive
from compile.pipeline.graph import COMPARISON, CompiledVariant, Places
from endpoint_spec import archives
from endpoint_spec.digests import canonical, digest
from endpoint_spec.jobs import tree_digests

_DESCRIPTION = "variant.json"
_ARTIFACT, _CPU, _RECORD = "artifact", "cpu", "record"
# Of a record what shows how it went; the compiler's own work directory can be many times the graph.
_KEPT = ("compile.log", "cost.json", COMPARISON, "request.json", "result.json")
_CHECKSUM = "checksum"
_ADAPTER = TypeAdapter(CompiledVariant)


def storable(graph: CompiledVariant) -> bool:
    """Whether a graph is worth keeping: it equals the original, and everything measured of it is a number."""
    device = [value for found in (graph.device or {}).values() for value in asdict(found).values()]
    return graph.parity.passed and all(map(math.isfinite, device))


def pack(compiled: CompiledVariant, places: Places, file: Path) -> None:
    """Writes a variant whose graphs lie in `places` to `file`, which appears when it is whole."""
    with staging(file.parent.parent) as scratch:
        folder, draft = scratch / "variant", scratch / file.name
        _collect(compiled, places, folder)
        described = _ADAPTER.dump_python(compiled, mode="json", exclude={"record"})
        content = {**described, "recorded": compiled.record is not None, "files": tree_digests(folder)}
        (folder / _DESCRIPTION).write_text(canonical({**content, _CHECKSUM: digest(content)}), encoding="utf-8")
        archive.write_tar(folder, draft)
        place([(draft, file)])


def _collect(compiled: CompiledVariant, places: Places, folder: Path) -> None:
    name = compiled.variant.file
    copy(places.artifact / name, folder / _ARTIFACT / name)
    if (places.cpu / name).is_file():
        copy(places.cpu / name, folder / _CPU / name)
    if compiled.record is not None:
        for kept in _KEPT:
            if (compiled.record / kept).is_file():
                copy(compiled.record / kept, folder / _RECORD / kept)


def unpack(file: Path, key: str, variant: GraphVariant, places: Places) -> CompiledVariant:
    """Puts a variant's graphs into `places`, its record too, and returns its description.

    Raises CompileError in one line when the file is missing, damaged, or of another variant.
    """
    folder = places.artifact.parent / f".variant-{key[:16]}"
    try:
        content = _verified(file, folder)
        record = places.record / variant.slug if content.pop("recorded") else None
        found = _ADAPTER.validate_python({**content, "record": record})
        if found.key != key or canonical(asdict(found.variant)) != canonical(asdict(variant)):
            raise CompileError(
                f"{file} is the variant {found.variant} with the key {found.key}, not {variant} with {key}."
            )
        for part, home in ((_ARTIFACT, places.artifact), (_CPU, places.cpu), (_RECORD, places.record / variant.slug)):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, home, dirs_exist_ok=True)
        return replace(found, variant=variant)
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError(f"{file} is damaged: {type(error).__name__}: {' '.join(str(error).split())}.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _verified(file: Path, folder: Path) -> dict[str, Any]:
    """variant.json's content, after every file was found and has its digest."""
    try:
        archives.extract(file, folder, compressed=False)
        content = dict(json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise CompileError(f"{file} cannot be read: {missing} is not there.") from None
    except (OSError, archives.ArchiveError) as error:
        raise CompileError(f"{file} is damaged: {error}.") from None
    if content.pop(_CHECKSUM) != digest(content):
        raise CompileError(f"{file} is damaged: {_DESCRIPTION} has another checksum than it states.")
    (folder / _DESCRIPTION).unlink()
    found = tree_digests(folder)
    wrong = sorted({*found.items()} ^ {*content.pop("files").items()})
    if wrong:
        raise CompileError(f"{file} is damaged: {wrong[0][0]} is missing, unexpected, or has another sha256.")
    return content
