"""Alarms: their state follows the metrics, and their actions are sent to SNS when it changes.

Sources: "Using Amazon CloudWatch alarms" and "Configuring how CloudWatch alarms treat missing data",
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
and for composite alarms https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
Simpler than AWS: the last EvaluationPeriods periods are looked at, the running one among them once it has data;
older data never fills in for missing data; actions go to SNS topics only (others are written to the history).
"""

from __future__ import annotations

import ast
import json
import logging
import operator
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudwatch.models import Alarm, CloudWatchBackend

from ..clients import Clients
from ..errors import ValidationError
from .queries import Query, evaluate, period_of
from .series import floor

log = logging.getLogger(__name__)
LOCK = threading.RLock()  # held while alarms are evaluated, and while one is put

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
QUERIES = "queries"  # the attribute of an alarm with its metric data queries, as they were put
_WORD = re.compile(r"(?P<state>ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?P<name>\"[^\"]*\"|'[^']*'|[^\s()]+)\s*\)|[^\s()]+")
_OPERATORS = {"AND": "and", "OR": "or", "NOT": "not", "TRUE": "True", "FALSE": "False"}
_NODES = (ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Name, ast.Load, ast.Constant)


def metric_state(backend: CloudWatchBackend, alarm: Alarm, moment: datetime) -> tuple[str, str]:
    """The state that the metrics give at a moment, and the reason in words."""
    queries = queries_of(alarm)
    watched = next(query for query in queries if query.get("ReturnData", True))
    period = period_of(watched, queries)
    wanted = int(alarm.evaluation_periods)
    running = floor(moment, period)
    step = timedelta(seconds=period)
    found = evaluate(backend, watched, queries, running - step * wanted, running + step)
    last = running if running in found else running - step
    values = [found.get(last - step * index) for index in range(wanted)]
    return judged(alarm, values)


def queries_of(alarm: Alarm) -> list[Query]:
    """Its metric data queries as they were put; without any, as moto makes alarms for a scaling policy, its metric."""
    put: list[Query] | None = vars(alarm).get(QUERIES)
    if put is not None:
        return put
    dimensions = [{"Name": one.name, "Value": one.value} for one in alarm.dimensions]
    metric = {"Namespace": alarm.namespace, "MetricName": alarm.metric_name, "Dimensions": dimensions}
    stat = alarm.extended_statistic or alarm.statistic
    return [{"Id": "m", "MetricStat": {"Metric": metric, "Period": alarm.period, "Stat": stat, "Unit": alarm.unit}}]


def judged(alarm: Alarm, values: list[float | None]) -> tuple[str, str]:
    """State and reason from the values of the evaluated periods (None: missing), newest first."""
    breaches = COMPARISONS[alarm.comparison_operator]
    needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
    missing = alarm.treat_missing_data or "missing"
    present = [value for value in values if value is not None]
    breaching = sum(breaches(value, float(alarm.threshold)) for value in present)
    absent = len(values) - len(present)
    shown = ", ".join(f"{value:g}" for value in present) or "none"
    reason = (
        f"Threshold {alarm.comparison_operator} {float(alarm.threshold):g}: {breaching} of {len(values)} periods "
        f"breaching, {needed} needed; datapoints: {shown}; missing: {absent} ({missing})"
    )
    if not present and missing == "ignore":
        return alarm.state_value, reason
    if not present and missing == "missing":
        return "INSUFFICIENT_DATA", reason
    if missing == "breaching":
        breaching += absent
    return ("ALARM" if breaching >= needed else "OK"), reason


class RuleError(ValidationError):
    """A composite alarm's rule that cannot be read."""


