"""How many custom metrics of CloudWatch an endpoint writes: each name with each set of dimensions is billed as one."""

from __future__ import annotations

from dataclasses import dataclass

from .derive import neuron_monitor_namespace
from .endpoint import EndpointSpec
from .lock import Lock

# Names that the native server writes, each for the whole endpoint and for each bucket: cloudwatch_emf._UNITS.
SERVER_METRICS = 6


@dataclass(frozen=True)
class CustomMetrics:
    """known: at most this many series, whatever the number of instances. unknown: what writes more that nobody counted.

    https://aws.amazon.com/cloudwatch/pricing/ (metrics of the embedded metric format are custom metrics)
    """

    known: int
    unknown: tuple[str, ...] = ()


def custom_metrics(spec: EndpointSpec, lock: Lock | None = None) -> CustomMetrics:
    """Of the lock's graphs; without a lock of the spec's buckets, or of one where the family chooses them."""
    known = 0
    if spec.serve.server == "native":
        named = {(graph.role, repr(graph.bucket)) for graph in lock.graphs} if lock else spec.compile.buckets or (None,)
        known = SERVER_METRICS * (1 + len(named))
    unknown = []
    if neuron_monitor_namespace(spec) is not None:
        unknown.append("serve.neuron_monitor: what neuron-monitor writes of each NeuronCore is not documented")
    if spec.serve.metrics != "none":
        unknown.append(f"serve.metrics: {spec.serve.metrics}: AWS names no number and no price")
    return CustomMetrics(known, tuple(unknown))
