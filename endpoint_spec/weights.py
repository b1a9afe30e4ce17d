"""Where a model's weights come from: a seed, a file, S3, or the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from .errors import fault_of
from .quantities import fault

_FORMS = (
    'Write one of "random:0", "hub:org/name", "hub:org/name@revision", "s3://bucket/key", '
    "{s3: s3://bucket/key, sha256: ...} or {file: weights/x.safetensors, sha256: ...}."
)
INDEX = ".index.json"  # of Hugging Face: which of several files has which tensor
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".weights", INDEX)
_LARGEST_INDEX = 64 << 20  # bytes
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_REVISION = re.compile(r"[\w./-]{1,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHOICES = ("key", "prefix")
_LONGEST_LICENSE = 100
_SEED_LIMIT = 2**63  # torch.manual_seed takes a signed 64-bit number


class _Weights(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RandomWeights(_Weights):
    """Weights drawn from a seed: for rehearsals and tests, never a trained model."""

    seed: int

    @property
    def source(self) -> str:
        return f"random:{self.seed}"


class _OneFile(_Weights):
    """A file that may hold more than the model's weights.

    key: under which it has them, where it holds several sets (`ema`). prefix: of the names that are meant (`module.`).
    license: an SPDX identifier or other text; nothing that is built depends on it.
    """

    sha256: str | None = None
    key: str | None = None
    prefix: str | None = None
    license: str | None = None

    @property
    def chosen(self) -> dict[str, str]:
        """What is taken of the file, as the spec has it; empty for all of it."""
        return {name: value for name in _CHOICES if (value := getattr(self, name)) is not None}

    def _with_choice(self, source: str) -> str:
        choice = ", ".join(f"{name} {value}" for name, value in self.chosen.items())
        return f"{source} ({choice})" if choice else source


class FileWeights(_OneFile):
    """A local file of torch.save or safetensors, or an index of such; `path` is relative to the project root."""

    path: str

    @property
    def source(self) -> str:
        return self._with_choice(f"file:{self.path}")


class S3Weights(_OneFile):
    """An object in S3. A build takes it by its sha256 only, and names the missing one."""

    uri: str

    @property
    def source(self) -> str:
        return self._with_choice(self.uri)


class HubWeights(_Weights):
    """A model of the Hugging Face hub, at a revision (commit, tag or branch) or at its default branch."""

    id: str
    revision: str | None = None

    @property
    def source(self) -> str:
        return f"hub:{self.id}" + (f"@{self.revision}" if self.revision else "")


class GraphWeights(_Weights):
    """The weights of a graph file that is the model: it has them itself. `path` is relative to the project root."""

    path: str

    @property
    def source(self) -> str:
        return f"graph:{self.path}"


AnyWeights = RandomWeights | FileWeights | S3Weights | HubWeights | GraphWeights


def parse_weights(value: Any) -> AnyWeights:
    """One of the forms above from text or a mapping. Raises PydanticCustomError naming the forms."""
    if isinstance(value, RandomWeights | FileWeights | S3Weights | HubWeights | GraphWeights):
        return value
    if isinstance(value, dict):
        return _from_mapping(value)
    if not isinstance(value, str):
        raise fault("is not a source of weights", _FORMS)
    scheme, colon, rest = value.partition(":")
    readers: dict[str, Callable[[str], AnyWeights]] = {"random": _random, "hub": _hub, "file": _file, "s3": _s3}
    if not colon or scheme not in readers:
        is_file = value.endswith(SUFFIXES)
        remedy = f"Write {{file: {value}}} for a file of the project." if is_file else _FORMS
        raise fault("is not a source of weights", remedy)
    return readers[scheme](value if scheme == "s3" else rest)


def _from_mapping(value: dict[str, Any]) -> AnyWeights:
    unknown = sorted(map(str, set(value) - {"file", "s3", "sha256", "license", *_CHOICES}))
    if unknown:
        raise fault(
            f"has the unknown key {unknown[0]}", "The keys are file or s3, and sha256, key, prefix and license."
        )
    if ("file" in value) == ("s3" in value):
        both = "names both file and s3" if "file" in value else "names neither file nor s3"
        raise fault(both, "Name exactly one of them, with its sha256.")
    sha256 = value.get("sha256")
    if "sha256" in value and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise fault("has a sha256 that is not 64 hexadecimal digits in lower case", "Write what sha256sum prints.")
    license_ = value.get("license")
    is_text = isinstance(license_, str) and license_.isprintable() and 0 < len(license_) <= _LONGEST_LICENSE
    if "license" in value and not is_text:
        problem = f"has a license that is no text of 1 to {_LONGEST_LICENSE} characters in one line"
        raise fault(problem, "Write its SPDX identifier, such as apache-2.0, or leave it out.")
    kind = "file" if "file" in value else "s3"
    choice = {name: value[name] for name in _CHOICES if name in value}
    for name, text in {kind: value[kind], **choice}.items():
        if not isinstance(text, str) or not text:
            remedy = _FORMS if name == kind else f"Write the {name} as the file has it, or leave it out."
            raise fault(f"has a {name} that is not text", remedy)
    found = _file(value[kind]) if kind == "file" else _s3(value[kind])
    return found.model_copy(update={"sha256": sha256, "license": license_, **choice})


def _random(text: str) -> RandomWeights:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= _SEED_LIMIT:
        raise fault("has no seed that is a whole number", "Write random: and a number, such as random:0.")
    return RandomWeights(seed=int(text))


def _hub(text: str) -> HubWeights:
    name, at, revision = text.partition("@")
    if not _HUB.fullmatch(name):
        raise fault("is not a model of the hub", "Write hub:org/name or hub:org/name@revision.")
    if at and not _REVISION.fullmatch(revision):
        raise fault(
            "has an empty or impossible revision", "Write a commit, tag or branch after the @, or leave it out."
        )
    return HubWeights(id=name, revision=revision or None)


def _file(text: str) -> FileWeights:
    if not text.endswith(SUFFIXES):
        raise fault("is not a weights file that can be read", f"Name a file that ends in {', '.join(SUFFIXES)}.")
    return FileWeights(path=text)


def _s3(text: str) -> S3Weights:
    found = re.fullmatch(r"s3://([^/]+)/(.+)", text)
    if not found or not _BUCKET.fullmatch(found.group(1)) or not found.group(2).isprintable():
        raise fault("is not an S3 address", "Write s3://bucket/key.")
    if not text.endswith(SUFFIXES):
        raise fault("is not a weights file that can be read", f"Name an object that ends in {', '.join(SUFFIXES)}.")
    if text.endswith(INDEX):
        raise fault("is an index of several files", "Fetch them all into the project and write {file: ...} instead.")
    return S3Weights(uri=text)


def written(weights: AnyWeights) -> str | dict[str, str]:
    """Weights as a spec writes them; `parse_weights` reads them back."""
    if isinstance(weights, FileWeights | S3Weights):
        where = {"file": weights.path} if isinstance(weights, FileWeights) else {"s3": weights.uri}
        said = {name: value for name in ("sha256", "license") if (value := getattr(weights, name)) is not None}
        if said or weights.chosen:
            return {**where, **said, **weights.chosen}
    return weights.source


def shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, sorted; they lie beside it. Raises SpecErrors: no such index, a file not there."""
    names = shard_names(index)
    for name in names:
        if not (index.parent / name).is_file():
            raise fault_of(index.name, f"names {name}, which is not there", f"Put {name} beside the index.")
    return tuple(index.parent / name for name in names)


