"""Compile jobs: where their files lie in the artifact bucket, and the two small files that pass between the rooms.

Everybody who writes or reads below jobs/NAME/ takes the keys from here: compile, cdk, operations, embedded_aws.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .digests import canonical, file_digest
from .errors import dotted

FORMAT = 1
JOBS = "jobs/"  # everything of all compile jobs
VARIANT = "variant.tar"
ARTIFACT, LOCK, RESULT, PLAN = "model.tar.gz", "lock.json", "result.json", "plan.json"
START, PROJECT, REQUIREMENTS, WEIGHTS = "start.sh", "project.tar.gz", "requirements.txt", "weights"
GATHER = "gather"  # stands where a variant's index stands, for the job that gathers
# Where a job finds its inputs and leaves its outputs: SageMaker's folders, below one prefix.
PREFIX = "/opt/ml"
INPUTS, OUTPUTS = f"{PREFIX}/processing/input", f"{PREFIX}/processing/output"
MESSAGE_FILE = f"{PREFIX}/output/message"

# Full matches, free of what a shell or a path could take for more than a name; good for every language.
SHA256_PATTERN = "[0-9a-f]{64}"
NAME_PATTERN = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
INDEX_PATTERN = "(0|[1-9][0-9]{0,3}|gather)"
RUN_PATTERN = f"{NAME_PATTERN}-[0-9a-f]{{12}}-[1-9][0-9]{{0,2}}"  # 80 characters at most, as Step Functions has it
INPUTS_KEY_PATTERN = f"jobs/{NAME_PATTERN}/inputs/{SHA256_PATTERN}/"
WHEELS_KEY_PATTERN = f"jobs/{NAME_PATTERN}/wheels/{SHA256_PATTERN}/"
MANIFEST_KEY_PATTERN = f"jobs/{NAME_PATTERN}/runs/{RUN_PATTERN}/variants\\.manifest"
_MAX_BYTES = 4 * 1024 * 1024

Sha256 = Annotated[str, Field(pattern=f"^{SHA256_PATTERN}$")]
Index = int | Literal["gather"]


class JobError(ValueError):
    """A plan or a result that is missing, damaged or of another format; str() is one clear line."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantJob(_Part):
    """One graph to compile. key: of the compile cache, over everything that decides what comes out."""

    index: int = Field(ge=0, le=9999)
    role: str
    bucket: dict[str, int | list[int]]
    batch: int = Field(ge=1)
    label: str
    key: Sha256


class Plan(_Part):
    """plan.json of a bundle: what its jobs compile. files: every other file of the bundle with its sha256."""

    format: Literal[1] = 1
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    build_digest: Sha256
    target: Literal["inf1", "inf2"]
    rehearsal: bool
    where: Literal["processing", "ec2"]
    environment: dict[str, str] = Field(default_factory=dict, description="what the variants' keys say of the machine")
    variants: list[VariantJob] = Field(min_length=1)
    files: dict[str, Sha256]

    @model_validator(mode="after")
    def _sound(self) -> Plan:
        if [variant.index for variant in self.variants] != list(range(len(self.variants))):
            raise ValueError("the variants are not numbered 0, 1, 2 ...")
        if len({variant.key for variant in self.variants}) != len(self.variants):
            raise ValueError("two variants have the same key")
        outside = [path for path in self.files if not _inside(path)]
        if outside:
            raise ValueError(f"{outside[0]!r} is no path inside the bundle")
        return self


class ResultArtifact(_Part):
    """model.tar.gz of a run: its digest, its key in the bucket once published, its size."""

    sha256: Sha256
    key: str
    bytes: int = Field(gt=0)


