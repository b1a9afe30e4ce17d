"""Where a model's weights come from, checked and loaded; or drawn from a seed, and said so."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compile.definition import ModelDefinition
from compile.errors import CompileError, one_line
from compile.frontend.checkpoint import conversion, read_state_dict
from compile.frontend.darknet import SUFFIX, read_darknet
from endpoint_spec.digests import weights_digest
from endpoint_spec.weights import (
    INDEX,
    FileWeights,
    GraphWeights,
    HubWeights,
    RandomWeights,
    S3Weights,
    shard_names,
    shards,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from endpoint_spec import EndpointSpec

_LOG = logging.getLogger(__name__)
_SHOWN = 20
_HUB_FILE = "model.safetensors"
_COMPILED = "._orig_mod."


@dataclass(frozen=True)
class WeightsReport:
    """What was loaded: `source` for the lock, its sha256 (None when random), and one sentence for a person.

    identity: what tells these weights from others, for cache keys.
    """

    source: str
    sha256: str | None
    statement: str

    @property
    def identity(self) -> str:
        choice = self.source.partition(" (")[1:]
        return self.source if self.sha256 is None else self.sha256 + "".join(choice)


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights that were found and hashed, once a build. path: of their file; None for random ones, and for those of a
    graph file, which the definition has already."""

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
        key, prefix = getattr(weights, "key", None), getattr(weights, "prefix", None)
        load(definition, read(found.path, key), str(found.path), prefix)
    _LOG.info("%s Filled in %.3f s.", found.report.statement, time.perf_counter() - started)
    return found.report


def resolve(spec: EndpointSpec) -> ResolvedWeights:
    """Which weights these are, without loading them. Raises CompileError: file absent, or with another digest."""
    weights = spec.model.weights
    if isinstance(weights, RandomWeights):
        said = f"Weights are random (seed {weights.seed}): outputs follow the input, but mean nothing."
        return ResolvedWeights(None, WeightsReport(weights.source, None, said))
    path, started = locate(spec, weights), time.perf_counter()
    digest = weights_digest(path)
    _LOG.info("hashed %s, %d bytes, in %.3f s", path, path.stat().st_size, time.perf_counter() - started)
    declared = getattr(weights, "sha256", None)
    if declared is not None and digest != declared:
        raise CompileError(
            f"{spec.path}: model.weights: {path} has sha256 {digest}, the spec says {declared}.",
            "Get the file again, or correct sha256 if this file is the one you mean.",
        )
    said = f"Weights are those of {weights.source}, sha256 {digest[:12]}."
    to_load = None if isinstance(weights, GraphWeights) else path
    return ResolvedWeights(to_load, WeightsReport(weights.source, digest, said))


def locate(spec: EndpointSpec, weights: FileWeights | GraphWeights | S3Weights | HubWeights) -> Path:
    """The file on this machine. Raises CompileError where it is absent and cannot be fetched."""
    where, path = f"{spec.path}: model.weights:", place_of(spec, weights)
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
    if isinstance(weights, FileWeights | GraphWeights):
        raise CompileError(f"{where} there is no file {weights.path}.", "Paths are relative to the project.")
    try:
        return _from_hub(weights)
    except Exception as error:  # the client raises its own, its HTTP library's and OSError kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(
            f"{where} hub:{weights.id} could not be fetched: {reason}",
            "Where the hub cannot be reached, download model.safetensors elsewhere and write "
            "weights: {file: weights/model.safetensors, sha256: ...}; or weights: 'random:0' to try the pipeline.",
        ) from error


def _from_hub(weights: HubWeights) -> Path:
    """The model's file in the hub's cache; of a model in several files their index."""
    try:
        return Path(hf_hub_download(weights.id, _HUB_FILE, revision=weights.revision))
    except EntryNotFoundError as error:
        try:
            index = Path(hf_hub_download(weights.id, _HUB_FILE + INDEX, revision=weights.revision))
        except EntryNotFoundError:
            raise error from None
    for name in shard_names(index):
        hf_hub_download(weights.id, name, revision=weights.revision)
    return index


def place_of(spec: EndpointSpec, weights: FileWeights | GraphWeights | S3Weights | HubWeights) -> Path:
    """Where the weights lie in the project, or were put when they were fetched."""
    if isinstance(weights, FileWeights | GraphWeights):
        return spec.root / weights.path
    folder = spec.root / "build" / "weights"
    if isinstance(weights, S3Weights):
        return folder / str(weights.sha256)
    place = folder / f"{weights.id}@{weights.revision or 'main'}".replace("/", "--")
    index = place / (_HUB_FILE + INDEX)
    return index if index.is_file() else place / _HUB_FILE


