"""The least that people and pipelines need: an IAM policy each for publisher, deployer, submitter, invoker, CI ...

Actions and resource types are those of https://docs.aws.amazon.com/service-authorization/latest/reference/. The names
that CloudFormation makes up begin with their stack's or their own in the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a policy is for. endpoint: its name, "*" for all. qualifier: of `cdk bootstrap`."""

    account: str
    region: str
    endpoint: str = "*"
    qualifier: str = "hnb659fds"

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource here."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    @property
    def bucket(self) -> str:
        """The artifact bucket's ARN."""
        return "arn:aws:s3:::inferentiaartifacts-artifactsbucket*"


def _allow(sid: str, actions: Sequence[str], resources: str | Sequence[str], **conditions: Any) -> Statement:
    found = {"Sid": sid, "Effect": "Allow", "Action": list(actions)}
    found["Resource"] = [resources] if isinstance(resources, str) else list(resources)
    return {**found, **({"Condition": conditions} if conditions else {})}


def _find_stacks(place: Place, *stacks: str) -> Statement:
    return _allow("FindStacks", ["cloudformation:DescribeStacks"], _stacks(place, *stacks))


def _stacks(place: Place, *stacks: str) -> list[str]:
    return [place.arn("cloudformation", f"stack/{one}/*") for one in stacks]


def _files(place: Place, sid: str, prefix: str) -> list[Statement]:
    """Read and write below a prefix; listing it makes S3 answer 404, not 403, for what is not there."""
    below = f"{prefix}/{place.endpoint}/*"
    through = {"StringEquals": {"kms:ViaService": f"s3.{place.region}.amazonaws.com"}}
    return [
        _allow(sid, ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], f"{place.bucket}/{below}"),
        _allow(f"{sid}Found", ["s3:ListBucket"], place.bucket, StringLike={"s3:prefix": [below]}),
        _allow(f"{sid}Key", ["kms:Decrypt", "kms:GenerateDataKey"], place.arn("kms", "key/*"), **through),
    ]


def publisher(place: Place) -> list[Statement]:
    """`inferentia publish`. The bucket's own policy sees to it that no model is written twice."""
    return [_find_stacks(place, "InferentiaArtifacts"), *_files(place, "Models", "models")]


def submitter(place: Place) -> list[Statement]:
    """`inferentia submit`, `attach` and `wheels`; what they build they publish."""
    name = place.endpoint
    # Step Functions' machines are named for their logical ids alone.
    runs = [place.arn("states", "stateMachine:RunsRunMachine*"), place.arn("states", "execution:RunsRunMachine*:*")]
    look = ["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"]
    logs = [
        place.arn("logs", f"log-group:{group}:*")
        for group in ("/aws/sagemaker/ProcessingJobs", f"/aws/vendedlogs/states/InferentiaCompile-{name}")
    ]
    return [
        _find_stacks(place, "InferentiaArtifacts", f"InferentiaCompile-{name}"),
        *_files(place, "Models", "models"),
        *_files(place, "Jobs", "jobs"),
        _allow("KeepWheels", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], f"{place.bucket}/wheels/*"),
        _allow("FindWheels", ["s3:ListBucket"], place.bucket, StringLike={"s3:prefix": ["wheels/*"]}),
        _allow("StartRuns", ["states:StartExecution", "states:ListExecutions"], runs[0]),
        _allow("FollowRuns", look, runs[1]),
        _allow("ReadLogs", ["logs:DescribeLogStreams", "logs:GetLogEvents"], logs),
        _allow("FindInstances", ["ec2:DescribeInstances"], "*"),
    ]


def invoker(place: Place) -> list[Statement]:
    """InvokeEndpoint. SageMaker's ARNs have an endpoint's name in lower case."""
    names = sorted({place.endpoint, place.endpoint.lower()})
    endpoints = [place.arn("sagemaker", f"endpoint/{name}") for name in names]
    return [_allow("Invoke", ["sagemaker:InvokeEndpoint"], endpoints)]


