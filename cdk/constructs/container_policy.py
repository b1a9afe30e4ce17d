"""What SageMaker does for a container, whichever role it is given: pull the image, publish metrics."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_iam as iam


def pulls_image(repository_arn: str) -> list[iam.PolicyStatement]:
    """Pull from one repository."""
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [
        iam.PolicyStatement(sid="PullImage", actions=pull, resources=[repository_arn]),
        iam.PolicyStatement(sid="LogInToRegistry", actions=["ecr:GetAuthorizationToken"], resources=["*"]),
    ]


def publishes_metrics(namespaces: Sequence[str]) -> iam.PolicyStatement:
    """Write metrics of these namespaces of CloudWatch, and no others."""
    return iam.PolicyStatement(
        sid="PublishMetrics",
        actions=["cloudwatch:PutMetricData"],
        resources=["*"],
        conditions={"StringEquals": {"cloudwatch:namespace": namespaces if len(namespaces) > 1 else namespaces[0]}},
    )