def read(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file of torch.save, of safetensors, or of the files that an index names. None is executed.

    The kind is recognised by the first bytes. key: under which a file of torch.save has the weights.
    """
    with path.open("rb") as stream:
        start = stream.read(512)
    if path.name.endswith(INDEX) and start.lstrip().startswith(b"{"):
        return {name: tensor for shard in shards(path) for name, tensor in read(shard, key).items()}
    if path.suffix == SUFFIX:
        return read_darknet(path)
    if start.startswith((b"PK", b"\x80")):
        return read_state_dict(path, key)
    if start[8:9] == b"{":
        if key is not None:
            raise CompileError(f"The weights {path} have no key {key}.", "safetensors have none: leave the key out.")
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise CompileError(f"The weights {path} are damaged: {error}.", "Get the file again.") from None
    raise _unknown(path, start)


def _unknown(path: Path, start: bytes) -> CompileError:
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return CompileError(
            f"The weights {path} are a pointer of Git LFS, not the file.",
            f"Fetch it, in the repository that it is from: git lfs pull --include {path.name}",
        )
    if text.startswith((b"<!doctype", b"<html")):
        problem = f"The weights {path} are an HTML page: a download that got a page instead of the file."
        return CompileError(problem, "Get the file itself.")
    if not start:
        return CompileError(f"The weights {path} are an empty file.", "Get the file again.")
    if start[257:262] == b"ustar":
        return CompileError(
            f"The weights {path} are a tar archive, as torch before 0.2 wrote it or of several files.",
            "Unpack it and name the weights file in it. " + conversion(path),
        )
    return CompileError(
        f"The weights {path} are neither safetensors nor a file of torch.save.",
        "Where a program of yours reads them, write them from there with: import safetensors.torch; "
        "safetensors.torch.save_model(model, 'weights.safetensors')",
    )


def load(definition: ModelDefinition, state: dict[str, Tensor], where: str, prefix: str | None = None) -> None:
    """Loads a state dict under the definition's names, as torch's strict load does; a tied weight may be in it once.

    prefix: only names that begin with it are taken, without it. Raises CompileError naming missing and unexpected keys
    and other shapes.
    """
    module, given = definition.weights, state
    own = module.state_dict()
    if prefix is not None:
        given = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        if not given:
            some = ", ".join(list(state)[:3])
            remedy = f"Correct model.weights.prefix; the names are such as {some}."
            raise CompileError(f"The weights {where} have no name that begins with {prefix}.", remedy)
    plain = _without_compiled_parts(given, own, where)
    named = definition.checkpoint_keys(plain) if definition.checkpoint_keys is not None else plain
    try:
        # Modules that read older forms of their own, such as a BatchNorm without its counter, do so in here.
        result = module.load_state_dict(dict(named), strict=False)
        missing, unexpected, shapes = list(result.missing_keys), list(result.unexpected_keys), []
    except RuntimeError as error:
        missing, unexpected = [key for key in own if key not in named], [key for key in named if key not in own]
        shapes = [
            f"{key} is {tuple(named[key].shape)}, the model needs {tuple(own[key].shape)}"
            for key in sorted(set(own) & set(named))
            if named[key].shape != own[key].shape
        ] or [one_line(error)]
    # Another name of the same (tied) tensor may be in the file instead.
    filled = {own[key].data_ptr() for key in named if key in own}
    missing = sorted(key for key in missing if key not in own or own[key].data_ptr() not in filled)
    problems = [*_list("missing", missing), *_list("unexpected", sorted(unexpected))]
    problems += _list("of another shape", shapes)
    if problems:
        raise CompileError(
            f"The weights {where} do not fit the model:\n  " + "\n  ".join(problems), _remedy(given, own, prefix)
        )


def _without_compiled_parts(state: dict[str, Tensor], own: Iterable[str], where: str) -> dict[str, Tensor]:
    """`encoder._orig_mod.weight` as `encoder.weight`; at the beginning of names it is a prefix, which the spec chooses.

    torch.compile(encoder) is a module that keeps the encoder, and its tensors as they are, as its `_orig_mod`:
    https://github.com/pytorch/pytorch/blob/main/torch/_dynamo/eval_frame.py (OptimizedModule). Raises CompileError
    where the state dict has both names.
    """
    if any(_COMPILED in name for name in own):
        return state
    found: dict[str, str] = {}
    for name in state:
        plain = name.replace(_COMPILED, ".")
        if plain in found:
            problem = f"The weights {where} have both {found[plain]} and {name}, which are one name of the model."
            raise CompileError(problem, "Save the state dict again, of the model as it is now.")
        found[plain] = name
    return {plain: state[name] for plain, name in found.items()}


def _remedy(given: dict[str, Tensor], own: dict[str, Tensor], prefix: str | None) -> str:
    """Names the prefixes below which the model's names are in a file; else the usual advice."""
    counts: Counter[str] = Counter()
    for name in given:
        starts = [place + 1 for place, letter in enumerate(name) if letter == "."]
        counts.update(name[:start] for start in starts if name[start:].replace(_COMPILED, ".") in own)
    likely = [start for start, count in counts.most_common(3) if 2 * count >= len(own)]
    if not likely:
        return "Check model.variant, or map the names with ModelDefinition.checkpoint_keys."
    found = ", ".join(f"{start} ({counts[start]} of the model's {len(own)} names)" for start in likely)
    return (
        f"The model's names are in the file below {found}: "
        f"write model.weights: {{file: ..., prefix: {(prefix or '') + likely[0]}}}."
    )


def _list(kind: str, entries: list[Any]) -> list[str]:
    if not entries:
        return []
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return [f"{len(entries)} {kind}: {', '.join(map(str, entries[:_SHOWN]))}{more}"]
