"""`conformance`: what it may cost, what it refuses, how answers are compared, what the report says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from operations.account import Account
from operations.conformance import checks
from operations.conformance.leftovers import found
from operations.conformance.plan import DESTROY, STEPS, Ledger, Prices, check_budget, prices, total, worst
from operations.conformance.project import NAME, STACK, Project, end
from operations.conformance.report import Run, write
from operations.errors import OperationError, WrongUseError

Command = Callable[..., tuple[int, str, str]]
OF = Prices(instance=1.2, services=0.6, once=0.0, reasons=())
DEPLOY, INVOKE = STEPS[:2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, rehearsal=True)


def test_a_step_costs_all_its_minutes_and_instances() -> None:
    assert worst(DEPLOY, OF) == pytest.approx(40 / 60 * (2 * 1.2 + 0.6))
    assert total(OF) == pytest.approx(sum(worst(step, OF) for step in STEPS))


def test_the_waits_of_a_step_leave_time_for_its_work() -> None:
    for step in STEPS:
        assert sum(check.minutes for check in checks.load() if check.step == step.name) < step.minutes
    assert {check.step for check in checks.load()} == {step.name for step in STEPS}
    assert all(check.source.startswith("https://docs.aws.amazon.com/") for check in checks.load())


def test_a_step_begins_only_where_destroying_fits_too() -> None:
    clock = [0.0]
    needed = worst(DEPLOY, OF) + worst(DESTROY, OF)
    Ledger(needed, OF, now=lambda: clock[0]).begin(DEPLOY)
    with pytest.raises(OperationError, match="stopped before deploy"):
        Ledger(needed - 0.01, OF, now=lambda: clock[0]).begin(DEPLOY)


def test_time_that_passed_is_spent_and_destroying_is_never_refused() -> None:
    clock = [0.0]
    ledger = Ledger(worst(DEPLOY, OF) + worst(DESTROY, OF), OF, now=lambda: clock[0])
    ledger.begin(DEPLOY)
    clock[0] = 3600.0
    with pytest.raises(OperationError, match=r"stopped before invoke: 3\.00 USD may be spent.*--budget"):
        ledger.begin(INVOKE)
    assert ledger.spent == pytest.approx(2 * 1.2 + 0.6)
    ledger.begin(DESTROY)
    clock[0] += 1800.0
    ledger.end()
    assert ledger.spent == pytest.approx(3.0 + 0.5 * (5 * 1.2 + 0.6))


@pytest.mark.parametrize("budget", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_no_budget_is_wrong_use(budget: float | None) -> None:
    with pytest.raises(WrongUseError, match="--budget 2"):
        check_budget(budget)


def test_a_price_is_known_or_given(project: Project) -> None:
    spec = project.write("deploy")
    with pytest.raises(WrongUseError, match=r"no price of ml\.c7i\.large is known.*--hourly-price"):
        prices(spec, project.root, None, 0)
    with pytest.raises(WrongUseError, match="cannot cost 0 US dollars"):
        prices(spec, project.root, 0.0, 0)
    given = prices(spec, project.root, 0.12, 2)
    assert (given.instance, given.once) == (0.12, 0.0)
    assert given.services == pytest.approx((1.0 + 6 * 0.1 + 12 * 0.3) / 730)
    assert prices(spec, project.root, 0.12, 3).once == 3.0  # the account's free dashboards are taken
    (project.root / "prices.yaml").write_text(
        'date: "2026-12-01"\nregion: us-east-1\nsagemaker: {source: bill, usd_per_hour: {ml.c7i.large: 0.2}}\n'
    )
    assert prices(spec, project.root, None, 0).instance == 0.2


@pytest.mark.parametrize(
    ("expected", "answered", "where"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, ["b"]),
        ({"a": 1}, {"a": 1, "new": 3}, ["new"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ["a[0].b"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"t": "<time>", "n": "<number>", "s": "<text>"}, {"t": "now", "n": True, "s": ""}, ["t", "n", "s"]),
        ({"t": "<time>", "n": "<number>"}, {"t": datetime.now(timezone.utc), "n": 0.5}, []),
        ("~ arn:.*", "arn:aws", []),
        ("~ arn:.*", "no arn:aws", [""]),
        (None, None, []),
    ],
)
def test_each_place_that_differs_is_named(expected: Any, answered: Any, where: list[str]) -> None:
    assert [one.where for one in checks.compare(expected, answered)] == where


def account_of(*answers: Any) -> Any:
    """An account whose endpoint is described as given, the last answer again and again."""
    left = list(answers)

    def describe(**_: Any) -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if "Error" in answer:
            raise ClientError({**answer, "ResponseMetadata": {"RequestId": "of-the-refusal"}}, "DescribeEndpoint")
        return {**answer, "ResponseMetadata": {"RequestId": "of-the-answer"}}

    return SimpleNamespace(client=lambda _: SimpleNamespace(describe_endpoint=describe))


def check(**more: Any) -> checks.Check:
    given = {"name": "a check", "step": "deploy", "source": "https://docs", "service": "sagemaker"}
    return checks.Check(**{**given, "operation": "describe_endpoint", **more})


def test_a_check_waits_as_long_as_it_says() -> None:
    clock = [0.0]
    waiting = checks.Waiting(sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds), now=lambda: clock[0])
    one = check(until="status == '$wanted'", minutes=1, expected={"status": "done"})
    account = account_of({"status": "busy"}, {"status": "busy"}, {"status": "done"})
    assert checks.run(one, account, {"wanted": "done"}, waiting).differences == ()
    assert clock[0] == 10.0
    (difference,) = checks.run(one, account_of({"status": "busy"}), {"wanted": "done"}, waiting).differences
    assert (difference.expected, difference.answered) == ("done", "busy")
    assert clock[0] == 70.0


def test_refusals_are_answers() -> None:
    refused = account_of({"Error": {"Code": "Gone", "Message": "no"}})
    selected = check(select="{code: Error.Code}", expected={"code": "Gone"})
    outcome = checks.run(selected, refused, {}, checks.Waiting())
    assert (outcome.differences, outcome.request_id) == ((), "of-the-refusal")
    wanted = checks.run(check(select="status", expected="done"), refused, {}, checks.Waiting())
    assert wanted.differences[0].answered == {"Error": {"Code": "Gone", "Message": "no"}}
    answered = checks.run(selected, account_of({"status": "done"}), {}, checks.Waiting())
    assert [one.where for one in answered.differences] == ["code", "status"]


def test_the_report_names_each_difference_with_its_request(tmp_path: Path) -> None:
    outcomes = [
        checks.run(check(name=name, expected={"status": "done"}), account_of(answer), {}, checks.Waiting())
        for name, answer in (("one", {"status": "done"}), ("two", {"status": "do|ne", "body": b"12"}))
    ]
    run = Run("2026-12-01 05:00 UTC", "1" * 12, "us-east-1", True, 2.0, 0.5, "stopped before scale", ("stack A",),
              tuple(outcomes))  # fmt: skip
    page, record = write(run, tmp_path / "report")
    text = page.read_text()
    for words in (
        "**1 of 2 checks differ", "### deploy: two", "request id of-the-answer", "| status | done | do\\|ne |",
        '| body | not there | "2 bytes" |', "stopped before scale", "- stack A", "says nothing about AWS",
    ):  # fmt: skip
        assert words in text
    found_again = json.loads(record.read_text())
    assert (found_again["differing"], found_again["outcomes"][1]["request_id"]) == (1, "of-the-answer")


def test_a_command_that_is_not_done_in_time_is_ended(project: Project) -> None:
    project.write("deploy")
    process = project._start("sleep", sys.executable, "-c", "import time; print('busy', flush=True); time.sleep(100)")
    with pytest.raises(OperationError, match="sleep was not done after 0 minutes"):
        project.finish(process, "sleep", 0)
    assert process.poll() is not None
    done = subprocess.Popen(["true"], start_new_session=True)
    done.wait()
    end(done)  # nothing to end


def test_without_a_budget_nothing_is_asked(run: Command, tmp_path: Path) -> None:
    code, _, err = run("conformance", "--root", str(tmp_path))
    assert (code, "--budget 2" in err) == (2, True)


def test_an_unknown_price_is_wrong_use(run: Command, aws: str, tmp_path: Path) -> None:
    code, _, err = run("conformance", "--budget", "2", "--rehearsal", "--root", str(tmp_path))
    assert (code, "--hourly-price" in err) == (2, True)


def test_leftovers_are_named_with_the_command_that_removes_them(
    run: Command, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.conformance.leftovers.POLL_SECONDS", 0.0)
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation").create_stack(StackName=STACK, TemplateBody=json.dumps(template))
    s3 = boto3.client("s3")
    for key in (f"models/{NAME}/0/model.tar.gz", "models/other/0/model.tar.gz"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    more = ("--rehearsal", "--root", str(tmp_path))
    code, _, err = run("conformance", "--budget", "2", "--hourly-price", "0.12", "--yes", *more)
    assert code == 1
    for words in (f"stack {STACK}", f"s3://{bucket}/models/{NAME}/0/model.tar.gz", "inferentia conformance --destroy"):
        assert words in err
    assert "models/other" not in err
    code, _, err = run("conformance", "--destroy", *more)
    assert (code, "--yes" in err) == (2, True)  # nobody to ask
    assert run("conformance", "--destroy", "--yes", *more)[0] == 0
    assert [row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["models/other/0/model.tar.gz"]
    code, _, err = run("conformance", "--destroy", "--yes", *more)
    assert (code, "nothing of a conformance run is there" in err) == (0, True)


def test_what_is_missing_and_a_budget_too_small_end_before_anything(
    run: Command, aws: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = ("--hourly-price", "0.12", "--yes", "--rehearsal", "--root", str(tmp_path))
    code, _, err = run("conformance", "--budget", "2", *given)
    assert (code, "cdk deploy InferentiaArtifacts" in err) == (1, True)
    request.getfixturevalue("bucket")
    code, _, err = run("conformance", "--budget", "2", *given)
    assert (code, "cdk bootstrap" in err) == (1, True)
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation").create_stack(StackName="CDKToolkit", TemplateBody=json.dumps(template))
    code, _, err = run("conformance", "--budget", "0.1", *given)
    assert (code, "stopped before deploy" in err) == (1, True)
    on_aws = [part for part in given if part != "--rehearsal"]
    code, _, err = run("conformance", "--budget", "2", *on_aws)
    assert (code, "inferentia image build" in err) == (1, True)
    assert found(Account()) == []
