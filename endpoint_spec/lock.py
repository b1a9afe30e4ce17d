"""The lock: what was proven of a build. Written by compile alone, read by everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import digests
from .endpoint import EndpointSpec
from .errors import SpecErrors, dotted
from .platforms import Target, platform
from .rules import memory_problem

FORMAT = 1
_KEY = re.compile(r"models/([^/]+)/([0-9a-f]{64})/model\.tar\.gz")
_MAX_BYTES = 16 * 1024 * 1024

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LockError(ValueError):
    """A lock file that is missing, damaged or of another format; str() is one clear line."""


class _Part(BaseModel):
    # Finite numbers only: NaN is not JSON, and a parity of NaN proves nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Digests(_Part):
    """sha256 of what is built, of the code that serves, and of model.tar.gz."""

    build: Sha256
    handler: Sha256
    artifact: Sha256


class Artifact(_Part):
    """A built model.tar.gz: its key in the artifact bucket and its size."""

    key: str = Field(pattern=_KEY.pattern)
    bytes: int = Field(gt=0)

    @property
    def sha256(self) -> str:
        """The digest that the key carries."""
        found = _KEY.fullmatch(self.key)
        assert found is not None  # noqa: S101  (the field's pattern)
        return found.group(2)


class Task(_Part):
    """The task that the handler serves, with its settings."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class LockedWeights(_Part):
    """Where the weights came from, and their sha256 where they are a file."""

    source: str
    sha256: Sha256 | None = None


class TensorLock(_Part):
    """One input or output of a graph; dtype as torch names it (float32). item_axis counts the items of a batch."""

    name: str
    shape: list[int]
    dtype: str
    item_axis: int | None = Field(default=0, ge=0)


class Coverage(_Part):
    """Operators of a graph that the target's compiler supports. `predicted` is false only for a compiler's own log."""

    model_config = ConfigDict(extra="allow")

    total: int = Field(ge=0)
    supported: int = Field(ge=0)
    percent: float = Field(ge=0, le=100)
    predicted: bool


class Subgraphs(_Part):
    """How many pieces a graph is compiled in."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    count: int = Field(ge=0)
    predicted: bool


class LockedVariant(_Part):
    """One traced graph: a role of the definition in one bucket and batch size."""

    role: str
    bucket: dict[str, int | list[int]] = Field(default_factory=dict)
    batch_size: int = Field(ge=1)
    file: str
    inputs: list[TensorLock]
    outputs: list[TensorLock]
    unused_inputs: list[str] = Field(default_factory=list)
    coverage: Coverage | None = None
    subgraphs: Subgraphs | None = None


class Parity(_Part):
    """Artifact against the original model: largest error, what was allowed, and the output's absolute maximum."""

    inputs: int = Field(ge=1)
    error: float = Field(ge=0)
    bound: float = Field(ge=0)
    maximum: float = Field(ge=0)
    details: dict[str, Any] = Field(default_factory=dict)


class SampleRequest(_Part):
    """A known request; body is base64, and so is another body of the same kind to send beside it."""

    content_type: str
    accept: str
    body: str
    neighbour: str | None = None


class SampleAnswer(_Part):
    """What the artifact answers to it: values at flat positions of a tensor, or JSON."""

    content_type: str
    shape: list[int] | None = None
    dtype: str | None = None
    positions: list[int] | None = None
    values: list[float] | None = None
    json_value: Any | None = Field(default=None, alias="json")
    tolerance: float = Field(ge=0)

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Sample(_Part):
    """One request and its answer, by which a deployed endpoint is compared with the build."""

    request: SampleRequest
    answer: SampleAnswer


