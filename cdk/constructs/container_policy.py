"""What SageMaker does for a container, whichever role it is given: pull the image, publish metrics."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_iam as iam

from ..permissions import allow


def pulls_image(repository_arn: str) -> list[iam.PolicyStatement]:
    """Pull from one repository."""
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [
        allow("PullImage", pull, repository_arn),
        allow("LogInToRegistry", "ecr:GetAuthorizationToken", "*"),
    ]


def publishes_metrics(namespaces: Sequence[str]) -> iam.PolicyStatement:
    """Write metrics of these namespaces of CloudWatch, and no others."""
    only = {"cloudwatch:namespace": namespaces if len(namespaces) > 1 else namespaces[0]}
    return allow("PublishMetrics", "cloudwatch:PutMetricData", "*", StringEquals=only)
