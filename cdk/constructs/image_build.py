"""A CodeBuild project that builds container images into this account's registry, so that nobody needs Docker."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from endpoint_spec.built_images import SBOMS
from endpoint_spec.digests import image_files
from endpoint_spec.jobs import KEPT_WHEELS
from endpoint_spec.places import INSTALLED

from ..nag import acknowledge, acknowledge_any_resource, acknowledge_pattern, acknowledge_patterns
from ..permissions import allow, role_of
from .job_files import JobFiles

BUILDSPEC = "images/buildspec.yml"
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-available.html
BUILD_IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
# 64 GB of disk and 3 GB of memory; how large AWS's Neuron images are, no document says.
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-compute-types.html
COMPUTE, MINUTES = "BUILD_GENERAL1_SMALL", 60
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_PUSH = ("ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart")


class ImageBuild(Construct):
    """project: gets images/ and inference_code/ of this project and nothing else; `inferentia image build` starts it.

    It may pull the bases from AWS's registries, push to its own repositories, write its log, and in the artifact bucket
    read the wheels that are kept and write the lists of what images add.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        bases: Sequence[str],
        repositories: Sequence[ecr.IRepository],
        bucket: s3.IBucket,
        key: kms.IKey,
    ) -> None:
        """bases: repositories of AWS's registries; images of Amazon ECR Public need no permission. bucket, key: the
        artifacts'."""
        super().__init__(scope, construct_id)
        group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/codebuild/{name}",  # CodeBuild's own name for it
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        sources = self._sources()
        archive = sources.bucket.arn_for_objects(sources.s3_object_key)
        stack = Stack.of(self)
        files = JobFiles(self, name=name, bucket=bucket, key=key)
        found = [f"arn:{Aws.PARTITION}:ecr:{stack.region}:*:repository/{base}" for base in bases]
        self.role = role_of(
            self,
            "codebuild",
            "Builds images: reads the sources and the bases, writes the images and its log",
            {
                "Build": [
                    allow("ReadSources", ["s3:GetObject", "s3:GetObjectVersion"], archive),
                    allow("LogInToRegistries", "ecr:GetAuthorizationToken", "*"),
                    *([allow("PullBases", _PULL, found)] if found else []),
                    allow("PushImages", [*_PULL, *_PUSH], [one.repository_arn for one in repositories]),
                    files.read(KEPT_WHEELS),
                    files.find(KEPT_WHEELS),
                    files.write(SBOMS),
                    files.use_key(),
                    allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], group.log_group_arn),
                ]
            },
            # https://docs.aws.amazon.com/codebuild/latest/userguide/cross-service-confused-deputy-prevention.html
            source=f"project/{name}",
        )
        self.project = codebuild.CfnProject(
            self,
            "Project",
            name=name,
            description="Builds the container images of the native server; inferentia image build starts it",
            service_role=self.role.role_arn,
            source=codebuild.CfnProject.SourceProperty(
                type="S3",
                location=f"{sources.s3_bucket_name}/{sources.s3_object_key}",
                build_spec=BUILDSPEC,
            ),
            artifacts=codebuild.CfnProject.ArtifactsProperty(type="NO_ARTIFACTS"),
            environment=codebuild.CfnProject.EnvironmentProperty(
                type="LINUX_CONTAINER",
                image=BUILD_IMAGE,
                compute_type=COMPUTE,
                privileged_mode=True,
            ),
            logs_config=codebuild.CfnProject.LogsConfigProperty(
                cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=group.log_group_name
                )
            ),
            timeout_in_minutes=MINUTES,
        )
        self._acknowledge(found)
        acknowledge_patterns(self.role, files.patterns(KEPT_WHEELS, SBOMS))

    def _sources(self) -> assets.Asset:
        with tempfile.TemporaryDirectory() as folder:
            for path in image_files():
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(INSTALLED / path, target)
            return assets.Asset(self, "Sources", path=folder)

    def _acknowledge(self, bases: Sequence[str]) -> None:
        acknowledge_any_resource(self.role, "ecr:GetAuthorizationToken takes no resource.")
        for base in bases:
            reason = "AWS's registry is another account in some regions; the repository's name is fixed."
            acknowledge_pattern(self.role, resource=base, reason=reason)
        acknowledge(
            self.project,
            finding="AwsSolutions-CB3",
            reason="Docker builds images here, for which CodeBuild demands privileged mode "
            "(https://docs.aws.amazon.com/codebuild/latest/userguide/sample-docker.html).",
        )
        acknowledge(
            self.project,
            finding="AwsSolutions-CB4",
            reason="The project makes no artifacts and keeps no cache; its images are encrypted by the registry.",
        )
