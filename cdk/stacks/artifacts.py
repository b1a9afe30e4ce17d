"""The stack that all endpoints share: the bucket with the compiled models."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from constructs import Construct

from ..constructs.artifact_bucket import ArtifactBucket
from ..constructs.labels import add_tags
from ..constructs.outputs import add_outputs
from ..deployment import Deployment

STACK_NAME = "InferentiaArtifacts"


class ArtifactsStack(Stack):
    """Bucket and key. In production both outlive the stack; in a rehearsal they go with it, once they are empty."""

    def __init__(
        self, scope: Construct, construct_id: str, *, compiled_here: Sequence[str] = (), deployment: Deployment
    ) -> None:
        """compiled_here: names of the endpoints that are compiled by jobs of this account."""
        super().__init__(
            scope,
            construct_id,
            stack_name=construct_id,
            env=deployment.environment,
            description="Compiled models of the Inferentia endpoints, addressed by their digests",
        )
        artifacts = ArtifactBucket(self, "Artifacts", compiled_here=compiled_here, disposable=deployment.rehearsal)
        self.bucket = artifacts.bucket
        self.key = artifacts.key
        # Always, whether or not an endpoint imports them at the moment: an export that came and went with its users
        # could not be removed while a deployed endpoint still uses it: a missing lock would then block this stack too.
        for value in (self.bucket.bucket_name, self.bucket.bucket_arn, self.key.key_arn):
            self.export_value(value)
        add_outputs(
            self,
            {
                "ArtifactBucketName": (self.bucket.bucket_name, "Bucket that `operations publish` uploads to"),
                "ArtifactKeyArn": (self.key.key_arn, "Key that encrypts the bucket"),
            },
        )
        add_tags(self, {}, rehearsal=deployment.rehearsal)
