"""Loads the graphs of an artifact, after checking that this machine is the one that they were made for."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import math
import queue
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference_code.artifact.manifest import (
    FILE_NAME,
    ArtifactManifest,
    ManifestError,
    PackagedVariant,
    file_sha256,
    read,
    restore,
    verify_files,
)
from inference_code.errors import Internal, LoadError
from inference_code.execution.batching import Scheduler
from inference_code.execution.direct_scheduler import DirectScheduler
from inference_code.memory import machine_bytes
from inference_code.request import Array
from inference_code.settings import Settings

_log = logging.getLogger(__name__)

# The extension that registers the target's operators; it must be there before torch.jit.load.
_EXTENSIONS = {"inf1": ("torch_neuron", "torch-neuron"), "inf2": ("torch_neuronx", "torch-neuronx")}

Copy = dict[str, Any]  # graph file to its loaded ScriptModule


class Model:
    """The loaded graphs, in as many copies as there are cores for; `scheduler` is the way to them.

    Calling the model with tensors (batch axis, compiled shapes) runs the graph that fits, for handlers that bring
    SageMaker's predict_fn.
    """

    def __init__(self, manifest: ArtifactManifest, copies: list[Copy], max_concurrency: int) -> None:
        self.manifest = manifest
        self.scheduler: Scheduler = DirectScheduler(manifest.graphs, self.run)
        self.max_concurrency = max_concurrency
        self.warm_up_seconds: list[float] = []  # of each graph, on the first copy
        self._copies = copies
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for core in range(max_concurrency):
            self._free.put(core)

    def run(self, graph: PackagedVariant, arrays: list[Array]) -> list[Array]:
        """Run `graph` on one batch, as soon as a copy is free. Raises Internal if the device fails."""
        core = self._free.get()
        try:
            return self.run_on(core, graph, arrays)
        finally:
            self._free.put(core)

    def run_on(self, core: int, graph: PackagedVariant, arrays: list[Array]) -> list[Array]:
        """Run `graph` on one batch on copy `core` (0 to max_concurrency - 1), which nothing else uses now.

        Raises Internal.
        """
        copy = self._copies[core % len(self._copies)]  # a CPU's graphs can run on several threads, so copies may repeat
        try:
            return _call(copy[graph.file], graph, arrays)
        except RuntimeError as error:
            _log.exception("graph %s failed", graph.file)
            raise Internal(f"the graph {graph.file} failed: {_one_line(error)[:200]}") from None

    def warm_up(self) -> None:
        """Every graph of every copy answers once, for zeros. Raises LoadError for a failure or a misfit."""
        seconds = []
        for copy in self._copies:
            for graph in self.manifest.graphs:
                started = time.perf_counter()
                try:
                    _call(copy[graph.file], graph, zeros(graph))
                except (RuntimeError, TypeError, Internal) as error:
                    raise LoadError(f"graph {graph.file} did not answer its warm-up: {_one_line(error)}") from error
                seconds.append(time.perf_counter() - started)
        self.warm_up_seconds = seconds[: len(self.manifest.graphs)]

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """The restored outputs (tensors) of the graph whose input shapes are these. Raises ValueError if none is."""
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        for graph in self.manifest.graphs:
            if shapes == tuple(tensor.shape for tensor in graph.inputs):
                arrays = [
                    tensor.detach().cpu().numpy().astype(description.dtype, copy=False)
                    for tensor, description in zip(tensors, graph.inputs, strict=True)
                ]
                return restore(graph.structure, [torch.from_numpy(array) for array in self.run(graph, arrays)])
        known = " or ".join(str([list(t.shape) for t in graph.inputs]) for graph in self.manifest.graphs)
        raise ValueError(f"no graph takes tensors of shapes {[list(shape) for shape in shapes]}; there are {known}")


def _call(module: Any, graph: PackagedVariant, arrays: list[Array]) -> list[Array]:
    with torch.no_grad():
        found = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    leaves = [found] if isinstance(found, torch.Tensor) else list(found)
    outputs: list[Array] = [leaf.cpu().numpy() for leaf in leaves]
    shapes = [(output.shape, output.dtype.name) for output in outputs]
    expected = [(tensor.shape, tensor.dtype) for tensor in graph.outputs]
    if shapes != expected:
        raise Internal(f"graph {graph.file} returned {shapes}, the manifest says {expected}")
    return outputs


def zeros(graph: PackagedVariant) -> list[Array]:
    """Inputs of zeros for one compiled batch."""
    return [np.zeros(tensor.shape, tensor.dtype) for tensor in graph.inputs]


def _one_line(error: BaseException) -> str:
    """The last line of torch's message says the reason; the ones above are its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def open_artifact(model_dir: Path, settings: Settings) -> ArtifactManifest:
    """Read the manifest and check it: its own sha256 and every file's, versions, cores. Raises LoadError.

    This is code of the artifact, so it finds an accident, not an artifact that somebody replaced with its code.
    """
    try:
        manifest = read(model_dir)
        _check_digest(model_dir, settings)
        verify_files(manifest, model_dir)
    except ManifestError as error:
        raise LoadError(str(error)) from None
    check_versions(manifest)
    check_sizes(manifest)
    check_cores(manifest, settings)
    return manifest


