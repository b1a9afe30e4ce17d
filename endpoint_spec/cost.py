"""What a month of an endpoint costs before it is deployed: what is known of it, and what nobody can know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .custom_metrics import custom_metrics
from .endpoint import EndpointSpec
from .lock import Lock
from .platforms import Price, ServicePrice, price, service_price

HOURS = 730  # of a month, 365 days x 24 hours / 12
# Metrics that the alarms of an endpoint's stack read; each is billed, also in metric math. Tests count the template's.
ALARM_METRICS = 6
# Alarms of target tracking, which Application Auto Scaling makes and names itself.
# https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking.html
SCALING_ALARMS = "alarms that Application Auto Scaling makes for its policy: their number is not documented"


@dataclass(frozen=True)
class Line:
    """One part of a month: US dollars at the smallest and largest number of instances; None is unknown, not free."""

    what: str
    minimum: float | None
    maximum: float | None
    how: str


@dataclass(frozen=True)
class Month:
    """A month in lines. minimum, maximum: what is known of it in US dollars; unknown: what comes on top of that."""

    lines: tuple[Line, ...]

    @property
    def minimum(self) -> float:
        return round(sum(line.minimum or 0.0 for line in self.lines), 2)

    @property
    def maximum(self) -> float:
        return round(sum(line.maximum or 0.0 for line in self.lines), 2)

    @property
    def unknown(self) -> list[str]:
        return [line.what for line in self.lines if line.minimum is None]

    @property
    def shown(self) -> str:
        """The month in a word or two; without a price of the instances, which outweigh all else, it is unknown."""
        if self.lines[0].minimum is None:
            return "unknown"
        return f"{self.minimum:.2f} to {self.maximum:.2f}"


def month(spec: EndpointSpec, lock: Lock | None = None) -> Month:
    """A month of one endpoint's stacks, from the spec and, as far as there is one, the lock.

    Raises SpecErrors where the project's prices.yaml is bad.
    """
    metrics = custom_metrics(spec, lock)
    keys = 0 if spec.alarms.shared else 1 + (spec.job is not None)
    lines = [
        _instances(spec),
        _several("customer keys", keys, "customer_key", spec.root),
        _several("metrics of alarms", ALARM_METRICS, "alarm_metric", spec.root),
        _several("custom metrics", metrics.known, "custom_metric", spec.root),
        _several("dashboard", 1, "dashboard", spec.root),
    ]
    lines += [Line("more custom metrics", None, None, reason) for reason in metrics.unknown]
    if spec.scale.min < spec.scale.max:
        lines.append(Line("alarms of scaling", None, None, SCALING_ALARMS))
    written, kept = service_price("log_ingestion", spec.root), service_price("log_storage", spec.root)
    how = f"{written.usd:g} USD {written.unit}, {kept.usd:g} {kept.unit} ({_source(written)}); depends on requests"
    lines.append(Line("logs", None, None, how))
    how = "disks of the instances, data in and out, storage and requests of S3 and KMS: depends on use"
    lines.append(Line("all else", None, None, how))
    return Month(tuple(lines))


def shared(specs: Iterable[EndpointSpec], root: Path) -> Line:
    """What a project's endpoints share: the key of InferentiaArtifacts and, with alarms.shared, their own."""
    both = any(spec.alarms.shared for spec in specs)
    what = "keys of InferentiaArtifacts and InferentiaShared" if both else "key of InferentiaArtifacts"
    return _several(f"customer {what}", 1 + both, "customer_key", root)


def _instances(spec: EndpointSpec) -> Line:
    kind, least, most = spec.serve.instance_type, spec.scale.min, spec.scale.max
    known, what = price(kind, "sagemaker", spec.root), f"instances, {least} to {most} x {kind}"
    if known is None:
        return Line(what, None, None, f"no price of {kind} is known; write one into prices.yaml")
    each = known.usd_per_hour * HOURS
    how = f"{HOURS} h x {known.usd_per_hour:g} USD ({_source(known)}); up to twice as many while an update runs"
    return Line(what, round(each * least, 2), round(each * most, 2), how)


def _several(what: str, count: int, name: str, root: Path) -> Line:
    known = service_price(name, root)
    usd = round(count * known.usd, 2)
    return Line(what, usd, usd, f"{count} x {known.usd:g} USD {known.unit} ({_source(known)})")


def _source(known: Price | ServicePrice) -> str:
    if known.overridden:
        return f"prices.yaml, {known.date}"
    return f"{known.region}, {known.date}{'' if known.official else ', unofficial'}"
