"""From a file to a checked EndpointSpec, or to everything that is wrong with it."""

from __future__ import annotations

import copy
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from . import (
    compiler_rules,  # noqa: F401  (registers its rules)
    job_rules,  # noqa: F401  (registers its rules)
    lowering_rules,  # noqa: F401  (registers its rules)
    strict_yaml,
)
from .endpoint import EndpointSpec
from .errors import ProjectError, SpecError, SpecErrors, dotted, shown
from .rules import findings, weights_match
from .strict_yaml import Document

_MISSING = {
    "name": "Write name: and the file's name without .yaml",
    "model": "Write model: {family: ..., variant: ..., weights: ...}; the files in zoo/ are examples",
    "model.weights": 'Say where the weights come from, such as weights: "random:0" or {file: ..., sha256: ...}',
}
# What stands in for a required key that is missing or wrong, so that the other keys are still checked.
_STAND_INS: dict[str, Any] = {"name": "stand-in", "model": {"weights": "random:0"}, "model.weights": "random:0"}

_KINDS = {
    "string_type": ("is not text", "Write text; quote it if it looks like a number."),
    "int_type": ("is not a whole number", "Write a whole number."),
    "int_from_float": ("is not a whole number", "Write a whole number."),
    "float_type": ("is not a number", "Write a number, without quotes or unit."),
    "finite_number": ("is not a finite number", "Write an ordinary number."),
    "dict_type": ("is not a mapping", "Write keys and values, such as {key: value}."),
    "model_type": ("is not a mapping", "Write its keys below it, or leave it out."),
    "tuple_type": ("is not a list", "Write a list, such as [1, 4]."),
}
_BOUNDS = {
    "greater_than_equal": ("is too small", "Write {ge} or more."),
    "greater_than": ("is too small", "Write a number above {gt}."),
    "less_than_equal": ("is too large", "Write {le} or less."),
    "less_than": ("is too large", "Write a number below {lt}."),
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
    found_by_rules = list(findings(spec, broken))
    if verify_weights and not any(found.key == "model.weights" for found in found_by_rules):
        found_by_rules += weights_match(spec)
    for found in found_by_rules:
        line = document.line(_path_of(found.key))
        value = shown(found.value) if found.value else ""
        document.errors.append(SpecError(document.file, found.key, value, found.problem, found.remedy, line))
    if document.errors:
        raise SpecErrors(sorted(document.errors, key=lambda error: (error.line, error.key)))
    return spec


def load_all(root: Path) -> dict[str, EndpointSpec]:
    """Every endpoints/*.yaml of a project, by name.

    Raises ProjectError where there is no endpoints/; SpecErrors with the faults of all files.
    """
    _endpoints(root)
    specs: dict[str, EndpointSpec] = {}
    errors: list[SpecError] = []
    for path in spec_files(root):
        try:
            spec = load(path, root)
        except SpecErrors as found:
            errors += found.errors
        else:
            specs[spec.name] = spec
    errors += _alike(specs, Path(root))
    if errors:
        raise SpecErrors(errors)
    return specs


def find(name: str, root: Path) -> EndpointSpec:
    """The spec of an endpoint, endpoints/NAME.yaml.

    Raises ProjectError where there is no endpoints/, or no endpoint of that name; SpecErrors where its spec is faulty.
    """
    folder = _endpoints(root)
    there = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in there:  # by name, so that ../zoo/NAME is none
        remedy = f"The endpoints are {', '.join(there) or 'none yet'}; a new one: inferentia new NAME."
        raise ProjectError([SpecError(str(folder), "", "", f"holds no endpoint {name!r}", remedy)])
    return load(folder / f"{name}.yaml", root)


def _endpoints(root: Path) -> Path:
    folder = Path(root) / "endpoints"
    if not folder.is_dir():
        remedy = "Run from the project root, the folder with endpoints/ and app.py, or name it with --root."
        raise ProjectError([SpecError(str(root), "", "", "holds no endpoints/ folder", remedy)])
    return folder


def _alike(specs: dict[str, EndpointSpec], root: Path) -> list[SpecError]:
    """Names that differ in case alone: SageMaker takes the second one for the first when it creates an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
    """
    errors, seen = [], dict[str, str]()
    for name, spec in specs.items():
        other = seen.setdefault(name.lower(), name)
        if other != name:
            problem, remedy = f"differs from {other} in case alone, which SageMaker ignores", "Rename one of them."
            errors.append(SpecError(_file_name(spec.path, root), "name", name, problem, remedy, 1))
    return errors


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
    while True:
        try:
            return EndpointSpec.model_validate(data), broken
        except ValidationError as failure:
            for details in failure.errors(include_url=False):
                error = _error(details, document, EndpointSpec)
                # A key around a faulty one is often refused because of it.
                if not any(key == error.key or key.startswith((error.key + ".", error.key + "[")) for key in broken):
                    document.errors.append(error)
                broken.add(error.key)
                _mend(data, details["loc"])


def problems_of(model: type[BaseModel], document: Document) -> BaseModel | None:
    """A document as another model; its faults are added to the document's, and then there is no model."""
    try:
        return model.model_validate(document.data)
    except ValidationError as failure:
        document.errors += [_error(details, document, model) for details in failure.errors(include_url=False)]
        return None


def _mend(data: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Take the faulty key out of the data; required keys get a stand-in."""
    path: list[str] = []
    holder: Any = data
    for part in location:
        if not isinstance(holder, dict) or not isinstance(part, str):
            break
        path.append(part)
        if part not in holder:
            break
        holder = holder[part]
    *above, key = path
    target = data
    for part in above:
        target = target[part]
    stand_in = _STAND_INS.get(".".join(path))
    target.pop(key, None)
    if stand_in is not None:
        target[key] = copy.deepcopy(stand_in)


def _error(details: ErrorDetails, document: Document, model: type[BaseModel]) -> SpecError:
    path = tuple(part for part in details["loc"] if part != "[key]")
    problem, remedy = _sentences(details, path, model)
    value = "" if details["type"] == "missing" else shown(details["input"])
    if details["type"] == "extra_forbidden":
        value = ""
    return SpecError(document.file, dotted(path), value, problem, remedy, document.line(path))


def _sentences(details: ErrorDetails, path: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "is missing", _MISSING.get(dotted(path), "Write it") + "."
    if kind == "extra_forbidden":
        return "is not a known key", _known_keys(path, model)
    return _of_the_value(kind, context, details)


def _of_the_value(kind: str, context: dict[str, Any], details: ErrorDetails) -> tuple[str, str]:
    if kind == "spec":
        return str(context["problem"]), str(context["remedy"])
    if details["input"] is None and kind in _KINDS:
        return "has no value", "Write one, or leave the key out for its default."
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        return "is not possible here", f"{_meant(str(details['input']), words)}Write one of {', '.join(words)}."
    if kind in _BOUNDS:
        problem, remedy = _BOUNDS[kind]
        return problem, remedy.format(**{name: f"{bound:g}" for name, bound in context.items()})
    if kind in _KINDS:
        return _KINDS[kind]
    return f"is refused: {details['msg']}", "Correct the value."


def _known_keys(path: tuple[int | str, ...], model: type[BaseModel]) -> str:
    *above, key = path
    here = _fields(model, above)
    elsewhere = [
        section for section in (None, *model.model_fields) if key in _fields(model, [section] if section else [])
    ]
    meant = _meant(str(key), list(here))
    if not meant and elsewhere:
        meant = f"It belongs under {elsewhere[0]}. " if elsewhere[0] else "It belongs at the top. "
    return f"{meant}The keys here are {', '.join(here)}."


def _fields(model: type[BaseModel], path: list[Any]) -> list[str]:
    """The keys of the section at `path`; none where that is not a section."""
    current: Any = model
    for part in path:
        field = current.model_fields.get(part)
        candidates = _classes(field.annotation) if field else []
        if not candidates:
            return []
        current = candidates[0]
    return list(current.model_fields)


def _classes(annotation: Any) -> list[type[BaseModel]]:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _meant(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, 1, 0.6)
    return f"Did you mean {near[0]}? " if near else ""


def _path_of(key: str) -> tuple[str | int, ...]:
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", key)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)
