"""Fetching a model's tarball from the local S3 and unpacking it safely.

Source: "Deploy uncompressed models" / ModelDataUrl, "must point to a single gzip compressed tar archive",
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ContainerDefinition.html
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from endpoint_spec import archives

from ..clients import Clients


class ArtifactError(Exception):
    """The model's data cannot be used; the text becomes the endpoint's FailureReason."""


def fetch(clients: Clients, region: str, url: str, directory: Path) -> Path:
    """Unpack `s3://bucket/key` into `directory`/model and return that folder. Raises ArtifactError.

    Only regular files and folders are taken; what else is refused stands in endpoint_spec/archives.py.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        raise ArtifactError(f"ModelDataUrl must be s3://BUCKET/KEY, not {url!r}")
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "model.tar.gz"
    try:
        clients.client("s3", region).download_file(parts.netloc, parts.path.lstrip("/"), str(archive))
    except ClientError as error:
        code = error.response["Error"].get("Code")
        raise ArtifactError(f"Could not find model data at {url} ({code}). Publish the artifact first.") from error
    model = directory / "model"
    try:
        archives.extract(archive, model, compressed=True)
    except (archives.ArchiveError, OSError) as error:
        raise ArtifactError(f"Model data at {url} is not a safe gzip compressed tar archive: {error}") from error
    archive.unlink()
    if not (model / "code" / "inference_code").is_dir():
        raise ArtifactError(f"Model data at {url} has no code/inference_code: nothing could serve it here")
    return model