def _check_digest(model_dir: Path, settings: Settings) -> None:
    expected, found = settings.manifest_sha256, file_sha256(Path(model_dir) / FILE_NAME)
    if expected not in (None, found):
        raise LoadError(
            f"{FILE_NAME} has the sha256 {found}, the endpoint was deployed with a lock that says {expected}: "
            "another artifact lies under its key"
        )


def check_sizes(manifest: ArtifactManifest) -> None:
    """Raise LoadError for a tensor that no memory of this machine holds."""
    most = machine_bytes()
    for graph in manifest.graphs:
        for tensor in (*graph.inputs, *graph.outputs):
            size = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
            if size > most:
                raise LoadError(
                    f"{tensor.name} of {graph.file} has shape {list(tensor.shape)}, {size} bytes; "
                    f"this machine has {most} bytes of memory"
                )


def load(model_dir: Path, manifest: ArtifactManifest, settings: Settings) -> Model:
    """Load every graph of an artifact that `open_artifact` has checked, and warm it up. Raises LoadError."""
    extension = import_extension(manifest)
    if not manifest.on_cpu:
        max_concurrency = count = (settings.neuron_cores or manifest.cores_per_copy) // manifest.cores_per_copy
    else:
        count, max_concurrency = 1, min(settings.workers, settings.host_threads)
    model = Model(
        manifest, [_load_copy(model_dir, manifest, extension, core) for core in range(count)], max_concurrency
    )
    model.warm_up()
    return model


def _load_copy(model_dir: Path, manifest: ArtifactManifest, extension: Any, core: int) -> Copy:
    copy: Copy = {}
    for graph in manifest.graphs:
        try:
            copy[graph.file] = torch.jit.load(str(model_dir / graph.file)).eval()  # type: ignore[no-untyped-call]
            if manifest.separate_weights and not manifest.on_cpu:
                # Traced with inline_weights_to_neff=False: loading alone leaves the weights in the host's memory.
                # Neuron documentation, torch_neuronx, move_trace_to_device.
                extension.move_trace_to_device(copy[graph.file], core)
        except (RuntimeError, ValueError, OSError, AttributeError) as error:
            raise LoadError(f"graph {graph.file} cannot be loaded: {_one_line(error)}") from error
    return copy


def check_versions(manifest: ArtifactManifest) -> None:
    """Compare torch, and the extension of a chip's target. Raises LoadError with both values.

    Local labels (+cpu) do not count for torch: the CPU and the CUDA build of one release read the same TorchScript.
    """
    _compare("torch", manifest.versions["torch"].split("+")[0], str(torch.__version__).split("+")[0])
    if manifest.on_cpu:
        return
    package = _EXTENSIONS[manifest.target][1]
    if package not in manifest.versions:
        raise LoadError(f"the artifact is compiled for {manifest.target}, but its manifest has no version of {package}")
    _compare(package, manifest.versions[package], _extension_version(manifest.target))


def _compare(package: str, made_with: str, found: str) -> None:
    if made_with != found:
        raise LoadError(
            f"the artifact was made with {package} {made_with}, this machine has {found}; "
            "build it again with this version, or use the container that matches"
        )


def import_extension(manifest: ArtifactManifest) -> Any:
    """Import the target's extension (a CPU has none). Raises LoadError if it is not there."""
    if manifest.on_cpu:
        return None
    module, package = _EXTENSIONS[manifest.target]
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise LoadError(
            f"the artifact is compiled for {manifest.target}, and {package} cannot be imported: {_one_line(error)}"
        ) from error


def _extension_version(target: str) -> str:
    module, package = _EXTENSIONS[target]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass  # installed without metadata: the module itself must say
    try:
        return str(importlib.import_module(module).__version__)
    except (ImportError, OSError, AttributeError):
        return "none"


def check_cores(manifest: ArtifactManifest, settings: Settings) -> None:
    """A copy must find its NeuronCores in this process. Raises LoadError with both values."""
    planned: Mapping[str, int | None] = {
        "ENDPOINT_CORES_PER_WORKER": settings.cores_per_worker,
        # A CPU has no NeuronCore, whatever the environment was copied from.
        "NEURON_RT_NUM_CORES": None if manifest.on_cpu else settings.neuron_cores,
    }
    for name, cores in planned.items():
        if cores is not None and (cores < manifest.cores_per_copy or cores % manifest.cores_per_copy):
            raise LoadError(
                f"the artifact takes {manifest.cores_per_copy} cores a copy, {name} is {cores}; "
                f"it must be {manifest.cores_per_copy} or a multiple of it"
            )
