"""Whether an image could be pulled. Nothing is pulled here: the job runs with a Python of this machine.

An image of an AWS account must be one of the tables images.yaml and registries.yaml; one of the account's own
registry must be in the local ECR. The wording of the failure is what SageMaker reports,
https://github.com/aws-samples/amazon-sagemaker-tensorflow-object-detection-api/issues/14.
"""

from __future__ import annotations

import functools
import re

from botocore.exceptions import ClientError

from endpoint_spec import platforms

from ..clients import Clients

URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/"
    r"(?P<repository>[a-z0-9._/-]+)(:(?P<tag>[\w.-]+)|@(?P<digest>sha256:[0-9a-f]{64}))"
)


def image_fault(clients: Clients, account: str, uri: str) -> str | None:
    """The FailureReason of a job whose image cannot be pulled, or None."""
    parts = URI.fullmatch(uri)
    if parts is None:
        return f"ClientError: {uri} is not the URI of an image in Amazon ECR with a tag or a digest"
    found = _in_own_registry(clients, parts) if parts["account"] == account else _in_table(parts)
    missing = f"manifest for {uri} not found: manifest unknown: Requested image not found"
    return None if found else f"ClientError: API error (404): {missing}"


def _in_own_registry(clients: Clients, parts: re.Match[str]) -> bool:
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"]}
    try:
        client = clients.client("ecr", parts["region"])
        return bool(client.describe_images(repositoryName=parts["repository"], imageIds=[wanted])["imageDetails"])
    except ClientError:  # RepositoryNotFoundException or ImageNotFoundException
        return False


def _in_table(parts: re.Match[str]) -> bool:
    owner = platforms.registry_accounts().get(parts["region"])
    return parts["account"] == owner and (parts["repository"], parts["tag"]) in _aws_images()


@functools.cache
def _aws_images() -> frozenset[tuple[str, str]]:
    """Repository and tag of AWS's own images."""
    return frozenset((image.repository, image.tag) for image in platforms.images() if image.registry == "aws")
