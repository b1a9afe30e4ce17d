"""Digests of what is built and of the handler code, the same from every checkout path."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from .endpoint import EndpointSpec
from .errors import SpecErrors, fault_of
from .places import INSTALLED, family_file
from .quantities import format_duration
from .weights import INDEX, FileWeights, GraphWeights, HubWeights, RandomWeights, S3Weights, shards

# Rooms of the installed project; code of a user that imports them depends on an installation, not on files of his own.
_ROOMS = ("endpoint_spec", "compile", "inference_code", "cdk", "operations", "embedded_aws")


def build_digest(spec: EndpointSpec) -> str:
    """sha256, in hex, of everything that decides what is built."""
    return digest(build_content(spec))


def build_content(spec: EndpointSpec, weights_sha256: str | None = None) -> dict[str, Any]:
    """Everything that decides what is built. weights_sha256: of a file that was hashed before.

    The model and compile sections with their defaults, the digest of the weights, and the code of the definition: a
    family's file with its parts, or the entry's file with the local modules that it imports.
    """
    model = {
        "family": spec.model.family,
        "variant": spec.model.variant,
        "entry": spec.model.entry,
        "weights": weights_identity(spec, weights_sha256),
        "options": spec.model.options,
    }
    return {"model": model, "compile": compile_section(spec), "code": definition_code(spec)}


def compile_section(spec: EndpointSpec) -> dict[str, Any]:
    """The compile section with its defaults; of sdk, lowering and a target's options only what differs from defaults.

    So a spec without such options keeps its digest when the options become more.
    """
    section: dict[str, Any] = _plain(spec.compile.model_dump(exclude={"sdk", "inf1", "inf2", "lowering"}))
    if spec.compile.sdk is not None:
        section["sdk"] = spec.compile.sdk
    lowering = _lowering(spec)
    if lowering:
        section["lowering"] = lowering
    for target, options in (("inf1", spec.compile.inf1), ("inf2", spec.compile.inf2)):
        given = options.model_dump(exclude_defaults=True) if options is not None else {}
        if given:
            section[target] = _plain(given)
    return section


def _lowering(spec: EndpointSpec) -> dict[str, Any]:
    """Rewrites that are off, in any order; the user's files in theirs, with all code that they need."""
    chosen = spec.compile.lowering
    if chosen is None:
        return {}
    content: dict[str, Any] = {"off": sorted(chosen.off)} if chosen.off else {}
    if chosen.rewrites:
        content |= {"rewrites": list(chosen.rewrites), "code": rewrites_code(spec)}
    return content


def rewrites_code(spec: EndpointSpec) -> dict[str, str]:
    """The files of the user's rewrites and their local modules, relative to the root, each with its sha256."""
    chosen = spec.compile.lowering
    files = (chosen and chosen.rewrites) or ()
    sources = {source for file in files for source in local_sources(spec.root / file, spec.root)}
    return _contents(sorted(sources), spec.root)


def handler_digest(spec: EndpointSpec) -> str:
    """sha256, in hex, of the code that serves: inference_code/ and the user's handler with its local modules."""
    content: dict[str, Any] = {"inference_code": _serving_code(INSTALLED), "handler": None}
    if spec.serve.handler is not None:
        sources = local_sources(spec.root / spec.serve.handler, spec.root)
        content["handler"] = {"file": spec.serve.handler, "code": _contents(sources, spec.root)}
    return digest(content)


