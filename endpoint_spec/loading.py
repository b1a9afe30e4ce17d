"""From a file to a checked EndpointSpec, or to everything that is wrong with it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from . import compiler_rules, job_rules, lowering_rules, rules, strict_yaml
from .endpoint import EndpointSpec
from .errors import ProjectError, SpecError, SpecErrors, shown
from .findings import findings
from .strict_yaml import Document
from .validation import error_of

# Every rule that a spec is held to.
RULES = (*rules.RULES, *compiler_rules.RULES, *job_rules.RULES, *lowering_rules.RULES)
# What is reported of a spec that is right.
ADVICE = compiler_rules.ADVICE
# What stands in for a required key that is missing or wrong, so that the other keys are still checked.
_STAND_INS: dict[str, Any] = {
    "name": "stand-in",
    "model": {"weights": "random:0"},
    "model.weights": "random:0",
    "model.graph": "stand-in",  # without it, weights would be missed, too
}


def load(path: Path, root: Path | None = None, *, verify_weights: bool = False) -> EndpointSpec:
    """Read and check one spec. `root` is the project root, by default the parent of the file's folder.

    With `verify_weights` a weights file is read whole and compared with its declared sha256.
    Raises SpecErrors with every fault of the file, in the order of its lines.
    """
    path = Path(path)
    root = Path(root) if root is not None else path.absolute().parent.parent
    document = strict_yaml.read(path, _file_name(path, root))
    spec, broken = _validated(document)
    spec = spec.located(path, root)
    found_by_rules = list(findings(RULES, spec, broken))
    if verify_weights and not any(found.key == "model.weights" for found in found_by_rules):
        found_by_rules += rules.weights_match(spec)
    for found in found_by_rules:
        line = document.line(_path_of(found.key))
        value = shown(found.value) if found.value else ""
        document.errors.append(SpecError(document.file, found.key, value, found.problem, found.remedy, line))
    if document.errors:
        raise SpecErrors(sorted(document.errors, key=lambda error: (error.line, error.key)))
    return spec


def warnings(spec: EndpointSpec) -> list[str]:
    """What a checked spec may ask for although nobody has shown that it works, each with the way out."""
    found = findings(ADVICE, spec, set())
    return [f"{spec.name}: warning: {one.key}: {one.value} {one.problem}. {one.remedy}" for one in found]


def load_all(root: Path) -> dict[str, EndpointSpec]:
    """Every endpoints/*.yaml of a project, by name.

    Raises ProjectError where there is no endpoints/; SpecErrors with the faults of all files.
    """
    specs, faulty = load_each(root)
    if faulty:
        raise SpecErrors([error for found in faulty.values() for error in found.errors])
    return specs


def load_each(root: Path) -> tuple[dict[str, EndpointSpec], dict[Path, SpecErrors]]:
    """Every endpoints/*.yaml of a project: the specs that are right by name, the faults of the others by file.

    Raises ProjectError where there is no endpoints/.
    """
    _endpoints(root)
    specs: dict[str, EndpointSpec] = {}
    faulty: dict[Path, SpecErrors] = {}
    for path in spec_files(root):
        try:
            spec = load(path, root)
        except SpecErrors as found:
            faulty[path] = found
        else:
            specs[spec.name] = spec
    return specs, faulty


def find(name: str, root: Path) -> EndpointSpec:
    """The spec of an endpoint, endpoints/NAME.yaml.

    Raises ProjectError where there is no endpoints/, or no endpoint of that name; SpecErrors where its spec is faulty.
    """
    folder = _endpoints(root)
    there = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in there:  # by name, so that ../zoo/NAME is none
        remedy = f"The endpoints are {', '.join(there) or 'none yet'}; a new one: inferentia new NAME."
        raise ProjectError(
            [SpecError(f"endpoints/{name}.yaml", "", "", f"does not exist: there is no endpoint {name!r}", remedy)]
        )
    return load(folder / f"{name}.yaml", root)


def _endpoints(root: Path) -> Path:
    folder = Path(root) / "endpoints"
    if not folder.is_dir():
        remedy = "Run from the project root, the folder with endpoints/ and app.py, or name it with --root."
        raise ProjectError([SpecError(str(root), "", "", "holds no endpoints/ folder", remedy)])
    return folder


def spec_files(root: Path) -> list[Path]:
    """The spec files of a project, sorted by name; a .yml is among them, so that it is refused and not overlooked."""
    return sorted(file for file in (Path(root) / "endpoints").glob("*") if file.suffix in (".yaml", ".yml"))


def _file_name(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _validated(document: Document) -> tuple[EndpointSpec, set[str]]:
    """A spec in which faulty keys are replaced by defaults, and the dotted keys that were faulty."""
    broken = {error.key for error in document.errors}
    data = copy.deepcopy(document.data)
    if not isinstance(data, dict):
        problem, remedy = "is not a mapping of keys", "Begin with name: and model:; the files in zoo/ are examples."
        raise SpecErrors([*document.errors, SpecError(document.file, "", shown(data), problem, remedy, 1)])
    # pydantic stops at the first level that is wrong, so what is left after each round is checked again.
    while faults := _faults(data):
        for details in faults:
            error = error_of(details, document, EndpointSpec)
            # A key around a faulty one is often refused because of it.
            if not any(key == error.key or key.startswith((error.key + ".", error.key + "[")) for key in broken):
                document.errors.append(error)
            broken.add(error.key)
            _take_out(data, details["loc"])
    return EndpointSpec.model_validate(data), broken


def _faults(data: dict[str, Any]) -> list[ErrorDetails]:
    try:
        EndpointSpec.model_validate(data)
    except ValidationError as failure:
        return failure.errors(include_url=False)
    return []


def _take_out(data: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Take the faulty key, or the innermost key around what is faulty, out of the data; a required one is replaced."""
    keys: list[str] = []
    section = data
    value: Any = data
    for part in location:
        if not isinstance(value, dict) or not isinstance(part, str):
            break
        keys.append(part)
        section, value = value, value.get(part)
    section.pop(keys[-1], None)
    stand_in = _STAND_INS.get(".".join(keys))
    if stand_in is not None:
        section[keys[-1]] = copy.deepcopy(stand_in)


def _path_of(key: str) -> tuple[str | int, ...]:
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", key)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)
