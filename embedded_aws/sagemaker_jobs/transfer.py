"""What a Processing job reads from S3 and what it leaves there.

Sources: "How Amazon SageMaker Processing Configures Input and Output For Your Processing Container",
https://docs.aws.amazon.com/sagemaker/latest/dg/byoc-input-and-output.html (symbolic links are not followed), and
ProcessingS3Input, ProcessingS3Output of the SageMaker API Reference,
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProcessingS3Input.html (S3Prefix, ManifestFile).
The wording of failures follows what is reported from SageMaker, e.g.
https://github.com/aws-samples/sagemaker-run-notebook/issues/32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

PART_BYTES = 8 * 1024 * 1024


class TransferError(Exception):
    """Data that could not be fetched or stored; the text becomes the job's FailureReason."""


def location(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def download(client: Any, source: dict[str, Any], folder: Path) -> None:
    """Fetch one S3Input into `folder`. Raises TransferError."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = str(source["S3Uri"])
    try:
        pairs = _manifest(client, uri) if source["S3DataType"] == "ManifestFile" else _prefix(client, uri)
        for bucket, key, relative in pairs:
            target = inside(folder, relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
    except (ClientError, BotoCoreError) as error:
        raise TransferError(f"ClientError: Failed to download data from {uri}: {_message(error)}") from error


def inside(folder: Path, relative: str) -> Path:
    """A path below `folder`; an object whose name leads out of it is refused."""
    target = (folder / relative).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise TransferError(f"ClientError: the object name {relative} leads out of its folder")
    return target


def _prefix(client: Any, uri: str) -> list[tuple[str, str, str]]:
    """Every object whose key begins with the prefix: bucket, key, path below the input's folder."""
    bucket, prefix = location(uri)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    if not keys:
        raise TransferError(
            f'ClientError: No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
            "the bucket exists in the selected region, that objects exist under that S3 prefix, and that the role has "
            "s3:ListBucket permission on the bucket."
        )
    return [(bucket, key, key[len(prefix) :].lstrip("/") or key.rsplit("/", 1)[-1]) for key in keys]


def _manifest(client: Any, uri: str) -> list[tuple[str, str, str]]:
    """The objects that a manifest names: [{"prefix": "s3://bucket/a/"}, "b/c", ...]."""
    bucket, key = location(uri)
    text = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        head, *names = json.loads(text)
        prefix_bucket, prefix = location(head["prefix"])
        return [(prefix_bucket, prefix + name, str(name)) for name in names]
    except (ValueError, TypeError, KeyError) as error:
        raise TransferError(
            f'ClientError: the manifest {uri} is not a list of {{"prefix": ...}} and object names ({error!r})'
        ) from error


def files(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, sorted; links are neither followed nor listed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path


class Upload:
    """One S3Output: `once` stores what is new or changed since the last time."""

    def __init__(self, client: Any, folder: Path, uri: str) -> None:
        self.client, self.folder, self.uri = client, folder, uri
        self._seen: dict[Path, tuple[int, int]] = {}

    def once(self) -> None:
        """Store every new or changed file. Raises TransferError at the first that cannot be stored."""
        bucket, prefix = location(self.uri)
        for path in files(self.folder):
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size)
            if self._seen.get(path) == mark:
                continue
            key = "/".join(part for part in (prefix.rstrip("/"), path.relative_to(self.folder).as_posix()) if part)
            try:
                # one thread: a part that fails leaves no others behind it
                settings = TransferConfig(multipart_threshold=PART_BYTES, use_threads=False)
                self.client.upload_file(str(path), bucket, key, Config=settings)
            except (ClientError, BotoCoreError, S3UploadFailedError) as error:
                raise TransferError(
                    f"ClientError: Failed to upload data. PutObject failed for s3://{bucket}/{key}: {_message(error)}"
                ) from error
            self._seen[path] = mark


def _message(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"{error.response['Error'].get('Code')}: {error.response['Error'].get('Message')}"
    return str(error)
