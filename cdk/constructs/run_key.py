"""The customer key of a compile stack: logs and messages of its runs, and the disks of their Processing jobs."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk.constructs.encryption_key import logs_may_encrypt


class RunKey(Construct):
    """A rotated customer key. It goes with its stack: what it encrypts goes too, or ended with its run."""

    def __init__(
        self, scope: Construct, construct_id: str, *, endpoint_name: str, log_group_names: Sequence[str]
    ) -> None:
        """log_group_names: the only log groups that may be encrypted with the key."""
        super().__init__(scope, construct_id)
        self.key = kms.Key(
            self,
            "Key",
            description=f"Encrypts the logs, messages and disks of compile runs of endpoint {endpoint_name}",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.key.add_to_resource_policy(logs_may_encrypt(self, log_group_names))
