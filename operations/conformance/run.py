"""A conformance run from its first step to its last, which is also taken after a failure or an interruption."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec import EndpointSpec, SpecErrors
from endpoint_spec.lock import LockError

from ..account import Account, stack_status_of
from ..errors import OperationError
from ..publish import publish
from ..rollout import guarded_deploy
from . import checks
from .leftovers import found, remove
from .plan import DESTROY, STEPS, Ledger, Step
from .project import NAME, STACK, Project, Say, end
from .report import Run

FAULTS = (OperationError, SpecErrors, LockError, ClientError, BotoCoreError, OSError)
REQUEST = json.dumps({"dense": [0.5] * 13, "sparse": [1, 2]}).encode()
# What the embedded AWS's alarms look at is then there at once; on AWS nobody can write to this namespace.
PAST_MINUTES = 3
# Requests from before the threshold was lowered leave the alarm's five minutes; a step has room for that.
QUIET_MINUTES = 7.0


@dataclass
class Conformance:
    """One run. waiting: how its checks wait. words: what its checks are filled in with."""

    project: Project
    account: Account
    ledger: Ledger
    waiting: checks.Waiting
    say: Say
    words: dict[str, Any] = field(default_factory=lambda: {"name": NAME, "stack": STACK, "request": REQUEST})
    outcomes: list[checks.Outcome] = field(default_factory=list)
    updating: subprocess.Popen[bytes] | None = None

    def run(self) -> Run:
        """Every step until one cannot be done; then everything is destroyed, whatever happened."""
        began, ended, left = datetime.now(UTC), "", list[str]()
        identity = self.account.client("sts").get_caller_identity()
        try:
            for step in STEPS[:-1]:
                self._step(step)
        except FAULTS as error:
            ended = str(error)
        except (KeyboardInterrupt, SystemExit):
            ended = "interrupted"
        finally:
            left = self._destroyed()
        return Run(
            began=f"{began:%Y-%m-%d %H:%M} UTC",
            account=identity["Account"],
            region=self.account.sagemaker.meta.region_name,
            rehearsal=self.project.rehearsal,
            budget=self.ledger.budget,
            spent=self.ledger.spent,
            ended=ended,
            left=tuple(left),
            outcomes=tuple(self.outcomes),
        )

    def _step(self, step: Step) -> None:
        actions: dict[str, Callable[[float], None]] = {
            "deploy": self._deploy, "update": self._update, "alarm": self._alarm, "rollback": self._rollback,
            "scale": self._scale,
        }  # fmt: skip
        self.ledger.begin(step)
        self.say(f"{step.name}: {step.does}")
        waits = sum(check.minutes for check in checks.load() if check.step == step.name)
        if step.name in actions:
            actions[step.name](step.minutes - waits)
        self._check(step.name)

    def _check(self, step: str) -> None:
        asked = replace(self.waiting, sleep=self._requests) if step == "alarm" else self.waiting
        for check in checks.load():
            if check.step == step:
                outcome = checks.run(check, self.account, self.words, asked)
                self.outcomes.append(outcome)
                state = f"DIFFERS in {len(outcome.differences)} places" if outcome.differences else "as expected"
                self.say(f"  {check.name}: {state}")

    # -- steps ----------------------------------------------------------------------------------------------------

    def _deploy(self, minutes: float) -> None:
        publish(self.project.locked(), self.account)
        self.project.cdk("deploy", *_deploying(STACK), minutes=minutes)
        self.words["alarm"] = self.account.outputs(STACK, "LatencyAlarmName")["LatencyAlarmName"]
        self.words["instance_type"] = self.project.locked().spec.serve.instance_type
        self._remember()

    def _update(self, minutes: float) -> None:
        self.project.write("update")
        self.project.cdk("update", *_deploying(STACK), minutes=minutes)
        self._remember()

    def _alarm(self, minutes: float) -> None:
        """Begin an update that the alarm takes back; the check of the alarm sends requests while it waits."""
        for _ in self.waiting.attempts(QUIET_MINUTES):
            if not self._rings():
                break
        watched = 1 if self.project.rehearsal else 10
        arguments = guarded_deploy(NAME, self.account, watched)
        self.project.write("alarm")
        self.updating = self.project.start_cdk("guarded update", *arguments, "--require-approval", "never")
        until = time.monotonic() + minutes * 60
        while self.updating.poll() is None and not _runs(self.account):
            if time.monotonic() > until:
                raise OperationError(f"no update of {STACK} began within {minutes:g} minutes")
            time.sleep(0.5)
        self._requests(0)

    def _rings(self) -> bool:
        found = self.account.cloudwatch.describe_alarms(AlarmNames=[self.words["alarm"]])["MetricAlarms"]
        return any(row["StateValue"] == "ALARM" for row in found)

    def _rollback(self, minutes: float) -> None:
        """Wait until the update was taken back, which fails the CDK CLI: the checks say what came of it."""
        assert self.updating is not None  # noqa: S101  (begun by the step before)
        try:
            self.project.finish(self.updating, "guarded update", minutes)
        except OperationError:
            if stack_status_of(STACK, self.account).endswith("_IN_PROGRESS"):
                raise

    def _scale(self, minutes: float) -> None:
        self.project.write("scale")
        triggers = ("--rollback-trigger-alarm-arns", "none")  # CloudFormation keeps those of the update before
        self.project.cdk("scale", *_deploying(STACK), *triggers, minutes=minutes)

    def _destroyed(self) -> list[str]:
        """Take everything away; what is left, with reasons. A second interruption ends that, and is said."""
        self.ledger.begin(DESTROY)
        try:
            if self.updating is not None:
                end(self.updating)
            if not found(self.account):
                return []
            self.say(f"destroy: {DESTROY.does}")
            self._cdk_destroy()
            left = remove(self.account, self.say)
            self._check("destroy")
        except (ClientError, BotoCoreError) as error:
            return [f"it could not be looked at: {error}"]
        except (KeyboardInterrupt, SystemExit):
            return ["destroying was interrupted: inferentia conformance --destroy"]
        finally:
            self.ledger.end()
        return left

    def _cdk_destroy(self) -> None:
        """The CDK CLI's way; what it cannot do CloudFormation is asked for next, so that its failure is only said."""
        try:
            self.project.cdk("destroy", "destroy", STACK, "--exclusively", "--force", minutes=DESTROY.minutes)
        except OperationError as error:
            self.say(str(error))

    # -- what steps share -----------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """The endpoint's configuration, which a rollback has to bring back."""
        self.words["config"] = self.account.sagemaker.describe_endpoint(EndpointName=NAME)["EndpointConfigName"]

    def _requests(self, seconds: float) -> None:
        """A request, and then the pause that a check makes; on the embedded AWS the minutes before are filled, too."""
        checks.ask(self.account, "sagemaker-runtime", "invoke_endpoint", _request())
        if self.project.rehearsal:
            data = [
                {
                    "MetricName": metric, "Timestamp": datetime.now(UTC) - timedelta(minutes=minute), "Value": 1000.0,
                    "Dimensions": [{"Name": "EndpointName", "Value": NAME}, {"Name": "VariantName", "Value": "main"}],
                }
                for minute in range(1, PAST_MINUTES + 1)
                for metric in ("Invocations", "ModelLatency")
            ]  # fmt: skip
            self.account.cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=data)  # type: ignore[arg-type]
        self.waiting.sleep(seconds)


def prepare(project: Project, account: Account, spec: EndpointSpec) -> None:
    """Refuse what cannot end well, before anything costs.

    Raises:
        OperationError: no bucket for the artifact, leftovers of an earlier run, no bootstrap, no image.
    """
    _ = account.artifact_bucket
    names = found(account)
    if names:
        raise OperationError(
            f"an earlier run left something: {', '.join(names)}. Remove it: inferentia conformance --destroy"
            f"{' --rehearsal' if project.rehearsal else ''}"
        )
    if not stack_status_of("CDKToolkit", account):
        raise OperationError('this account and region are not bootstrapped. Run: "cdk bootstrap".')
    project.require_image(spec)


def _deploying(stack: str) -> tuple[str, ...]:
    return "deploy", stack, "--exclusively", "--require-approval", "never", "--progress", "events"


def _runs(account: Account) -> bool:
    return stack_status_of(STACK, account).startswith("UPDATE_IN_PROGRESS")


def _request() -> dict[str, Any]:
    return {"EndpointName": NAME, "ContentType": "application/json", "Accept": "application/json", "Body": REQUEST}
