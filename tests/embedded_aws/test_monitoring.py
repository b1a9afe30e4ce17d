"""Metrics, metric math and alarms: units without a server, then what InvokeEndpoint leaves in CloudWatch."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from embedded_aws.hosting.runtime import metrics
from embedded_aws.monitoring.alarms import Rule, RuleError, judged
from embedded_aws.monitoring.expressions import Expression, ExpressionError
from embedded_aws.monitoring.queries import check
from embedded_aws.monitoring.series import Distribution, UnsupportedStatisticError, percentile, points, statistic
from tests.embedded_aws.artifacts import artifact
from tests.embedded_aws.helpers import Hosting
from tests.embedded_aws.running import Aws, wait_for

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100 * e / m", 5.0),
        ("IF(m >= 20, e / m, 0)", 0.05),
        ("IF(m < 20, missing, -1)", -1.0),
        ("IF(e > 0 AND m > 30, 1, 2)", 1.0),
        ("IF(e > 1 || m == 40, 1, 2)", 1.0),
        ("IF(e != 2 && m > 0, 1, 2)", 2.0),
        ("FILL(missing, 7) + 1", 8.0),
        ("FILL(e, 7) + 1", 3.0),
        ("MAX([e, m]) - MIN([e, m])", 38.0),
        ("SUM([e, m, 1]) / AVG([1, 3])", 21.5),
        ("-(e ^ 3) + ABS(-1) + CEIL(0.5) + FLOOR(0.5)", -6.0),
        ("e / (m - 40)", None),
        ("missing + 1", None),
        ("IF(missing > 1, 1, 0)", None),
    ],
)
def test_metric_math(text: str, value: float | None) -> None:
    assert Expression(text).value({"e": 2.0, "m": 40.0}) == value


@pytest.mark.parametrize(
    "text", ["RATE(m)", "SEARCH('x', 'Sum')", "METRICS()", "m[0]", "__import__('os')", "SUM(m)", "IF(m, 1)", "m +",
             "1 < m < 3", "FILL(m, REPEAT)", "lambda: 1", "m.real", "'text'", "True"]
)  # fmt: skip
def test_math_that_is_not_supported_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert repr(text) in str(caught.value)


def test_queries_that_cannot_be_evaluated() -> None:
    with pytest.raises(ExpressionError, match="unknown other"):
        check([{"Id": "a", "Expression": "other * 2"}])
    with pytest.raises(ExpressionError, match="refers to itself: a -> b -> a"):
        check([{"Id": "a", "Expression": "b"}, {"Id": "b", "Expression": "a"}])
    stat = {"Metric": {"Namespace": "n", "MetricName": "m"}, "Period": 60, "Stat": "TM(10%:90%)"}
    with pytest.raises(UnsupportedStatisticError, match=r"no statistic TM\(10%:90%\)"):
        check([{"Id": "a", "MetricStat": stat}])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values) * (1 - 1e-12)


def test_statistics_of_distributions() -> None:
    first = Distribution("n", "m", [], NOON, "Microseconds")
    second = Distribution("n", "m", [], NOON + timedelta(minutes=1), "Microseconds")
    for value in range(1, 101):
        first.add(float(value))
    second.add(1000.0)
    both = {
        stat: statistic([first, second], stat) for stat in ("SampleCount", "Sum", "Minimum", "Maximum", "p50", "p99")
    }
    assert both == {"SampleCount": 101, "Sum": 6050, "Minimum": 1, "Maximum": 1000, "p50": 51, "p99": 100}
    assert points([first, second], NOON, NOON + timedelta(minutes=2), 60, "p100") == {
        NOON: 100.0,
        NOON + timedelta(minutes=1): 1000.0,
    }
    assert points([first, second], NOON + timedelta(seconds=30), NOON + timedelta(minutes=1), 60, "Sum") == {NOON: 5050}


@pytest.mark.parametrize(
    ("missing", "values", "state"),
    [
        ("notBreaching", [None, None, None], "OK"),
        ("breaching", [None, None, 1], "ALARM"),
        ("missing", [None, None, None], "INSUFFICIENT_DATA"),
        (None, [None, None, None], "INSUFFICIENT_DATA"),
        ("ignore", [None, None, None], "kept"),
        ("notBreaching", [20, None, 20], "ALARM"),
        ("notBreaching", [20, 10, 10], "OK"),
        ("missing", [20, None, 20], "ALARM"),
    ],
)
def test_the_state_of_an_alarm(missing: str | None, values: list[float | None], state: str) -> None:
    alarm: Any = SimpleNamespace(
        comparison_operator="GreaterThanThreshold",
        evaluation_periods=3,
        datapoints_to_alarm=2,
        threshold=10.0,
        treat_missing_data=missing,
        state_value="kept",
    )
    assert judged(alarm, values)[0] == state


def test_rules_of_composite_alarms() -> None:
    rule = Rule('ALARM("a b") AND NOT (OK(c) OR INSUFFICIENT_DATA(c)) OR FALSE')
    assert rule.names == {"a b", "c"}
    assert rule.holds({"a b": "ALARM", "c": "ALARM"})
    assert not rule.holds({"a b": "ALARM", "c": "OK"})
    for bad in ("ALARM(a", "ALARM(a) ALARM(b)", "NEVER(a)", "", "AND"):
        with pytest.raises(RuleError, match="AlarmRule"):
            Rule(bad)


def test_the_metrics_of_one_invocation() -> None:
    fine = metrics(200, 0.25, 0.001, 2)
    assert (fine["Invocations"], fine["InvocationsPerInstance"], fine["ModelLatency"]) == (1, 0.5, 250_000)
    assert fine["OverheadLatency"] == pytest.approx(1000)
    names = ("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")
    errors = {status: [metrics(status, 0, 0, 1)[name] for name in names] for status in (200, 415, 503, 0)}
    assert errors == {200: [0, 0, 0], 415: [1, 0, 1], 503: [0, 1, 1], 0: [0, 1, 1]}


@pytest.fixture
def hosting(aws: Aws, name: str) -> Any:
    found = Hosting(aws, name)
    found.up(found.config("one", artifact("one")))
    yield found
    found.sagemaker.delete_endpoint(EndpointName=name)


def window() -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    return {"StartTime": now - timedelta(minutes=10), "EndTime": now + timedelta(minutes=2)}


def query(name: str, label: str, metric: str, stat: str, **more: Any) -> dict[str, Any]:
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "main"}]
    found = {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions}
    return {"Id": label, "MetricStat": {"Metric": found, "Period": 60, "Stat": stat}, **more}


def test_invocations_are_measured(hosting: Hosting) -> None:
    for _ in range(18):
        hosting.invoke()
    hosting.fails(b"bad")
    hosting.fails(b"crash")
    cloudwatch = hosting.aws.client("cloudwatch")
    queries = [
        query(hosting.name, "all", "Invocations", "Sum"),
        query(hosting.name, "client", "Invocation4XXErrors", "Sum"),
        query(hosting.name, "server", "Invocation5XXErrors", "Sum", ReturnData=False),
        query(hosting.name, "p99", "ModelLatency", "p99"),
        query(hosting.name, "most", "ModelLatency", "Maximum"),
        query(hosting.name, "over", "OverheadLatency", "SampleCount"),
        {"Id": "rate", "Expression": "100 * server / all"},
    ]
    results = cloudwatch.get_metric_data(MetricDataQueries=queries, **window())["MetricDataResults"]
    found = {row["Id"]: row["Values"] for row in results}
    assert "server" not in found
    assert sum(found["all"]) == sum(found["over"]) == 20
    assert sum(found["client"]) == 1
    assert 0 < max(found["rate"]) <= 100
    assert 0 < max(found["p99"]) <= max(found["most"])
    dimensions = queries[0]["MetricStat"]["Metric"]["Dimensions"]  # type: ignore[index]
    given = {"Namespace": "AWS/SageMaker", "MetricName": "ModelLatency", "Dimensions": dimensions, "Period": 3600}
    simple = cloudwatch.get_metric_statistics(**given, **window(), Statistics=["Sum", "SampleCount"])["Datapoints"]
    assert sum(row["SampleCount"] for row in simple) == 20
    assert simple[0]["Unit"] == "Microseconds"
    extended = cloudwatch.get_metric_statistics(**given, **window(), ExtendedStatistics=["p50", "p99"])["Datapoints"]
    assert all(row["ExtendedStatistics"]["p50"] <= row["ExtendedStatistics"]["p99"] for row in extended)
    whole = cloudwatch.get_metric_statistics(**{**given, "Dimensions": dimensions[:1]}, **window(), Statistics=["Sum"])
    assert whole["Datapoints"] == [], "fewer dimensions are another metric"
    listed = cloudwatch.list_metrics(Namespace="AWS/SageMaker", Dimensions=dimensions)["Metrics"]
    assert {"Invocations", "InvocationModelErrors", "OverheadLatency"} <= {row["MetricName"] for row in listed}


def test_an_alarm_follows_its_metrics_and_tells_a_topic(hosting: Hosting) -> None:
    aws, name = hosting.aws, hosting.name
    cloudwatch, sns, sqs = (aws.client(service) for service in ("cloudwatch", "sns", "sqs"))
    topic = sns.create_topic(Name=name)["TopicArn"]
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:123456789012:{name}")
    metrics_ = [
        query(name, "all", "Invocations", "Sum", ReturnData=False),
        query(name, "bad", "InvocationModelErrors", "Sum", ReturnData=False),
        {"Id": "rate", "Expression": "IF(all >= 4, 100 * bad / all, 0)", "ReturnData": True},
    ]
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Metrics=metrics_,
        ComparisonOperator="GreaterThanThreshold",
        Threshold=10,
        EvaluationPeriods=3,
        DatapointsToAlarm=1,
        TreatMissingData="notBreaching",
        AlarmActions=[topic],
    )
    cloudwatch.put_composite_alarm(AlarmName=f"{name}-any", AlarmRule=f"ALARM({name}) AND NOT OK({name})")

    def states() -> dict[str, str]:
        kinds = ["MetricAlarm", "CompositeAlarm"]
        found = cloudwatch.describe_alarms(AlarmNamePrefix=name, AlarmTypes=kinds)
        return {row["AlarmName"]: row["StateValue"] for row in [*found["MetricAlarms"], *found["CompositeAlarms"]]}

    assert states() == {name: "OK", f"{name}-any": "OK"}
    hosting.fails(b"bad")
    assert states()[name] == "OK", "one failure of one request is below the low-sample guard"

    def alarmed() -> bool:
        # a new minute begins a new sample, so more may be needed
        hosting.fails(b"bad")
        return states() == {name: "ALARM", f"{name}-any": "ALARM"}

    wait_for(alarmed, "both alarms are in ALARM")
    received = wait_for(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"), "a message")
    message = json.loads(json.loads(received[0]["Body"])["Message"])
    assert (message["AlarmName"], message["NewStateValue"], message["OldStateValue"]) == (name, "ALARM", "OK")
    assert [row["AlarmName"] for row in cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]] == [name]
    cloudwatch.delete_alarms(AlarmNames=[name, f"{name}-any"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Metrics": [{"Id": "a", "Expression": "RATE(b)", "ReturnData": True}]}, r"does not support RATE\(\)"),
        ({"Metrics": [{"Id": "a", "Expression": "nobody * 2", "ReturnData": True}]}, "unknown nobody"),
        ({"Metrics": None, "MetricName": "m", "Namespace": "n", "Period": 60, "ExtendedStatistic": "tm90"}, "tm90"),
        ({"ComparisonOperator": "LessThanLowerThreshold"}, "LessThanLowerThreshold"),
    ],
)
def test_an_alarm_that_could_not_be_evaluated_is_refused(aws: Aws, name: str, change: Any, words: str) -> None:
    given = {
        "AlarmName": name,
        "Metrics": [query(name, "m", "Invocations", "Sum")],
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 1,
        "EvaluationPeriods": 1,
        **change,
    }
    cloudwatch = aws.client("cloudwatch")
    with pytest.raises(ClientError, match=words):
        cloudwatch.put_metric_alarm(**{key: value for key, value in given.items() if value is not None})
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"] == []


def test_a_composite_alarm_of_nothing_is_refused(aws: Aws, name: str) -> None:
    cloudwatch: Callable[..., Any] = aws.client("cloudwatch").put_composite_alarm
    with pytest.raises(ClientError, match="alarms that do not exist: nobody"):
        cloudwatch(AlarmName=name, AlarmRule="ALARM(nobody)")
