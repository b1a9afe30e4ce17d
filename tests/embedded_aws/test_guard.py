"""`inferentia guard`: the stack's own alarms as arguments of the stock CLI."""

from __future__ import annotations

import sys
from typing import Any

import boto3
import pytest

from operations.__main__ import main
from tests.embedded_aws.helpers import Stacks
from tests.embedded_aws.running import Aws

ALARM = {
    "MetricName": "m", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1,
    "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching",
}  # fmt: skip


def test_guard_names_the_stacks_alarms_and_refuses_before_there_are_any_and_while_one_rings(
    aws: Aws, stacks: Stacks, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in aws.environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    def guard(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["operations", "guard", name, *arguments])
        try:
            code = main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    stack = f"InferentiaEndpoint-{name}"
    code, _, said = guard()
    assert (code, f"stack {stack} has no alarms before its first deployment" in said) == (1, True)
    resources: dict[str, Any] = {
        key: {"Type": "AWS::CloudWatch::Alarm", "Properties": {**ALARM, "Namespace": name}} for key in ("One", "Two")
    }
    stacks.up(stack, {"Resources": {**resources, "Topic": {"Type": "AWS::SNS::Topic"}}})
    first, second = sorted(f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{physical}"
                           for key, physical in stacks.physical(stack).items() if key in resources)  # fmt: skip
    code, out, _ = guard("--minutes", "20", "--rehearsal")
    assert (code, out.split()) == (0, [
        "cdk", "deploy", stack, "--exclusively", "--rollback-trigger-alarm-arns", first,
        "--rollback-trigger-alarm-arns", second, "--monitoring-time-minutes", "20", "-c", "rehearsal=true",
    ])  # fmt: skip
    data = [{"MetricName": "m", "Value": 5.0}]
    aws.client("cloudwatch").put_metric_data(Namespace=name, MetricData=data)
    code, _, said = guard()
    assert (code, "is in the state ALARM: the update would be taken back" in said) == (1, True)