def deployer(place: Place) -> list[Statement]:
    """`cdk diff` and `cdk deploy`, `inferentia preflight`, `image`, `wait`, `guard`, `status` and what `smoke`
    compares.

    What a deployment may do is the business of CloudFormation's own role: `cdk bootstrap
    --cloudformation-execution-policies` (docs/deploying.md).
    """
    name, qualifier = place.endpoint, place.qualifier
    roles = [
        f"arn:aws:iam::{place.account}:role/cdk-{qualifier}-{kind}-role-{place.account}-{place.region}"
        for kind in ("deploy", "file-publishing", "lookup")
    ]
    below = f"models/{name}/*"
    through = {"StringEquals": {"kms:ViaService": f"s3.{place.region}.amazonaws.com"}}
    stacks = ("InferentiaArtifacts", "InferentiaImages", f"InferentiaEndpoint-{name}", f"InferentiaCompile-{name}")
    builds = ["codebuild:BatchGetBuilds", "codebuild:StartBuild", "codebuild:StopBuild"]
    kinds = {"Endpoint": "endpoint", "EndpointConfig": "endpoint-config", "Model": "model"}
    return [
        _allow("ThroughTheCdksRoles", ["sts:AssumeRole"], roles),
        _find_stacks(place, *stacks, "CDKToolkit"),
        _allow("BuildImages", builds, place.arn("codebuild", "project/InferentiaImages")),
        _allow("FollowBuilds", ["logs:GetLogEvents"], place.arn("logs", "log-group:/aws/codebuild/InferentiaImages:*")),
        _allow("FindAlarms", ["cloudformation:ListStackResources"], _stacks(place, f"InferentiaEndpoint-{name}")),
        _allow("SeeAlarms", ["cloudwatch:DescribeAlarms"], place.arn("cloudwatch", "alarm:*")),
        _allow(
            "BootstrapVersion", ["ssm:GetParameter"], place.arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/version")
        ),
        _allow("ReadModels", ["s3:GetObject"], [f"{place.bucket}/{below}", f"{place.bucket}/images/*"]),
        _allow("FindModels", ["s3:ListBucket"], place.bucket, StringLike={"s3:prefix": [below, "wheels/*"]}),
        _allow("DecryptModels", ["kms:Decrypt"], place.arn("kms", "key/*"), **through),
        *(
            _allow(f"See{what}", [f"sagemaker:Describe{what}"], place.arn("sagemaker", f"{kind}/*"))
            for what, kind in kinds.items()
        ),
        _allow("SeeImage", ["ecr:DescribeImages"], f"arn:aws:ecr:{place.region}:*:repository/*"),
        _allow(
            "SeeServiceRoles",
            ["iam:GetRole"],
            f"arn:aws:iam::{place.account}:role/aws-service-role/*",
        ),
        # On everything: they list, or ask who asks.
        _allow("See", ["logs:DescribeLogGroups", "servicequotas:ListServiceQuotas", "sts:GetCallerIdentity"], "*"),
    ]


def ci(place: Place) -> list[Statement]:
    """Publishes, deploys and tries: all three."""
    return [*deployer(place), *publisher(place)[1:], *invoker(place)]


def conformance(place: Place) -> list[Statement]:
    """What `inferentia conformance` asks and removes beside ci's policy; for the endpoint inferentia-conformance.

    Deleting a stack is the business of the role that CloudFormation deployed it with. What AWS has to refuse for
    another reason must be allowed here.
    """
    name = place.endpoint
    stack, models = _stacks(place, f"InferentiaEndpoint-{name}"), f"{place.bucket}/models/{name}/*"
    asked = [place.arn("sagemaker", f"endpoint/{name}"), place.arn("sagemaker", "endpoint-config/*")]
    return [
        _allow("DeleteStack", ["cloudformation:DeleteStack"], stack),
        _allow("FindVersions", ["s3:ListBucketVersions"], place.bucket),
        _allow("DeleteVersions", ["s3:DeleteObjectVersion"], models),
        _allow("AskForRefusals", ["sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"], asked),
        _allow("InvokeNothing", ["sagemaker:InvokeEndpoint"], place.arn("sagemaker", f"endpoint/{name}-none")),
        _allow("SeeScaling", ["application-autoscaling:DescribeScalableTargets"], "*"),
        _allow("SeePolicies", ["application-autoscaling:DescribeScalingPolicies"], "*"),
        _allow("SeeMetrics", ["cloudwatch:ListDashboards", "cloudwatch:ListMetrics"], "*"),
    ]


ROLES = {
    "publisher": publisher,
    "deployer": deployer,
    "submitter": submitter,
    "invoker": invoker,
    "ci": ci,
    "conformance": conformance,
}


def document(role: str, place: Place) -> dict[str, Any]:
    """The policy of a role."""
    return {"Version": "2012-10-17", "Statement": ROLES[role](place)}
