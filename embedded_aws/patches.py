"""The places where moto itself is changed, each with its reason."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from typing import IO, Any

import moto.applicationautoscaling.urls
import moto.cloudformation.urls
import moto.cloudtrail.urls
import moto.cloudwatch.urls
import moto.codebuild.urls
import moto.ec2.urls
import moto.ecr.urls
import moto.sagemaker.urls
import moto.servicequotas.urls
import moto.sts.urls
from moto.cloudtrail.responses import CloudTrailResponse
from moto.core.config import default_user_config
from moto.core.responses import ActionResult, BaseResponse
from moto.s3.exceptions import BucketAlreadyExists
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends

from . import context
from .api import s3
from .api.autoscaling import AutoScaling
from .api.cloudformation import CloudFormation
from .api.cloudwatch import CloudWatch
from .api.codebuild import CodeBuild
from .api.ec2 import Ec2
from .api.quotas import Registry, ServiceQuotas
from .api.sagemaker import SageMaker
from .api.sts import Sts
from .stepfunctions import states


class CloudTrail(CloudTrailResponse):
    """LookupEvents, which the CDK CLI asks for after a failed deployment; no management events are kept here.

    Source: https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
    """

    def lookup_events(self) -> Any:
        """An empty list."""
        return ActionResult({"Events": []})


@functools.cache
def install() -> None:
    """Put our answers in place of moto's, once in a process. Must run before the first request."""
    default_user_config["iam"] = {"load_aws_managed_policies": True}
    moto.cloudformation.urls.url_paths["{0}/$"] = CloudFormation.dispatch
    moto.sagemaker.urls.url_paths["{0}/$"] = SageMaker.dispatch
    moto.cloudwatch.urls.url_paths["{0}/$"] = CloudWatch.dispatch
    moto.codebuild.urls.url_paths["{0}/$"] = CodeBuild.dispatch
    moto.applicationautoscaling.urls.url_paths["{0}/$"] = AutoScaling.dispatch
    moto.cloudtrail.urls.url_paths["{0}/$"] = CloudTrail.dispatch
    moto.ec2.urls.url_paths["{0}/"] = Ec2.dispatch
    moto.sts.urls.url_paths["{0}/$"] = Sts.dispatch
    moto.ecr.urls.url_paths["{0}/$"] = Registry.dispatch
    moto.servicequotas.urls.url_paths["{0}/$"] = ServiceQuotas.dispatch
    states.install()
    s3.install()
    _treat_loopback_as_tls()
    _let_logging_wait_for_its_policy()
    _deliver_no_access_logs()
    _take_the_account_of_the_server()
    _keep_bucket_names_apart()
    _keep_objects_in_the_folder_of_the_server()


def _take_the_account_of_the_server() -> None:
    """The account of a request is its server's; moto would search all accounts for the access key."""
    BaseResponse.get_current_account = lambda self: str(self.headers["X-Moto-Account-Id"])  # type: ignore[method-assign]


def _keep_bucket_names_apart() -> None:
    """A bucket is known to its own account only, so that two servers may have one of the same name."""

    class NoNames(dict[str, tuple[str, str]]):
        """The names that moto's accounts have in common: none."""

        def __setitem__(self, name: str, owner: tuple[str, str]) -> None:
            """Nothing is kept."""

    s3_backends.bucket_accounts = NoNames()
    original = S3Backend.create_bucket

    def create_bucket(self: S3Backend, bucket_name: str, *more: Any, **named: Any) -> FakeBucket:
        if bucket_name in self.buckets:
            raise BucketAlreadyExists(bucket=bucket_name)
        return original(self, bucket_name, *more, **named)

    S3Backend.create_bucket = create_bucket  # type: ignore[method-assign]


def _keep_objects_in_the_folder_of_the_server() -> None:
    """Large objects are temporary files under the server's directory; moto would take the machine's folder for them."""

    def put(self: FakeKey, buffer: IO[bytes]) -> None:
        buffer.close()
        folder = context.of(self.account_id).host.scratch
        vars(self)["_value_buffer"] = tempfile.SpooledTemporaryFile(self._max_buffer_size, dir=str(folder))  # noqa: SIM115

    FakeKey._value_buffer = property(lambda self: vars(self)["_value_buffer"], put)  # type: ignore[assignment]


def _treat_loopback_as_tls() -> None:
    """A bucket policy that denies requests without TLS is kept as written and not held against loopback requests.

    moto denies whenever a Deny statement has a condition that it cannot see met; here aws:SecureTransport counts as
    true and s3:TlsVersion as current, so that statements which only ask for those do not apply.
    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-securetransport
    """
    original = FakeBucket.get_permission

    def get_permission(self: FakeBucket, action: str, resource: str) -> Any:
        kept = self.policy
        if kept is None:
            return original(self, action, resource)
        body = json.loads(kept)
        statements = body["Statement"] if isinstance(body["Statement"], list) else [body["Statement"]]
        body["Statement"] = [row for row in statements if not (_asks_only_for_tls(row) or s3.asks_for_new_keys(row))]
        shown = copy.copy(self)
        shown.policy = json.dumps(body).encode()
        return original(shown, action, resource)

    FakeBucket.get_permission = get_permission  # type: ignore[method-assign]


def _let_logging_wait_for_its_policy() -> None:
    """PutBucketLogging takes a target whose bucket policy does not allow the log delivery yet.

    moto refuses it, although the policy usually names the source bucket and so can only come after it.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    """
    FakeBucket._log_permissions_enabled_policy = staticmethod(lambda **_: True)  # type: ignore[method-assign,assignment]


def _deliver_no_access_logs() -> None:
    """Server access logging is configured and read back; no log objects are written.

    On AWS they arrive within hours; moto writes them with each request, also those that empty and delete the buckets,
    so that a bucket for logs could never be deleted with its stack.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerLogs.html#LogDeliveryBestEffort
    """
    S3Backend.log_incoming_request = lambda *_: None  # type: ignore[method-assign]


def _asks_only_for_tls(statement: dict[str, Any]) -> bool:
    keys = {key.lower() for test in (statement.get("Condition") or {}).values() for key in test}
    return statement.get("Effect") == "Deny" and bool(keys) and keys <= {"aws:securetransport", "s3:tlsversion"}
