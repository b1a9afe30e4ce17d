"""Compile jobs: where their files lie in the artifact bucket, and the plan that passes between the rooms.

Everybody who writes or reads below jobs/NAME/ takes the keys from here: compile, cdk, operations, embedded_aws.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .digests import canonical, file_digest
from .errors import dotted
from .platforms import Target

JOBS = "jobs/"  # everything of all compile jobs
VARIANT, PLAN, REQUIREMENTS = "variant.tar", "plan.json", "requirements.txt"
# Of a bundle: the unpacked graph file, inputs for runs on a chip, the package that compiles, and its module to run.
GRAPH, TRIALS, CODE, MODULE = "graph", "trials.safetensors", "code", "compile.portable.job"
# Where a job finds its inputs and leaves its outputs: SageMaker's folders, below one prefix.
PREFIX = "/opt/ml"
INPUTS, OUTPUTS = f"{PREFIX}/processing/input", f"{PREFIX}/processing/output"
MESSAGE_FILE = f"{PREFIX}/output/message"

# Full matches, free of what a shell or a path could take for more than a name; good for every language.
SHA256_PATTERN = "[0-9a-f]{64}"
NAME_PATTERN = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
INDEX_PATTERN = "(0|[1-9][0-9]{0,3})"
RUN_PATTERN = f"{NAME_PATTERN}-[0-9a-f]{{12}}-[1-9][0-9]{{0,2}}"  # 80 characters at most, as Step Functions has it
INPUTS_KEY_PATTERN = f"jobs/{NAME_PATTERN}/inputs/{SHA256_PATTERN}/"
KEPT_WHEELS = "wheels/"
WHEELS_KEY_PATTERN = f"jobs/{NAME_PATTERN}/wheels/{SHA256_PATTERN}/"
_MAX_BYTES = 4 * 1024 * 1024

Sha256 = Annotated[str, Field(pattern=f"^{SHA256_PATTERN}$")]


class JobError(ValueError):
    """A plan that is missing, damaged or of another format; str() is one clear line."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantJob(_Part):
    """One graph to compile. key: of the compile cache, over everything that decides what comes out. graph: the digest
    of its nodes, constants and references. request: to compile/portable/driver.py, but for paths."""

    index: int = Field(ge=0, le=9999)
    label: str
    slug: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", description="its folder in the record")
    key: Sha256
    graph: Sha256
    request: dict[str, Any]


class Plan(_Part):
    """plan.json of a bundle: what its jobs compile. files: every other file of the bundle with its sha256."""

    format: Literal[2] = 2
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    build_digest: Sha256
    target: Target
    rehearsal: bool
    where: Literal["processing", "ec2"]
    timeout: float = Field(gt=0, description="seconds that compiling one variant may take")
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


def read_plan(path: Path) -> Plan:
    """plan.json of a bundle. Raises JobError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise JobError(f"{path.name} has more than {_MAX_BYTES} bytes and is none of ours.")
        data: Any = json.loads(path.read_bytes())
        return Plan.model_validate(data)
    except OSError as error:
        raise JobError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{dotted(first['loc'])}: " if first["loc"] else ""
        raise JobError(f"{path.name}: {where}{first['msg'].removeprefix('Value error, ')}.") from None
    except JobError:
        raise
    except (ValueError, RecursionError) as error:
        raise JobError(f"{path.name} is not JSON: {str(error).splitlines()[0]}.") from None


def dump(plan: Plan) -> str:
    """The same plan is the same text: sorted keys, two spaces, a newline at the end."""
    plain = plan.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
    """The bundle: plan.json, the graphs, their trials, and the code that compiles them."""
    return f"jobs/{name}/inputs/{digest}/"


def wheels_prefix(name: str, digest: str) -> str:
    """requirements.txt with hashes, and its wheels."""
    return f"jobs/{name}/wheels/{digest}/"


def kept_wheels_prefix(requirements: str) -> str:
    """A set of wheels that is kept for good, by the text of its requirements.txt, whose hashes say which they are."""
    return f"{KEPT_WHEELS}{hashlib.sha256(requirements.encode()).hexdigest()}/"


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


def record_prefix(name: str, run: str, index: int) -> str:
    """Compiler log and record of a variant, also after a failure."""
    return f"{run_prefix(name, run)}record/{index}/"


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
