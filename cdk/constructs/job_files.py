"""Files of compile jobs and image builds in the artifact bucket, as permissions on a prefix and the bucket's key."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from endpoint_spec import jobs

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
        """What a job needs: to read inputs and wheels, and to write its cache and runs; inputs stay what they were."""
        return [
            self.read(*self._read_by_job),
            self.write(*self._written_by_job),
            self.find(jobs.base_prefix(self.name)),
            self.use_key(),
        ]

    def job_patterns(self) -> dict[str, str]:
        """The resources that a job's statements name by a pattern, each with the reason, for cdk-nag."""
        return self.patterns(*self._read_by_job, *self._written_by_job)

    @property
    def _read_by_job(self) -> tuple[str, str]:
        base = jobs.base_prefix(self.name)
        return f"{base}inputs/", f"{base}wheels/"

    @property
    def _written_by_job(self) -> tuple[str, str]:
        return jobs.cache_prefix(self.name), jobs.runs_prefix(self.name)

    def patterns(self, *prefixes: str) -> dict[str, str]:
        """The resources of statements on everything below prefixes, each with the reason, for cdk-nag."""
        arn = Stack.of(self.bucket).export_value(self.bucket.bucket_arn)  # as the role's template has it
        reason = "Objects are named by digests that no template knows; the prefix is theirs alone."
        return {f"{arn}/{prefix}*": reason for prefix in prefixes}

    def _below(self, prefixes: Sequence[str]) -> list[str]:
        return [self.bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes]
