"""The stack that makes the native server's container images: their repositories, and what builds them."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from endpoint_spec import built_images, digests, platforms
from endpoint_spec.platforms import Image

from ..constructs.image_build import ImageBuild
from ..constructs.labels import add_tags
from ..constructs.outputs import add_outputs
from ..deployment import Deployment
from .artifacts import ArtifactsStack

STACK_NAME = "InferentiaImages"


class ImagesStack(Stack):
    """No part of a rehearsal. The repositories outlive it: endpoints run their images."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        images: Sequence[Image],
        artifacts: ArtifactsStack,
        deployment: Deployment,
    ) -> None:
        """images: those of your own registry that the specs run."""
        super().__init__(
            scope,
            construct_id,
            stack_name=construct_id,
            env=deployment.environment,
            description="Container images of the native server, and the project that builds them",
        )
        # Endpoints name images by digest, so only what nobody could name any more is deleted: images without a tag.
        # Of a mirrored base nothing is: the images that its index lists have no tags.
        rules = [ecr.LifecycleRule(tag_status=ecr.TagStatus.UNTAGGED, max_image_age=Duration.days(14))]
        build = ImageBuild(
            self,
            "Build",
            name=STACK_NAME,
            bases=sorted({platforms.base_of(image).repository for image in images if image.base is None}),
            repositories=[
                *(self._repository(name, rules) for name in sorted({image.repository for image in images})),
                self._repository(built_images.MIRROR),
            ],
            bucket=artifacts.bucket,
            key=artifacts.key,
        )
        add_outputs(
            self,
            {
                "ImageProject": (build.project.ref, "CodeBuild project of `inferentia image build`"),
                "ImageSources": (digests.image_sources(), "sha256 of what the project builds"),
            },
        )
        add_tags(self, {}, rehearsal=False)

    def _repository(self, name: str, rules: Sequence[ecr.LifecycleRule] = ()) -> ecr.Repository:
        return ecr.Repository(
            self,
            "".join(part.title() for part in name.replace("/", "-").split("-")),
            repository_name=name,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            image_scan_on_push=True,
            lifecycle_rules=list(rules),
            removal_policy=RemovalPolicy.RETAIN,
        )
