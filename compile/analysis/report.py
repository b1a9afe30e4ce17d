"""What an analysis found, as plain data: the JSON, the terminal and the HTML page are all made from this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
INF2_COVERAGE = "unknown: no public operator table"


@dataclass(frozen=True)
class Finding:
    """Something in a model that a trace cannot keep, or that no Neuron compiler takes; see compile.analysis.preflight.

    kind: a word for it. where: the module's path or the source line. problem: a sentence. remedy: the way out.
    """

    kind: str
    where: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.kind}{f', {self.where}' if self.where else ''}: {self.problem}"


@dataclass(frozen=True)
class Place:
    """Where in the model an operator stands: module path, source line, how often."""

    module: str
    source: str
    count: int


@dataclass(frozen=True)
class OperatorCount:
    """One operator kind of the model. `reason` and `advice` are empty when every node of the kind is supported."""

    count: int
    supported_count: int
    supported_by_name: bool
    since: str
    reason: str = ""
    advice: str = ""
    places: tuple[Place, ...] = ()

    @property
    def refused(self) -> int:
        return self.count - self.supported_count

    @property
    def supported(self) -> bool:
        return self.supported_count == self.count


@dataclass(frozen=True)
class Tensor:
    """A tensor that crosses between host and device. Size in bytes; shape None where the trace does not know it."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Roofline:
    """An estimate of the least time on one core, in milliseconds, and what sets it."""

    compute_ms: float
    weights_ms: float
    transfer_ms: float
    bound: str
    assumes: str
    estimate: bool = True

    @property
    def least_ms(self) -> float:
        return max(self.compute_ms, self.weights_ms, self.transfer_ms)


@dataclass(frozen=True)
class Subgraph:
    """One candidate subgraph. `inputs` and `outputs` cross between host and device on every call."""

    nodes: int
    compiled: bool
    operators: Mapping[str, int]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    bytes_in: int
    bytes_out: int
    weight_bytes: int
    flops: int
    roofline: Roofline | None = None


@dataclass(frozen=True)
class Stage:
    """What runs between two changes of device, in order: on the device or on the host, how many nodes and how much."""

    level: int
    device: bool
    nodes: int
    flops: int


@dataclass(frozen=True)
class Partition:
    """A predicted partition. `subgraphs` counts those that would be compiled, `candidates` all that were found."""

    compiled: int
    percent: float
    subgraphs: int
    candidates: int
    flops_device: int
    flops_host: int
    host_reasons: Mapping[str, int]
    details: tuple[Subgraph, ...] = ()
    stages: tuple[Stage, ...] = ()
    unsafe: tuple[str, ...] = ()

    @property
    def host_share(self) -> float:
        """Share of the work, in percent, that stays on the host."""
        total = self.flops_device + self.flops_host
        return 100.0 * self.flops_host / total if total else 0.0


@dataclass(frozen=True)
class ModuleLoad:
    """Nodes and work of one module (its own, without its submodules) by device, in the safe partition."""

    device: int
    host: int
    flops_device: int
    flops_host: int


@dataclass(frozen=True)
class CoverageReport:
    """The analysis of one traced graph.

    `supported`, `percent` and the partitions are None for a target without a public operator table (Inf2).
    """

    name: str
    target: str
    release: str
    environment: Mapping[str, Any]
    total: int
    total_with_primitives: int
    supported: int | None
    supported_by_name: int | None
    operators: Mapping[str, OperatorCount]
    control_flow: Mapping[str, int]
    as_logged: Partition | None
    safe: Partition | None
    flops: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weight_bytes: int
    activation_bytes: int
    modules: Mapping[str, ModuleLoad]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    trace_seconds: float
    analysis_seconds: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def percent(self) -> float | None:
        """Supported nodes in percent of all, as torch-neuron rounds it."""
        return None if self.supported is None else percent(self.supported, self.total)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able data; field names are part of the contract of `compile analyze --json`."""
        found = asdict(self)
        for kind, one in self.operators.items():
            found["operators"][kind]["supported"] = one.supported
        return {
            "format": FORMAT,
            **{name: found[name] for name in _IN_JSON},
            "percent": self.percent,
            "coverage": INF2_COVERAGE if self.supported is None else "operator table",
            "partition": {"predicted": True, "safe": _plan_json(self.safe), "as_logged": _plan_json(self.as_logged)},
            "flops": {"total": self.flops, "host": self.safe.flops_host if self.safe else None},
            "memory": {"weight_bytes": self.weight_bytes, "largest_activation_bytes": self.activation_bytes},
            "seconds": {"trace": round(self.trace_seconds, 4), "analysis": round(self.analysis_seconds, 4)},
            **self.extra,
        }


# Fields whose form in the JSON is their own.
_IN_JSON = (
    *("name", "target", "release", "environment", "total", "total_with_primitives", "supported", "supported_by_name"),
    *("operators", "control_flow", "inputs", "outputs", "modules", "notes", "findings"),
)


def percent(part: int, whole: int) -> float:
    """As torch-neuron rounds it."""
    return round(100.0 * part / whole, 2) if whole else 0.0


def _plan_json(plan: Partition | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    found = asdict(plan)
    device, host = found.pop("flops_device"), found.pop("flops_host")
    return {"predicted": True, **found, "flops": {"total": device + host, "device": device, "host": host}}
