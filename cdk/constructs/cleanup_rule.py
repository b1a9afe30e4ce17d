"""The rule that starts the cleanup when a run ended badly."""

from __future__ import annotations

from aws_cdk import aws_events as events
from constructs import Construct

from ..permissions import allow, role_of

# FAILED as well: a run's own Catch sees neither an overflowing history nor data that is too large.
BADLY = ("ABORTED", "FAILED", "TIMED_OUT")


class CleanupRule(Construct):
    """A stopped or timed-out execution enters no further state: somebody else has to end what it left running.

    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """

    def __init__(self, scope: Construct, construct_id: str, *, run: str, cleanup: str, endpoint_name: str) -> None:
        """run, cleanup: ARNs of the machine that is watched and of the one that is started."""
        super().__init__(scope, construct_id)
        role = role_of(
            self,
            "events",
            f"Starts the cleanup behind compile runs of endpoint {endpoint_name}",
            {"Start": [allow("StartCleanup", "states:StartExecution", cleanup)]},
            # The rule itself comes after its role. CloudFormation begins its name with the stack's, shortened where
            # that has more than the 64 characters of a rule's name.
            # https://docs.aws.amazon.com/eventbridge/latest/userguide/cross-service-confused-deputy-prevention.html
            source="rule/InferentiaCompile-*",
        )
        events.CfnRule(
            self,
            "Rule",
            description=f"Ends what a compile run of endpoint {endpoint_name} left running",
            event_pattern={
                "source": ["aws.states"],
                "detail-type": ["Step Functions Execution Status Change"],
                "detail": {"stateMachineArn": [run], "status": list(BADLY)},
            },
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(id="Cleanup", arn=cleanup, role_arn=role.role_arn, input_path="$.detail")
            ],
        )