def shard_names(index: Path) -> list[str]:
    """The names in an index, sorted and plain. Raises SpecErrors for a file that is no index."""
    try:
        with index.open("rb") as stream:
            text = stream.read(_LARGEST_INDEX + 1)
        names = sorted({*json.loads(text)["weight_map"].values()}) if len(text) <= _LARGEST_INDEX else []
    except OSError as error:
        raise fault_of(index.name, f"cannot be read: {error.strerror}", "Put the file back.") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        names = []
    if not names:
        raise fault_of(index.name, "has no weight_map that names files", "Get the index again.")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(INDEX) or "\0" in name:
            raise fault_of(index.name, f"names {name!r:.80}, which is no file beside it", "Get the index again.")
    return names


Weights = Annotated[
    AnyWeights,
    BeforeValidator(parse_weights),
    PlainSerializer(written, when_used="json"),
    WithJsonSchema(
        {
            "description": "random:SEED, hub:org/name[@revision], s3://bucket/key, {s3, sha256} or {file, sha256}; "
            "key and prefix of what is meant in a file; license",
            "anyOf": [
                {"type": "string", "pattern": "^(random:[0-9]+|hub:[^/]+/.+|s3://[^/]+/.+|file:.+)$"},
                {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string"},
                        "s3": {"type": "string", "pattern": "^s3://[^/]+/.+$"},
                        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                        "key": {"type": "string", "minLength": 1, "description": "of the file's sets of tensors"},
                        "prefix": {"type": "string", "minLength": 1, "description": "of the names that are meant"},
                        "license": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": _LONGEST_LICENSE,
                            "description": "SPDX identifier or other text, for the graph file's header",
                        },
                    },
                    "oneOf": [{"required": ["file"]}, {"required": ["s3"]}],
                    "additionalProperties": False,
                },
            ],
        }
    ),
]

__all__ = ["AnyWeights", "FileWeights", "GraphWeights", "HubWeights", "RandomWeights", "S3Weights", "Weights"]
