"""A Step Functions state machine with a role of its own and a log of every step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as stepfunctions
from constructs import Construct

from ..nag import acknowledge, acknowledge_any_resource
from ..permissions import allow, role_of

# https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy
_DELIVER_LOGS = (
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
)


class StateMachine(Construct):
    """machine: the resource. role: what it may do, and nothing more. arn: of the machine."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        definition: dict[str, Any],
        statements: Sequence[iam.PolicyStatement],
        log_group: logs.ILogGroup,
        description: str,
        any_resource: str = "",
    ) -> None:
        """definition: in the Amazon States Language; may hold tokens.

        any_resource: why statements have actions that take no resource, for cdk-nag; default: none has.
        """
        super().__init__(scope, construct_id)
        # Step Functions asks for these before it creates the machine; none of them takes a resource.
        deliver = allow("DeliverLogs", _DELIVER_LOGS, "*")
        self.role = role_of(
            self,
            "states",
            description,
            {"Machine": [*statements, deliver]},
            # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
            source="stateMachine:*",
        )
        acknowledge_any_resource(
            self.role, f"Log deliveries, for which Step Functions asks, take no resource. {any_resource}".strip()
        )
        self.machine = stepfunctions.CfnStateMachine(
            self,
            "Machine",
            role_arn=self.role.role_arn,
            state_machine_type="STANDARD",
            # Not Stack.to_json_string: it leaves out what is null, and ResultPath: null is what keeps a state's input.
            definition_string=json.dumps(definition, separators=(",", ":")),
            logging_configuration=stepfunctions.CfnStateMachine.LoggingConfigurationProperty(
                level="ALL",
                include_execution_data=True,  # keys, digests and names; no secrets
                destinations=[
                    stepfunctions.CfnStateMachine.LogDestinationProperty(
                        cloud_watch_logs_log_group=stepfunctions.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                            log_group_arn=log_group.log_group_arn
                        )
                    )
                ],
            ),
        )
        self.arn = self.machine.ref
        acknowledge(
            self.machine,
            finding="AwsSolutions-SF2",
            reason="A run is a handful of jobs of minutes to hours; its history and its log show every step. There are "
            "no requests whose way through services a trace would show.",
        )
