"""Does the matrix of a build fit? Predicted weights and activations against core, device, host memory and disk.

All sizes are predictions: the tensors of the traced graph in the precision that they have there. What a compiler
makes of them can be smaller (casts, reuse of buffers) or larger (padding), and only its own build shows it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.analysis import CoverageReport
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphVariant
from compile.errors import CompileError
from endpoint_spec import platforms
from endpoint_spec.rules import worker_processes

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_GIB = 2**30
# The saved graph, the archive with it, its unpacked copy for the sample, and the compiler's own files.
_DISK_FACTOR = 5


@dataclass(frozen=True)
class VariantSize:
    """Predicted bytes of one variant: weights, the largest activation with inputs and outputs, and its work in FLOP.

    host_weights: tables that stay on the host, in front of what is compiled.
    """

    variant: str
    weights: int
    activations: int
    flops: int
    host_weights: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class Demand:
    """One resource: what the matrix needs of it (predicted bytes), what there is, and how the need came about."""

    resource: str
    needed: int
    available: int
    reason: str
    levers: str

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


@dataclass(frozen=True)
class Capacity:
    """The matrix of variants and what it asks of the machine that serves, and of the one that compiles."""

    variants: tuple[VariantSize, ...]
    demands: tuple[Demand, ...]

    @property
    def fits(self) -> bool:
        return all(demand.fits for demand in self.demands)

    def to_json(self) -> dict[str, Any]:
        return {
            "predicted": True,
            "fits": self.fits,
            "variants": [asdict(variant) for variant in self.variants],
            "demands": [{**asdict(demand), "fits": demand.fits} for demand in self.demands],
        }


def footprint(variant: GraphVariant, report: CoverageReport, half: bool = False, host_weights: int = 0) -> VariantSize:
    """The footprint of an analysed graph; `half`: its tensors are float16 (FLOAT32_TO_FLOAT16)."""
    divisor = 2 if half else 1
    activations = report.activation_bytes + sum(tensor.bytes for tensor in (*report.inputs, *report.outputs))
    return VariantSize(str(variant), report.weight_bytes // divisor, activations // divisor, report.flops, host_weights)


def size(analyzed: AnalyzedVariant, spec: EndpointSpec) -> VariantSize:
    """How large a variant will be on the chip and on the host."""
    options, tables = spec.compile.inf1, analyzed.parts.report.tables
    half = options is not None and options.float32_to_float16
    on_host = sum(table.bytes for table in tables if table.choice == "host")
    return footprint(analyzed.variant, analyzed.report, half, on_host)


_FEWER = "fewer buckets, batch sizes or roles"


def capacity(spec: EndpointSpec, variants: Sequence[VariantSize], folder: Path) -> Capacity:
    """What all variants together need on the spec's instance type, and on this machine's disk under `folder`."""
    weights = sum(variant.weights + variant.host_weights for variant in variants)
    disk = Demand(
        "disk of this machine",
        _DISK_FACTOR * weights,
        shutil.disk_usage(folder).free,
        f"{_DISK_FACTOR} times the weights of all graphs: compiler's files, graphs, archive, its unpacked copy",
        f"{_FEWER}; a larger disk; --work-directory",
    )
    row = platforms.platform(spec.serve.instance_type)
    workers = worker_processes(spec, row)
    host = Demand(
        "host memory",
        workers * (platforms.limits().worker_base_mib * 2**20 + 2 * weights),
        int(row.memory_gib * _GIB),
        f"{workers} worker process(es), each with its weights twice while it loads",  # as read, and as tensors
        f"{_FEWER}; more cores_per_worker (fewer workers); server: native (workers share their weights) "
        "with fewer processes; a larger instance_type",
    )
    chip = _on_chip(spec, variants) if row.chips else ()
    return Capacity(tuple(variants), (*chip, host, disk))


def _on_chip(spec: EndpointSpec, variants: Sequence[VariantSize]) -> tuple[Demand, Demand]:
    """A core holds every graph of a copy (a pipeline's cores share it); the device holds all copies."""
    row, pipeline = platforms.platform(spec.serve.instance_type), spec.compile.pipeline_cores
    larger = f"more pipeline_cores than {pipeline} (one copy over several cores)"
    separate = "inf1: {separate_weights: true} above 1.9 GB"
    if spec.compile.target == "inf2":
        larger = "a smaller variant (Inf2 has no pipeline mode)"
        separate = "inf2: {inline_weights_to_neff: false} (weights beside the program)"
    one = sum(variant.weights for variant in variants) + max(variant.activations for variant in variants)
    graphs = f"{len(variants)} graph(s), all loaded, and the largest one's activations"
    copies = row.cores // pipeline
    core = Demand(
        "core",
        one // pipeline,
        int(row.device_memory_gib / row.cores * _GIB),
        f"{graphs}, over {pipeline} core(s) of a copy",
        f"{_FEWER}; {larger}; {separate}",
    )
    device = Demand(
        "device",
        one * copies,
        int(row.device_memory_gib * _GIB),
        f"{copies} copies ({row.cores} cores / {pipeline} a copy) of {graphs}",
        f"{_FEWER}; {larger}; a larger instance_type",
    )
    return core, device


def require_fit(spec: EndpointSpec, variants: Sequence[VariantSize]) -> None:
    """Raises CompileError naming every resource that is too small for all variants together, with the levers."""
    problems = [
        f"{demand.resource}: {shown(demand.needed)} needed (predicted), {shown(demand.available)} there: "
        f"{demand.reason}.\n    levers: {demand.levers}"
        for demand in capacity(spec, variants, spec.root).demands
        if not demand.fits
    ]
    if problems:
        raise CompileError(
            f"{spec.name} does not fit {spec.serve.instance_type}:\n  " + "\n  ".join(problems),
            f"Nothing was compiled. See the whole matrix: inferentia build {spec.name} --plan",
        )


def shown(size: int) -> str:
    """A size for a person."""
    if size >= _GIB:
        return f"{size / _GIB:.2f} GiB"
    return f"{size / 2**20:.1f} MiB"