class Rule:
    """A composite alarm's rule: ALARM(), OK(), INSUFFICIENT_DATA() of alarms, AND, OR, NOT, TRUE, FALSE."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._asked: dict[str, tuple[str, str]] = {}  # state and alarm, by the name that stands for them in Python
        python = " ".join(_WORD.sub(self._in_python, text).split())
        try:
            self._tree = ast.parse(python, mode="eval").body
        except SyntaxError as error:
            raise RuleError(f"AlarmRule {text!r} cannot be read: {error.msg}") from error
        if not all(isinstance(node, _NODES) for node in ast.walk(self._tree)):
            raise RuleError(f"AlarmRule {text!r} cannot be read: it is no condition")
        self.names = {name for _, name in self._asked.values()}

    def _in_python(self, word: re.Match[str]) -> str:
        """An operator of Python, or a name that stands for one state of one alarm. Raises RuleError for other words."""
        if word["state"] is None and word[0] not in _OPERATORS:
            raise RuleError(f"AlarmRule {self.text!r}: {word[0]!r} is not expected there")
        if word["state"] is None:
            return f" {_OPERATORS[word[0]]} "
        made = f"asked_{len(self._asked)}"
        self._asked[made] = word["state"], word["name"].strip("\"'")
        return f" {made} "

    def holds(self, states: Mapping[str, str]) -> bool:
        """Whether it is true of alarms in these states."""
        return self._holds(self._tree, states)

    def _holds(self, node: Any, states: Mapping[str, str]) -> bool:
        if isinstance(node, ast.BoolOp):
            parts = [self._holds(part, states) for part in node.values]
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        if isinstance(node, ast.UnaryOp):
            return not self._holds(node.operand, states)
        if isinstance(node, ast.Constant):
            return bool(node.value)
        state, name = self._asked[node.id]
        return states[name] == state


def _short(name_or_arn: str) -> str:
    return name_or_arn.rsplit(":alarm:", 1)[-1]


def check_rule(backend: CloudWatchBackend, text: str) -> None:
    """Raises RuleError for a rule that cannot be read or that names an alarm that is not there."""
    unknown = sorted(name for name in Rule(text).names if _short(name) not in backend.alarms)
    if unknown:
        raise RuleError(f"AlarmRule {text!r} names alarms that do not exist: {', '.join(unknown)}")


def composite_state(backend: CloudWatchBackend, alarm: Alarm) -> tuple[str, str]:
    """ALARM while the rule holds, OK otherwise."""
    rule = Rule(str(alarm.rule))
    states = {
        name: backend.alarms[_short(name)].state_value if _short(name) in backend.alarms else "INSUFFICIENT_DATA"
        for name in rule.names
    }
    shown = ", ".join(f"{_short(name)} is {state}" for name, state in sorted(states.items()))
    return ("ALARM" if rule.holds(states) else "OK"), f"{alarm.rule}: {shown}"


def evaluate_all(backend: CloudWatchBackend, clients: Clients) -> None:
    """Bring every alarm of a region to its state; metric alarms first, composite ones see the result."""
    moment = datetime.now(timezone.utc)
    with LOCK:
        alarms = list(backend.alarms.values())
        for alarm in sorted(alarms, key=lambda alarm: alarm.rule is not None):
            old = alarm.state_value
            found = composite_state(backend, alarm) if alarm.rule else metric_state(backend, alarm, moment)
            if found[0] != old:
                alarm.update_state(found[1], "{}", found[0])
                _act(clients, backend, alarm, old)


def _act(clients: Clients, backend: CloudWatchBackend, alarm: Alarm, old: str) -> None:
    """Send the actions of the new state."""
    if not alarm.actions_enabled:
        return
    actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(
        alarm.state_value, alarm.insufficient_data_actions
    )
    for arn in actions or []:
        outcome = f"action {arn} is not carried out by the embedded AWS"
        if ":sns:" in arn:
            outcome = _publish(clients, backend, alarm, old, arn)
        alarm.history.append(("Action", outcome, "{}", alarm.state_value, alarm.state_updated_timestamp))


def _publish(clients: Clients, backend: CloudWatchBackend, alarm: Alarm, old: str, arn: str) -> str:
    message = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": backend.account_id,
        "AlarmArn": alarm.alarm_arn,
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "OldStateValue": old,
        "StateChangeTime": alarm.state_updated_timestamp.isoformat(),
        "Region": backend.region_name,
    }
    subject = f'{alarm.state_value}: "{alarm.name}" in {backend.region_name}'
    try:
        clients.client("sns", backend.region_name).publish(
            TopicArn=arn, Subject=subject[:100], Message=json.dumps(message)
        )
    except (ClientError, BotoCoreError) as error:
        log.warning("alarm %s: could not publish to %s: %s", alarm.name, arn, error)
        return f"Failed to execute action {arn}: {error}"
    return f"Successfully executed action {arn}"
