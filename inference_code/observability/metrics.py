"""What the native server counts and measures, as GET /metrics shows it.

Prometheus' text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping, Sequence

from inference_code.execution.batching import BatchRecord, label

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


# Numbers by the labels' values. They add up over processes: a counter has one, a histogram its counts and the sum.
Numbers = dict[tuple[str, ...], list[float]]
# Everything of a process by name, as JSON can carry it.
State = dict[str, list[tuple[list[str], list[float]]]]


class Counter:
    """Counts upwards, one number for each combination of the labels' values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self._labels = name, text, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count `amount` more."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def numbers(self) -> Numbers:
        """What it has counted."""
        with self._lock:
            values = dict(self._values)
        if not self._labels:
            values.setdefault((), 0)
        return {labels: [value] for labels, value in values.items()}

    def lines(self, numbers: Numbers) -> Iterator[str]:
        """The samples in the text format."""
        for labels, (value,) in sorted(numbers.items()):
            yield sample(self.name, dict(zip(self._labels, labels, strict=True)), value)


class Histogram:
    """Counts observations up to each of `bounds`, and their sum, for each combination of the labels' values."""

    kind = "histogram"

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.text, self._labels, self._bounds = name, text, tuple(labels), tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        """Count one observation."""
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
            counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def numbers(self) -> Numbers:
        """What it has counted."""
        with self._lock:
            return {labels: [*counts, self._sums[labels]] for labels, counts in self._counts.items()}

    def lines(self, numbers: Numbers) -> Iterator[str]:
        """The samples in the text format."""
        for values, (*counts, total) in sorted(numbers.items()):
            labels = dict(zip(self._labels, values, strict=True))
            seen = 0.0
            for bound, count in zip((*self._bounds, "+Inf"), counts, strict=True):
                seen += count
                le = bound if isinstance(bound, str) else f"{bound:g}"
                yield sample(f"{self.name}_bucket", {**labels, "le": le}, seen)
            yield sample(f"{self.name}_sum", labels, total)
            yield sample(f"{self.name}_count", labels, seen)


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line of the text format."""
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.12g}" if inside else f"{name} {value:.12g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Metrics:
    """The server's instruments."""

    def __init__(self) -> None:
        place = ("bucket", "core")
        self.requests = Counter("endpoint_requests_total", "Responses by status.", ("status",))
        self.gone = Counter(
            "endpoint_clients_gone_total", "Requests whose client closed the connection before the response."
        )
        self.failed = Counter("endpoint_batches_failed_total", "Batches whose inference failed.", place)
        self.dropped = Counter("endpoint_log_lines_dropped_total", "Log lines dropped because stdout was not read.")
        self.total = Histogram(
            "endpoint_request_seconds", "Latency from the request's head to its response.", (), _SECONDS
        )
        self.pre = Histogram("endpoint_preprocess_seconds", "Preprocessing of a request.", ("bucket",), _SECONDS)
        self.post = Histogram("endpoint_postprocess_seconds", "Postprocessing of a request.", ("bucket",), _SECONDS)
        self.queue = Histogram("endpoint_queue_seconds", "Time of an item in the inference queue.", place, _SECONDS)
        self.device = Histogram("endpoint_device_seconds", "Inference time of a batch.", place, _SECONDS)
        self.items = Histogram("endpoint_batch_items", "Items in a batch, padding not counted.", place, _ITEMS)
        self.padding = Histogram("endpoint_padding_share", "Share of a batch that is padding.", place, _SHARES)
        self.aspect_distortion = Histogram(
            "endpoint_aspect_distortion", "Stretch of one side of an image against the other.", ("bucket",), _SHARES
        )
        self.user = Histogram("endpoint_predict_fn_seconds", "Time of a user's predict_fn for a request.", (), _SECONDS)
        self._all: tuple[Counter | Histogram, ...] = (
            self.requests, self.gone, self.failed, self.dropped, self.total, self.pre, self.post, self.queue,
            self.device, self.items, self.padding, self.aspect_distortion, self.user,
        )  # fmt: skip

    def batch(self, batch: BatchRecord) -> None:
        """Take in one call of the device."""
        place = label(batch.graph), str(batch.core)
        for seconds in batch.waited:
            self.queue.observe(seconds, *place)
        self.device.observe(batch.seconds, *place)
        self.items.observe(len(batch.waited), *place)
        self.padding.observe(batch.padding, *place)
        if batch.failed:
            self.failed.add(*place)

    def state(self, gauges: Mapping[str, tuple[str, float]]) -> State:
        """Everything of this process; `gauges`: name to (help, value now)."""
        found: State = {
            one.name: [(list(labels), numbers) for labels, numbers in one.numbers().items()] for one in self._all
        }
        return found | {name: [([], [value])] for name, (_, value) in gauges.items()}

    def text(self, gauges: Mapping[str, tuple[str, float]], others: Sequence[State] = ()) -> str:
        """Everything in the text format, added to `others`; `gauges`: name to (help, value now)."""
        added = _added([self.state(gauges), *others])
        lines = []
        for one in self._all:
            lines += [f"# HELP {one.name} {one.text}", f"# TYPE {one.name} {one.kind}", *one.lines(added[one.name])]
        for name, (text, _) in gauges.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", sample(name, {}, added[name][()][0])]
        return "\n".join(lines) + "\n"


def _added(states: Sequence[State]) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {name: {} for name in states[0]}
    for state in states:
        for name, parts in state.items():
            for labels, numbers in parts:
                held = found[name].setdefault(tuple(labels), [0.0] * len(numbers))
                found[name][tuple(labels)] = [a + b for a, b in zip(held, numbers, strict=True)]
    return found
