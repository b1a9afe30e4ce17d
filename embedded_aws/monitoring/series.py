"""Data points of metrics and their statistics over periods.

The data lives in moto's CloudWatch backend, beside what PutMetricData brings. What this server itself measures is kept
as one distribution a minute, the resolution of SageMaker's invocation metrics
(https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html).
"""

from __future__ import annotations

import math
import re
import threading
from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend, MetricAggregatedDatum, MetricDatum, MetricDatumBase

from ..errors import ValidationError

PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
SIMPLE = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
_lock = threading.Lock()

Points = dict[datetime, float]


class UnsupportedStatisticError(ValidationError):
    """A statistic that CloudWatch may know and this server does not."""


class Distribution(MetricAggregatedDatum):
    """Every value of one metric in one minute. moto reads sum, min, max and sample_count; percentiles read `values`."""

    def __init__(self, namespace: str, name: str, dimensions: list[dict[str, str]], minute: datetime, unit: str):
        super().__init__(namespace, name, 0.0, 0.0, 0.0, 0.0, dimensions, minute, unit)
        self.values: array[float] = array("d")

    def add(self, value: float) -> None:
        """One more value."""
        self.min = min(self.min, value) if self.values else value
        self.max = max(self.max, value) if self.values else value
        self.values.append(value)
        self.sum += value
        self.sample_count += 1


class Recorder:
    """Adds values to the distributions of the running minute."""

    def __init__(self) -> None:
        self._open: dict[tuple[Any, ...], Distribution] = {}

    def record(
        self, backend: CloudWatchBackend, namespace: str, dimensions: dict[str, str], values: dict[str, float]
    ) -> None:
        """Values by metric name; names that end in Latency are microseconds."""
        minute = datetime.now(timezone.utc).replace(tzinfo=None, second=0, microsecond=0)
        with _lock:
            for name, value in values.items():
                key = (id(backend), namespace, name, *sorted(dimensions.items()))
                found = self._open.get(key)
                if found is None or found.timestamp != minute:
                    pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
                    unit = "Microseconds" if name.endswith("Latency") else "None"
                    found = self._open[key] = Distribution(namespace, name, pairs, minute, unit)
                    backend.metric_data.append(found)
                found.add(value)


def floor(moment: datetime, seconds: int) -> datetime:
    """The start of the period that a moment lies in."""
    epoch = int(aware(moment).timestamp())
    return datetime.fromtimestamp(epoch - epoch % seconds, timezone.utc)


def aware(moment: datetime) -> datetime:
    """moto keeps times without zone; they are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def matching(
    backend: CloudWatchBackend, namespace: str, name: str, dimensions: Iterable[tuple[str, str]], unit: str | None
) -> list[MetricDatumBase]:
    """The data of exactly that metric: another set of dimensions is another metric.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#Dimension
    """
    wanted = sorted(dimensions)
    return [
        datum
        for datum in backend.get_all_metrics()
        if datum.namespace == namespace
        and datum.name == name
        and sorted((item.name, item.value) for item in datum.dimensions) == wanted
        and unit in (None, datum.unit)
    ]


def points(data: Sequence[MetricDatumBase], start: datetime, end: datetime, period: int, stat: str) -> Points:
    """The statistic over each period that begins in [start, end), for periods with data, by their start."""
    check_statistic(stat)
    first, last = floor(start, period), aware(end)
    groups: dict[datetime, list[MetricDatumBase]] = {}
    for datum in data:
        begin = floor(datum.timestamp, period)
        if first <= begin < last:
            groups.setdefault(begin, []).append(datum)
    values = {begin: statistic(group, stat) for begin, group in sorted(groups.items())}
    return {begin: value for begin, value in values.items() if value is not None}


def check_statistic(stat: str) -> None:
    """Raises UnsupportedStatisticError for anything but the five simple statistics and percentiles."""
    if stat not in SIMPLE and not PERCENTILE.fullmatch(stat):
        raise UnsupportedStatisticError(
            f"the embedded AWS has no statistic {stat}: it has {', '.join(SIMPLE)} and percentiles such as p99"
        )


def statistic(group: Sequence[MetricDatumBase], stat: str) -> float | None:
    """One statistic of the data of one period; None where there is none (a percentile of bare statistic sets)."""
    rows = [_row(datum) for datum in group]
    count, total = sum(row[0] for row in rows), sum(row[1] for row in rows)
    if count == 0:
        return None
    if stat in SIMPLE:
        return {
            "Average": total / count,
            "Sum": total,
            "Minimum": min(row[2] for row in rows),
            "Maximum": max(row[3] for row in rows),
            "SampleCount": count,
        }[stat]
    values: list[float] = []
    for datum in group:
        own = _values(datum)
        if own is None:
            return None
        values.extend(own)
    return percentile(values, float(stat[1:]))


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank).

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html; how CloudWatch
    interpolates is not documented, so small samples may differ from it.
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]


def _row(datum: MetricDatumBase) -> tuple[float, float, float, float]:
    """Count, sum, minimum and maximum."""
    if isinstance(datum, MetricDatum):
        return 1.0, datum.value, datum.value, datum.value
    if isinstance(datum, MetricAggregatedDatum):
        return datum.sample_count, datum.sum, datum.min, datum.max
    raise TypeError(f"unknown metric datum {type(datum)}")


def _values(datum: MetricDatumBase) -> Iterable[float] | None:
    """The single values, which a statistic set has only when all are the same."""
    if isinstance(datum, Distribution):
        return list(datum.values)
    if isinstance(datum, MetricDatum):
        return [datum.value]
    count, _, low, high = _row(datum)
    return [low] * int(count) if low == high else None


def grid(start: datetime, end: datetime, period: int) -> list[datetime]:
    """The starts of all periods that begin in [start, end)."""
    moment, last, moments = floor(start, period), aware(end), []
    while moment < last:
        moments.append(moment)
        moment += timedelta(seconds=period)
    return moments