class Lock(_Part):
    """endpoints/NAME.lock.json."""

    format: Literal[1] = 1
    name: str
    rehearsal: bool
    stand_in: bool = False
    target: Target
    digests: Digests
    artifact: Artifact
    manifest_sha256: Sha256 = Field(description="of the artifact's manifest.json, which has those of its other files")
    previous: Artifact | None = None
    versions: dict[str, str]
    task: Task
    weights: LockedWeights
    graphs: list[LockedVariant] = Field(min_length=1)
    parity: Parity
    sample: Sample | None = None
    image_sources: Sha256 | None = Field(default=None, description="of a rehearsal: in place of an image, what it runs")
    measured: dict[str, Any] | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU runs the graphs: of the target cpu, or of a rehearsal of another."""
        return self.rehearsal or self.target == "cpu"

    def dump(self) -> str:
        """Canonical JSON: sorted keys, two spaces, a newline at the end; the same lock is the same text."""
        plain = self.model_dump(mode="json", by_alias=True)
        return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_lock(path: Path) -> Lock:
    """Read a lock. Raises LockError in one line: not there, not JSON, another format, or a field that does not fit."""
    help_ = "Build again: inferentia build NAME."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LockError(f"{path.name} has more than {_MAX_BYTES} bytes and is no lock. {help_}")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise LockError(f"{path.name} cannot be read: {error.strerror or error}. {help_}") from None
    except (ValueError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise LockError(f"{path.name} is not a lock: {reason}. {help_}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise LockError(f"{path.name} has the lock format {found!r}, but this version reads {FORMAT}. {help_}")
    try:
        lock = Lock.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise LockError(f"{path.name}: {dotted(first['loc'])}: {first['msg']}. {help_}") from None
    if lock.artifact.key != artifact_key(lock.name, lock.digests.artifact):
        raise LockError(f"{path.name}: artifact.key does not name {lock.name} and its digest. {help_}")
    return lock


def load_checked(spec: EndpointSpec, rehearsal: bool = False) -> tuple[Lock | None, list[str]]:
    """The spec's lock, and why the spec must not be deployed with it: see `check`.

    The lock is None where it is missing or unreadable, or where weights or code that the spec names cannot be read:
    then the problems say so.
    """
    path = lock_path(spec, rehearsal)
    try:
        lock = read_lock(path) if path.exists() else None
        return lock, check(spec, lock, rehearsal)
    except (LockError, SpecErrors) as error:
        return None, [str(error)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def artifact_key(name: str, sha256: str) -> str:
    """The key of an artifact in the bucket: content-addressed, never overwritten."""
    return f"models/{name}/{sha256}/model.tar.gz"


def lock_path(spec: EndpointSpec, rehearsal: bool = False) -> Path:
    """endpoints/NAME.lock.json, or build/rehearsal/NAME.lock.json."""
    folder = spec.root / "build" / "rehearsal" if rehearsal else spec.root / "endpoints"
    return folder / f"{spec.name}.lock.json"


def left_over(root: Path, rehearsal: bool = False) -> list[str]:
    """Names of locks without a spec: it was removed or renamed, and what was deployed by it may still be there."""
    folder = root / "build" / "rehearsal" if rehearsal else root / "endpoints"
    names = sorted(path.name.removesuffix(".lock.json") for path in folder.glob("*.lock.json"))
    return [
        name for name in names if not any((root / "endpoints" / f"{name}{end}").exists() for end in (".yaml", ".yml"))
    ]


def removal(name: str, root: Path, stacks: Sequence[str] = ()) -> str:
    """The commands that remove what is left of an endpoint without a spec; `cdk destroy` knows its stacks no more.

    stacks: those that are there; without any that of its endpoint.
    """
    chosen = stacks or [f"InferentiaEndpoint-{name}"]
    commands = [f"aws cloudformation delete-stack --stack-name {stack}" for stack in chosen]
    if (root / "endpoints" / f"{name}.lock.json").exists():
        commands.append(f"git rm endpoints/{name}.lock.json")
    return "; ".join(commands)


def artifact_path(spec: EndpointSpec, rehearsal: bool = False) -> Path:
    """build/artifacts/NAME/model.tar.gz, or build/rehearsal/NAME/model.tar.gz."""
    return spec.root / "build" / ("rehearsal" if rehearsal else "artifacts") / spec.name / "model.tar.gz"


def check(spec: EndpointSpec, lock: Lock | None, rehearsal: bool = False) -> list[str]:
    """Why a spec must not be deployed with a lock (None: there is none), each with the command that helps.

    `rehearsal` is true where a rehearsal's lock is wanted; elsewhere one is refused. An empty list: they fit.
    """
    name = spec.name
    build = f"inferentia build {name}" + (" --rehearse" if rehearsal else "")
    if lock is None:
        where = "build/rehearsal" if rehearsal else "endpoints"
        return [f"{where}/{name}.lock.json is missing: nothing was built for {name}. Run: {build}"]
    if lock.name != name:
        return [f"The lock is of {lock.name}, not of {name}. Run: {build}"]
    problems = []
    if (lock.rehearsal or lock.stand_in) and not rehearsal:
        what = "a rehearsal" if lock.rehearsal else "made with a stand-in for the Neuron SDK"
        problems.append(f"The lock of {name} is {what} and must not be deployed to AWS. Run: {build}")
    wanted = digests.build_digest(spec)
    if wanted != lock.digests.build:
        problems.append(
            f"The lock of {name} is stale: the model or compile section, the weights or the definition's code changed "
            f"after the build (built {lock.digests.build[:12]}, wanted {wanted[:12]}). Run: {build}"
        )
        return problems
    code = digests.handler_digest(spec)
    if code != lock.digests.handler:
        package = build.replace(" build ", " package ")
        problems.append(
            f"The handler code of {name} changed after it was packaged "
            f"(packaged {lock.digests.handler[:12]}, wanted {code[:12]}). Run: {package}"
        )
    elif rehearsal and lock.image_sources not in (None, digests.image_sources()):
        problems.append(f"images/ changed after the rehearsal of {name} was built. Run: {build}")
    # The spec alone cannot know the artifact's size.
    found = memory_problem(spec, platform(spec.serve.instance_type), lock.artifact.bytes)
    if found:
        text = f"{found.key}: {found.value} {found.problem}. {found.remedy}"
        problems.append(f"endpoints/{spec.path.name}: {text}")
    return problems + ([] if rehearsal else _measurement_problems(spec, lock))


def _measurement_problems(spec: EndpointSpec, lock: Lock) -> list[str]:
    """Figures that the spec derives something from must be there, and of this artifact on this instance type."""
    if not spec.scale.measured:
        return []
    found, kind = lock.measured, spec.serve.instance_type
    help_ = f"Run on an {kind.removeprefix('ml.')} instance: inferentia measure {spec.name}; or write target_value."
    if found is None:
        problem = "the lock has no measured figures"
    elif found.get("artifact") != lock.digests.artifact:
        problem = "the figures in the lock are of another artifact"
    elif (found.get("machine") or {}).get("instance_type") != kind:
        problem = "the figures in the lock are of another instance type"
    else:
        return []
    return [f"endpoints/{spec.path.name}: scale.measured: {problem}. {help_}"]
