"""The places where moto itself is changed, each with its reason."""

from __future__ import annotations

import copy
import json
from typing import Any

import moto.applicationautoscaling.urls
import moto.cloudformation.urls
import moto.cloudtrail.urls
import moto.cloudwatch.urls
import moto.ec2.urls
import moto.sagemaker.urls
import moto.sts.urls
from moto.cloudtrail.responses import CloudTrailResponse
from moto.core.responses import ActionResult
from moto.s3.models import FakeBucket, S3Backend

from embedded_aws.cloudformation.api import CloudFormation
from embedded_aws.ec2.instances import Ec2
from embedded_aws.keys import Sts
from embedded_aws.monitoring.api import CloudWatch
from embedded_aws.sagemaker_jobs.api import SageMakerWithJobs
from embedded_aws.scaling import AutoScaling
from embedded_aws.stepfunctions import states


class CloudTrail(CloudTrailResponse):
    """LookupEvents, which the CDK CLI asks for after a failed deployment; no management events are kept here.

    Source: https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
    """

    def lookup_events(self) -> Any:
        """An empty list."""
        return ActionResult({"Events": []})


def install() -> None:
    """Put our answers in place of moto's. Must run before the first request."""
    moto.cloudformation.urls.url_paths["{0}/$"] = CloudFormation.dispatch
    moto.sagemaker.urls.url_paths["{0}/$"] = SageMakerWithJobs.dispatch
    moto.cloudwatch.urls.url_paths["{0}/$"] = CloudWatch.dispatch
    moto.applicationautoscaling.urls.url_paths["{0}/$"] = AutoScaling.dispatch
    moto.cloudtrail.urls.url_paths["{0}/$"] = CloudTrail.dispatch
    moto.ec2.urls.url_paths["{0}/"] = Ec2.dispatch
    moto.sts.urls.url_paths["{0}/$"] = Sts.dispatch
    states.install()
    _treat_loopback_as_tls()
    _let_logging_wait_for_its_policy()
    _deliver_no_access_logs()


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
        body["Statement"] = [statement for statement in statements if not _asks_only_for_tls(statement)]
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
