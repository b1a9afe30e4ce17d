"""MetricDataQuery lists: metrics and expressions that refer to each other, evaluated over a time range.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataQuery.html
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend

from .expressions import Expression, ExpressionError
from .series import Points, check_statistic, grid, matching, points

Query = dict[str, Any]


def check(queries: list[Query]) -> None:
    """Raises ExpressionError or UnsupportedStatisticError for the first query that cannot be evaluated here."""
    ids = {query["Id"] for query in queries}
    if len(ids) != len(queries):
        raise ExpressionError("The Ids of metric data queries must be distinct")
    for query in queries:
        if query.get("MetricStat"):
            check_statistic(query["MetricStat"]["Stat"])
        else:
            unknown = sorted(Expression(query["Expression"]).names - ids)
            if unknown:
                raise ExpressionError(f"Metric math {query['Expression']!r} refers to unknown {', '.join(unknown)}")
    for query in queries:
        _order(query["Id"], queries, ())


def _order(query_id: str, queries: list[Query], above: tuple[str, ...]) -> None:
    if query_id in above:
        raise ExpressionError(f"Metric math refers to itself: {' -> '.join([*above, query_id])}")
    query = _by_id(queries, query_id)
    if not query.get("MetricStat"):
        for name in Expression(query["Expression"]).names:
            _order(name, queries, (*above, query_id))


def _by_id(queries: list[Query], query_id: str) -> Query:
    return next(query for query in queries if query["Id"] == query_id)


def period_of(query: Query, queries: list[Query]) -> int:
    """The period of a query: its own, that of its metric, or the longest of what it refers to."""
    if query.get("MetricStat"):
        return int(query["MetricStat"]["Period"])
    if query.get("Period"):
        return int(query["Period"])
    inner = [period_of(_by_id(queries, name), queries) for name in Expression(query["Expression"]).names]
    return max(inner, default=60)


def evaluate(backend: CloudWatchBackend, query: Query, queries: list[Query], start: datetime, end: datetime) -> Points:
    """The values of one query of a checked list by the start of their period."""
    if query.get("MetricStat"):
        stat = query["MetricStat"]
        metric = stat["Metric"]
        dimensions = [(item["Name"], item["Value"]) for item in metric.get("Dimensions") or []]
        data = matching(backend, metric["Namespace"], metric["MetricName"], dimensions, stat.get("Unit"))
        return points(data, start, end, int(stat["Period"]), stat["Stat"])
    expression = Expression(query["Expression"])
    inputs = {name: evaluate(backend, _by_id(queries, name), queries, start, end) for name in sorted(expression.names)}
    result = {}
    for moment in grid(start, end, period_of(query, queries)):
        value = expression.value({name: found[moment] for name, found in inputs.items() if moment in found})
        if value is not None:
            result[moment] = value
    return result
