"""One key and one topic for all endpoints that ask for them: alarms.shared."""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Stack
from constructs import Construct

from endpoint_spec import EndpointSpec

from ..constructs.encryption_key import EncryptionKey
from ..constructs.labels import add_tags
from ..constructs.log_group import endpoint_log_group, run_log_group
from ..constructs.notification_topic import NotificationTopic
from ..deployment import Deployment

STACK_NAME = "InferentiaShared"


class SharedStack(Stack):
    """A customer key costs by the month, and each topic asks each e-mail address to confirm; here it is one of each.

    The addresses are those of all its endpoints. Without such an endpoint the stack is none of the app's.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, specs: Iterable[EndpointSpec], deployment: Deployment
    ) -> None:
        """specs: of the endpoints that share."""
        super().__init__(
            scope,
            construct_id,
            stack_name=construct_id,
            env=deployment.environment,
            description="Key and topic of the Inferentia endpoints that share them",
        )
        self.key = EncryptionKey(
            self,
            "Encryption",
            description="Encrypts messages, logs and disks of the endpoints that share it",
            log_groups=[endpoint_log_group("*"), run_log_group("*")],
            for_alarms="InferentiaEndpoint-*",
            keep=any(spec.logs.keep for spec in specs),
        ).key
        receivers = {receiver for spec in specs for receiver in spec.alarms.notify or ()}
        topic = NotificationTopic(
            self,
            "Notification",
            display_name="Inferentia endpoints",
            encryption_key=self.key,
            notify=sorted(receiver for receiver in receivers if not receiver.startswith("arn:")),
        )
        topic.admit(alarms="InferentiaEndpoint-*", rules="InferentiaEndpoint-*")
        self.topic = topic.topic
        for value in (self.key.key_arn, self.topic.topic_arn):  # always, as those of the artifacts
            self.export_value(value)
        add_tags(self, {}, rehearsal=deployment.rehearsal)
