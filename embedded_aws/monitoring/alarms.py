"""Alarms: their state follows the metrics, and their actions are sent to SNS when it changes.

Sources: "Using Amazon CloudWatch alarms" and "Configuring how CloudWatch alarms treat missing data",
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
and for composite alarms https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
Simpler than AWS: the last EvaluationPeriods periods are looked at, the running one among them once it has data;
older data never fills in for missing data; actions go to SNS topics only (others are written to the history).
"""

from __future__ import annotations

import json
import logging
import operator
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudwatch.models import Alarm, CloudWatchBackend

from ..clients import Clients
from ..errors import ValidationError
from .queries import Query, evaluate, period_of
from .series import floor

log = logging.getLogger(__name__)
_lock = threading.RLock()

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
QUERIES = "queries"  # the attribute of an alarm with its metric data queries, as they were put
_WORD = re.compile(r"\s*(ALARM|OK|INSUFFICIENT_DATA|TRUE|FALSE|AND|OR|NOT|\(|\)|\"[^\"]*\"|'[^']*'|[^\s()]+)")
_STATES = {"ALARM", "OK", "INSUFFICIENT_DATA"}


def metric_state(backend: CloudWatchBackend, alarm: Alarm, moment: datetime) -> tuple[str, str]:
    """The state that the metrics give at a moment, and the reason in words."""
    queries: list[Query] = vars(alarm)[QUERIES]
    watched = next(query for query in queries if query.get("ReturnData", True))
    period = period_of(watched, queries)
    wanted = int(alarm.evaluation_periods)
    running = floor(moment, period)
    step = timedelta(seconds=period)
    found = evaluate(backend, watched, queries, running - step * wanted, running + step)
    last = running if running in found else running - step
    values = [found.get(last - step * index) for index in range(wanted)]
    return judged(alarm, values)


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
        self.text, self.names = text, set[str]()
        self._words = _WORD.findall(text)
        self._place = 0
        self.holds = self._or()
        if self._place != len(self._words):
            raise RuleError(f"AlarmRule {text!r}: {self._words[self._place]!r} is not expected there")

    def _take(self) -> str:
        if self._place == len(self._words):
            raise RuleError(f"AlarmRule {self.text!r} ends too early")
        self._place += 1
        return str(self._words[self._place - 1])

    def _next_is(self, word: str) -> bool:
        if self._place < len(self._words) and self._words[self._place] == word:
            self._place += 1
            return True
        return False

    def _or(self) -> Callable[[dict[str, str]], bool]:
        parts = [self._and()]
        while self._next_is("OR"):
            parts.append(self._and())
        return lambda states: any(part(states) for part in parts)

    def _and(self) -> Callable[[dict[str, str]], bool]:
        parts = [self._not()]
        while self._next_is("AND"):
            parts.append(self._not())
        return lambda states: all(part(states) for part in parts)

    def _not(self) -> Callable[[dict[str, str]], bool]:
        if self._next_is("NOT"):
            inner = self._not()
            return lambda states: not inner(states)
        word = self._take()
        if word in {"TRUE", "FALSE"}:
            return lambda _: word == "TRUE"
        if word == "(":
            inner = self._or()
            self._expect(")")
            return inner
        if word not in _STATES:
            raise RuleError(f"AlarmRule {self.text!r}: {word!r} is not expected there")
        self._expect("(")
        name = self._take().strip("\"'")
        self._expect(")")
        self.names.add(name)
        return lambda states: states[name] == word

    def _expect(self, word: str) -> None:
        if self._take() != word:
            raise RuleError(f"AlarmRule {self.text!r}: {word!r} is missing")


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
    with _lock:
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