class Result(_Part):
    """result.json: what the gather job made."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    build_digest: Sha256
    artifact: ResultArtifact
    lock_sha256: Sha256
    rehearsal: bool
    stand_in: bool

    @model_validator(mode="after")
    def _sound(self) -> Result:
        if self.artifact.key != f"models/{self.name}/{self.artifact.sha256}/{ARTIFACT}":
            raise ValueError("artifact.key does not name the endpoint and the digest")
        return self


_Read = TypeVar("_Read", bound=_Part)


def read_plan(path: Path) -> Plan:
    """plan.json of a bundle. Raises JobError."""
    return _read(path, Plan)


def read_result(path: Path) -> Result:
    """result.json of a run. Raises JobError."""
    return _read(path, Result)


def dump(part: Plan | Result) -> str:
    """The same plan or result is the same text: sorted keys, two spaces, a newline at the end."""
    plain = part.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path, kind: type[_Read]) -> _Read:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise JobError(f"{path.name} has more than {_MAX_BYTES} bytes and is none of ours.")
        text = path.read_bytes()
    except OSError as error:
        raise JobError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    return _parse(text, kind, path.name)


def _parse(text: str | bytes, kind: type[_Read], name: str) -> _Read:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{name} is not JSON: {str(error).splitlines()[0]}.") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{dotted(first['loc'])}: " if first["loc"] else ""
        raise JobError(f"{name}: {where}{first['msg'].removeprefix('Value error, ')}.") from None


def _inside(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."}.intersection(parts)


def tree_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by path with forward slashes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def files_digest(files: Mapping[str, str]) -> str:
    """One sha256 for a set of files, each with its own: the SHA256 of inputs/ and wheels/ keys."""
    return hashlib.sha256(canonical(dict(files)).encode()).hexdigest()


def base_prefix(name: str) -> str:
    """Everything of an endpoint's compile jobs."""
    return f"{JOBS}{name}/"


def inputs_prefix(name: str, digest: str) -> str:
    """The bundle: start.sh, project.tar.gz, plan.json, weights/."""
    return f"jobs/{name}/inputs/{digest}/"


def wheels_prefix(name: str, digest: str) -> str:
    """requirements.txt with hashes, and its wheels."""
    return f"jobs/{name}/wheels/{digest}/"


def cache_prefix(name: str) -> str:
    """The compile cache of an endpoint."""
    return f"jobs/{name}/cache/"


def variant_key(name: str, key: str) -> str:
    """A compiled variant: one object, so never half there."""
    return f"{cache_prefix(name)}{key}/{VARIANT}"


def runs_prefix(name: str) -> str:
    """Everything of an endpoint's runs."""
    return f"{base_prefix(name)}runs/"


def run_prefix(name: str, run: str) -> str:
    """Everything of one run."""
    return f"{runs_prefix(name)}{run}/"


def variants_manifest_key(name: str, run: str) -> str:
    """SageMaker's manifest of the variants that a run gathers."""
    return f"{run_prefix(name, run)}variants.manifest"


def record_prefix(name: str, run: str, index: Index) -> str:
    """Compiler log and work directory of a variant, also after a failure; or of the gathering."""
    return f"{run_prefix(name, run)}record/{index}/"


def output_prefix(name: str, run: str) -> str:
    """What gather made: model.tar.gz, lock.json, result.json."""
    return f"{run_prefix(name, run)}output/"


def variants_manifest(bucket: str, name: str, keys: Iterable[str]) -> str:
    """The text of variants.manifest: a prefix and the objects below it, in the plan's order."""
    entries: list[Any] = [{"prefix": f"s3://{bucket}/{cache_prefix(name)}"}]
    return json.dumps([*entries, *(f"{key}/{VARIANT}" for key in keys)])


def run_stem(name: str, build_digest: str) -> str:
    """What the runs of one build have in common; each adds a number."""
    return f"{name}-{build_digest[:12]}-"


def run_name(name: str, build_digest: str, number: int) -> str:
    """NAME-<first 12 of the build digest>-<number>: a run, and the execution's name. Raises JobError beyond 999."""
    run = f"{run_stem(name, build_digest)}{number}"
    if not re.fullmatch(RUN_PATTERN, run):
        raise JobError(f"{run} is no name of a run: a build has at most 999 of them. Change the spec, or its files.")
    return run


def is_full(pattern: str, text: str) -> bool:
    """Whether a text is one of the patterns' and nothing more."""
    return re.fullmatch(pattern, text) is not None