def image_files() -> Iterator[Path]:
    """What the native server's image is made of and proven with, relative to the installation, by name."""
    for folder in ("images", "inference_code"):
        for path in sorted((INSTALLED / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                yield path.relative_to(INSTALLED)


@cache
def image_sources() -> str:
    """sha256, in hex, of `image_files`."""
    return digest({path.as_posix(): file_digest(INSTALLED / path) for path in image_files()})


def definition_code(spec: EndpointSpec) -> dict[str, str]:
    """The files that define the model, relative to their root, each with its sha256."""
    if spec.model.family is not None:
        return _contents(family_sources(spec.model.family), INSTALLED)
    if spec.model.entry is None:
        return {}
    file = spec.model.entry.rpartition(":")[0]
    return _contents(local_sources(spec.root / file, spec.root), spec.root)


def weights_identity(spec: EndpointSpec, known: str | None = None) -> dict[str, str | int | None]:
    """What tells one set of weights from another: a seed, a sha256, or an address where no digest is declared.

    Of a graph file it is all that there is of the model.
    """
    weights = spec.model.weights
    if isinstance(weights, RandomWeights):
        return {"seed": weights.seed}
    if isinstance(weights, FileWeights):
        return {"sha256": weights.sha256 or known or weights_digest(spec.root / weights.path), **weights.chosen}
    if isinstance(weights, GraphWeights):
        return {"graph": known or file_digest(spec.root / weights.path)}
    if isinstance(weights, S3Weights):
        return {**({"sha256": weights.sha256} if weights.sha256 else {"s3": weights.uri}), **weights.chosen}
    assert isinstance(weights, HubWeights)  # noqa: S101  (there is no other kind)
    return {"hub": weights.id, "revision": weights.revision}


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex, read in pieces. Raises SpecErrors where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise _unreadable(path, error) from None
    return digest.hexdigest()


def text_digest(path: Path) -> str:
    """sha256 of a file of text, in hex, the same whatever its line ends; of a file that holds a NUL, of its bytes.

    Git may change the line ends of a checkout (core.autocrlf), and Python reads all of them as one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if b"\0" not in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(data).hexdigest()


def weights_digest(path: Path) -> str:
    """sha256 of a weights file; of an index with its files what `sha256sum INDEX FILES... | sha256sum` prints."""
    if not path.name.endswith(INDEX):
        return file_digest(path)
    lines = [f"{file_digest(file)}  {file.name}\n" for file in (path, *shards(path))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _unreadable(file: Path, error: OSError) -> SpecErrors:
    return fault_of(file.name, f"cannot be read: {error.strerror or error}", "Put the file back.")


def local_sources(path: Path, root: Path | None = None) -> tuple[Path, ...]:
    """A Python file and, by reading its imports, every module of its own folder or of `root` that it needs.

    Returned paths are absolute and sorted; packages bring the __init__.py files on the way. Installed packages and the
    rooms of this project are left out. Raises SpecErrors for a file that is not Python, or that lies outside `root`.
    """
    path = path.resolve()
    home = root.resolve() if root is not None else path.parent
    rooms = [INSTALLED / room for room in _ROOMS]
    found = _closure([path], (path.parent, home), lambda file: not any(map(file.is_relative_to, rooms)))
    for file in found:
        if not file.is_relative_to(home):
            raise fault_of(file.name, "lies outside the project root", "Keep the code of the project inside its root.")
    return found


def family_sources(family: str) -> tuple[Path, ...]:
    """The file of a built-in family and the parts of compile/models/ that it needs, absolute and sorted.

    The registry, compile/models/__init__.py, and the rest of compile/ are left out: they do not say what the model is.
    """
    folder = INSTALLED / "compile" / "models"
    keep = {file.resolve() for file in folder.rglob("*.py")} - {(folder / "__init__.py").resolve()}
    return _closure([family_file(family).resolve()], (INSTALLED,), keep.__contains__)


def code_of(roots: Iterable[Path], folders: Iterable[str], left_out: Iterable[str] = ()) -> dict[str, str]:
    """Files of the installed project and all that they import, in these folders of it; path to sha256.

    left_out: folders inside those whose files do not count. Raises SpecErrors for a file that cannot be read.
    """
    inside = [INSTALLED / folder for folder in folders]
    outside = [INSTALLED / folder for folder in left_out]

    def counts(file: Path) -> bool:
        return any(map(file.is_relative_to, inside)) and not any(map(file.is_relative_to, outside))

    return _contents(_closure([root.resolve() for root in roots], (INSTALLED,), counts), INSTALLED)


def _closure(paths: Iterable[Path], bases: tuple[Path, ...], keep: Callable[[Path], bool]) -> tuple[Path, ...]:
    """Files and everything that they import, directly or not, as far as `keep` holds."""
    found: set[Path] = set()
    waiting = [*paths]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [module for module in _imported(file, bases) if keep(module)]
    return tuple(sorted(found))


def _imported(file: Path, bases: tuple[Path, ...]) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes(), filename=file.name)
    except OSError as error:
        raise _unreadable(file, error) from None
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 0) or 0
        problem = f"is not valid Python: {getattr(error, 'msg', error)}"
        raise fault_of(file.name, problem, "Correct it.", line) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name.split("."), bases)
        elif isinstance(node, ast.ImportFrom):
            where, module = bases, (node.module or "").split(".") if node.module else []
            if node.level:
                where = (file.parents[node.level - 1],)
                yield from _packages(file, bases[-1])
            yield from _modules(module, where)
            for alias in node.names:
                yield from _modules([*module, alias.name], where)


def _packages(file: Path, root: Path) -> Iterator[Path]:
    """The __init__.py files of the packages that a file is in: a relative import runs them first."""
    for folder in file.parents:
        if folder == root or not folder.is_relative_to(root) or not (folder / "__init__.py").is_file():
            return
        yield (folder / "__init__.py").resolve()


def _modules(parts: list[str], bases: Iterable[Path]) -> Iterator[Path]:
    """The files that importing a.b.c reads, from the first base that has a; none when no base has it."""
    for base in bases:
        files: list[Path] = []
        for depth in range(1, len(parts) + 1):
            stem = base.joinpath(*parts[:depth])
            here = [file for file in (stem / "__init__.py", stem.with_name(stem.name + ".py")) if file.is_file()]
            files += here[:1]
        if files:
            yield from (file.resolve() for file in files)
            return


def _contents(files: Iterable[Path], root: Path) -> dict[str, str]:
    home = root.resolve()
    return {file.resolve().relative_to(home).as_posix(): text_digest(file) for file in files}


@cache
def _serving_code(installed: Path) -> dict[str, str]:
    """inference_code/ of an installation, read once: the CDK app asks for it for every endpoint."""
    return _contents(sorted((installed / "inference_code").rglob("*.py")), installed)


def _plain(value: Any) -> Any:
    """A value as JSON has it; durations as text."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, the form that is digested. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(content: Any) -> str:
    """sha256, in hex, of a value that JSON has."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()
