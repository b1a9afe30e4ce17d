"""The bucket that holds every endpoint's model.tar.gz, addressed by its digest."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from endpoint_spec import jobs

from ..permissions import deny

# Inputs, wheels and compiled variants are made again where they are missing. What a run left is for reading soon after.
CACHE_DAYS, RUN_DAYS = 90, 30


class ArtifactBucket(Construct):
    """A private, versioned bucket under a customer key, with server access logs in a second bucket.

    bucket: holds models/NAME/SHA256/model.tar.gz for ever, each written once, and for a time jobs/NAME/, what compile
        jobs use; TLS only, no ACLs, encrypted with `key`.
    key: customer managed, rotated every year.
    access_logs: receives the server access logs, for 365 days. Encrypted by S3 itself, because log delivery does not
        support customer keys as the default encryption of its target
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html).
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, compiled_here: Sequence[str] = (), disposable: bool = False
    ) -> None:
        """compiled_here: names of the endpoints that compile jobs are for. Default: none.

        disposable: delete key and bucket with the stack; the bucket must be empty by then. Default: retain them.
        """
        super().__init__(scope, construct_id)
        removal = RemovalPolicy.DESTROY if disposable else RemovalPolicy.RETAIN
        self.key = kms.Key(
            self,
            "Key",
            description="Encrypts the compiled models of the Inferentia endpoints",
            enable_key_rotation=True,
            removal_policy=removal,
        )
        self.access_logs = s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            lifecycle_rules=[s3.LifecycleRule(id="ExpireLogs", expiration=Duration.days(365))],
            # Always kept: deleting the other bucket is logged too, so this one is never empty when its turn comes.
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # One data key a bucket instead of one call to KMS an object.
            bucket_key_enabled=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            server_access_logs_bucket=self.access_logs,
            server_access_logs_prefix="artifacts/",
            lifecycle_rules=[
                # What a broken upload leaves behind is invisible and is paid for.
                s3.LifecycleRule(id="AbortUploads", abort_incomplete_multipart_upload_after=Duration.days(7)),
                _expire("ExpireJobs", jobs.JOBS, CACHE_DAYS),
                *(_expire(f"ExpireRuns-{name}", jobs.runs_prefix(name), RUN_DAYS) for name in compiled_here),
            ],
            removal_policy=removal,
        )
        # Written once: without the header that asks for a new key nobody writes a model, by copying neither. Parts of
        # an upload cannot carry it and are no objects yet; the request that makes one of them has to.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
        self.bucket.add_to_resource_policy(
            deny(
                "ModelsAreWrittenOnce",
                "s3:PutObject",
                self.bucket.arn_for_objects("models/*"),
                Null={"s3:if-none-match": "true"},
                Bool={"s3:ObjectCreationOperation": "true"},
            )
        )
        # What is kept stays closed: the policies go with their buckets, not with the stack.
        for bucket, fate in ((self.bucket, removal), (self.access_logs, RemovalPolicy.RETAIN)):
            if bucket.policy is not None:
                bucket.policy.apply_removal_policy(fate)


def _expire(rule: str, prefix: str, days: int) -> s3.LifecycleRule:
    """Expire what is below a prefix, and a week later what it replaced or leaves behind as a version.

    S3 clears the delete markers away itself, as they reach the same age.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html
    """
    return s3.LifecycleRule(
        id=rule, prefix=prefix, expiration=Duration.days(days), noncurrent_version_expiration=Duration.days(7)
    )
