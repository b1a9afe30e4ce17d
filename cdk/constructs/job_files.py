"""The files of an endpoint's compile jobs in the artifact bucket, as permissions on a prefix and the bucket's key."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct, IConstruct

from endpoint_spec import jobs

from ..nag import acknowledge_pattern
from ..permissions import allow

WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")


class JobFiles:
    """Makes statements for roles; owns no resource. name: the endpoint's."""

    def __init__(self, scope: Construct, *, name: str, bucket: s3.IBucket, key: kms.IKey) -> None:
        self.name, self.bucket, self.key = name, bucket, key
        self._stack = Stack.of(scope)

    def read(self, *prefixes: str) -> iam.PolicyStatement:
        """Get the objects below prefixes."""
        return allow("ReadFiles", "s3:GetObject", self._below(prefixes))

    def write(self, *prefixes: str) -> iam.PolicyStatement:
        """Put objects below prefixes; there is no permission to delete any."""
        return allow("WriteFiles", WRITE, self._below(prefixes))

    def find(self, *prefixes: str) -> iam.PolicyStatement:
        """List what is below prefixes. Without it, S3 answers 403 for an object that is not there."""
        below = {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}
        return allow("FindFiles", "s3:ListBucket", self.bucket.bucket_arn, StringLike=below)

    def use_key(self) -> iam.PolicyStatement:
        """Decrypt and encrypt with the bucket's key, through S3 alone."""
        through_s3 = {"kms:ViaService": f"s3.{self._stack.region}.{self._stack.url_suffix}"}
        actions = ["kms:Decrypt", "kms:GenerateDataKey"]
        return allow("UseBucketKey", actions, self.key.key_arn, StringEquals=through_s3)

    def for_job(self) -> list[iam.PolicyStatement]:
        """What a job needs: to read jobs/NAME/, and to write its cache and runs; inputs stay what they were."""
        base, *written = self._of_job()
        return [self.read(base), self.write(*written), self.find(base), self.use_key()]

    def acknowledge_job(self, role: IConstruct) -> None:
        """Tell cdk-nag why a role has what a job needs."""
        self.acknowledge(role, *self._of_job())

    def _of_job(self) -> tuple[str, str, str]:
        return jobs.base_prefix(self.name), jobs.cache_prefix(self.name), jobs.runs_prefix(self.name)

    def acknowledge(self, role: IConstruct, *prefixes: str) -> None:
        """Tell cdk-nag why a role has everything below these prefixes."""
        arn = Stack.of(self.bucket).export_value(self.bucket.bucket_arn)  # as the role's template has it
        for prefix in prefixes:
            acknowledge_pattern(
                role,
                resource=f"{arn}/{prefix}*",
                reason="Objects are named by digests that no template knows; the prefix is this endpoint's.",
            )

    def _below(self, prefixes: Sequence[str]) -> list[str]:
        return [self.bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes]
