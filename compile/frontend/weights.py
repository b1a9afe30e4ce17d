"""Where a model's weights come from, checked and loaded; or drawn from a seed, and said so."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compile.definition import ModelDefinition
from compile.errors import CompileError
from compile.frontend.checkpoint import read_state_dict
from endpoint_spec.digests import file_digest
from endpoint_spec.weights import FileWeights, HubWeights, RandomWeights, S3Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from endpoint_spec import EndpointSpec

_LOG = logging.getLogger(__name__)
_SHOWN = 20


@dataclass(frozen=True)
class WeightsReport:
    """What was loaded: `source` for the lock, its sha256 (None when random), and one sentence for a person."""

    source: str
    sha256: str | None
    statement: str


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights that were found and hashed, once a build. path: of their file; None for random ones."""

    path: Path | None
    report: WeightsReport


@contextmanager
def seeded(spec: EndpointSpec) -> Iterator[None]:
    """torch's global generator set to the spec's seed (0 for weights from a file) inside, as it was outside."""
    weights = spec.model.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed if isinstance(weights, RandomWeights) else 0)
        yield


def fill(spec: EndpointSpec, definition: ModelDefinition, resolved: ResolvedWeights | None = None) -> WeightsReport:
    """Puts the spec's weights into the definition's module; `resolved` where they were resolved before.

    Raises CompileError: file absent or with another digest, unreadable, keys missing or unexpected, shapes that differ.
    """
    started, weights, found = time.perf_counter(), spec.model.weights, resolved or resolve(spec)
    if isinstance(weights, RandomWeights):
        if definition.initialise is not None:
            definition.initialise(definition.weights, torch.Generator().manual_seed(weights.seed))
    elif found.path is not None:
        load(definition, read(found.path), str(found.path))
    _LOG.info("%s Filled in %.3f s.", found.report.statement, time.perf_counter() - started)
    return found.report


def resolve(spec: EndpointSpec) -> ResolvedWeights:
    """Which weights these are, without loading them. Raises CompileError: file absent, or with another digest."""
    weights = spec.model.weights
    if isinstance(weights, RandomWeights):
        said = f"Weights are random (seed {weights.seed}): outputs follow the input, but mean nothing."
        return ResolvedWeights(None, WeightsReport(weights.source, None, said))
    path, started = locate(spec, weights), time.perf_counter()
    digest = file_digest(path)
    _LOG.info("hashed %s, %d bytes, in %.3f s", path, path.stat().st_size, time.perf_counter() - started)
    declared = getattr(weights, "sha256", None)
    if declared is not None and digest != declared:
        raise CompileError(
            f"{spec.path}: model.weights: {path} has sha256 {digest}, the spec says {declared}.",
            "Get the file again, or correct sha256 if this file is the one you mean.",
        )
    said = f"Weights are those of {weights.source}, sha256 {digest[:12]}."
    return ResolvedWeights(path, WeightsReport(weights.source, digest, said))


def locate(spec: EndpointSpec, weights: FileWeights | S3Weights | HubWeights) -> Path:
    """The file on this machine. Raises CompileError where it is absent and cannot be fetched."""
    where, path = f"{spec.path}: model.weights:", carried(spec, weights)
    if isinstance(weights, S3Weights) and weights.sha256 is None:
        raise CompileError(
            f"{where} {weights.uri} has no digest.",
            "Write weights: {s3: s3://bucket/key, sha256: ...}: a build takes no file that it cannot recognise.",
        )
    if path.is_file():
        return path
    if isinstance(weights, S3Weights):
        raise CompileError(
            f"{where} {weights.uri} is not on this machine (looked for build/weights/{weights.sha256}).",
            f"Fetch it with: inferentia fetch-weights {spec.name}",
        )
    if isinstance(weights, FileWeights):
        raise CompileError(f"{where} there is no file {weights.path}.", "Paths are relative to the project.")
    try:
        return Path(hf_hub_download(weights.id, "model.safetensors", revision=weights.revision))
    except Exception as error:  # the client raises its own, its HTTP library's and OSError kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(
            f"{where} hub:{weights.id} could not be fetched: {reason}",
            "Where the hub cannot be reached, download model.safetensors elsewhere and write "
            "weights: {file: weights/model.safetensors, sha256: ...}; or weights: 'random:0' to try the pipeline.",
        ) from error


def carried(spec: EndpointSpec, weights: FileWeights | S3Weights | HubWeights) -> Path:
    """Where a compile job, which has no network, finds the weights in its copy of the project."""
    if isinstance(weights, FileWeights):
        return spec.root / weights.path
    folder = spec.root / "build" / "weights"
    if isinstance(weights, S3Weights):
        return folder / str(weights.sha256)
    return folder / f"{weights.id}@{weights.revision or 'main'}".replace("/", "--") / "model.safetensors"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file, recognised by their first bytes. Nothing is unpickled freely."""
    with path.open("rb") as stream:
        start = stream.read(9)
    if start.startswith(b"PK"):
        return read_state_dict(path)
    if start[8:9] == b"{":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise CompileError(f"The weights {path} are damaged: {error}.", "Get the file again.") from None
    raise CompileError(
        f"The weights {path} are neither safetensors nor a .pth archive of torch 1.6 or newer.",
        "Write them with safetensors.torch.save_file(model.state_dict(), path).",
    )


def load(definition: ModelDefinition, state: dict[str, Tensor], where: str) -> None:
    """Loads a state dict under the definition's names.

    A tied weight may be in the file once. Raises CompileError naming missing and unexpected keys and other shapes.
    """
    module = definition.weights
    if definition.checkpoint_keys is not None:
        state = definition.checkpoint_keys(state)
    own = module.state_dict()
    # Another name of the same (tied) tensor may be in the file instead.
    given = {own[key].data_ptr() for key in state if key in own}
    missing = sorted(key for key in own if key not in state and own[key].data_ptr() not in given)
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model needs {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if state[key].shape != own[key].shape
    ]
    problems = [*_list("missing", missing), *_list("unexpected", unexpected), *_list("of another shape", shapes)]
    if problems:
        raise CompileError(
            f"The weights {where} do not fit the model:\n  " + "\n  ".join(problems),
            "Check model.variant, or map the names with ModelDefinition.checkpoint_keys.",
        )
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def _list(kind: str, entries: list[Any]) -> list[str]:
    if not entries:
        return []
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return [f"{len(entries)} {kind}: {', '.join(map(str, entries[:_SHOWN]))}{more}"]
