"""Content-addressed folders in S3: named by the digest of their files, completed rather than uploaded twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec.jobs import files_digest

from ..account import Account
from ..errors import OperationError

# Shows an upload to a place, of a size in bytes, while the block runs; the function is given the bytes sent.
Uploading = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Folder:
    """Files of a folder, each with its sha256 in hex. `last` is uploaded after all the others."""

    path: Path
    files: Mapping[str, str]
    last: str | None = None

    @property
    def digest(self) -> str:
        """The name of this content."""
        return files_digest(self.files)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {path: (self.path / path).stat().st_size for path in self.files}


def upload(
    account: Account, bucket: str, prefix: str, folder: Folder, progress: Callable[[int], None] | None = None
) -> int:
    """Bring a folder to a prefix that ends with its digest; return the bytes that had to be sent.

    What lies there in its full size is left alone.

    S3 checks the sha256 of what arrives; the jobs check every file once more before they use it.

    Raises:
        OperationError: where the bucket cannot be written, or the connection ended. What has arrived stays.
    """
    sizes = folder.sizes
    there = stored(account, bucket, prefix)
    missing = sorted((path for path, size in sizes.items() if there.get(path) != size), key=lambda p: p == folder.last)
    for path in missing:
        with _writing(bucket, prefix + path):
            settings = {"ChecksumAlgorithm": "SHA256"}
            source = str(folder.path / path)
            account.s3.upload_file(source, bucket, prefix + path, ExtraArgs=settings, Callback=progress)
    after = stored(account, bucket, prefix)
    damaged = sorted(path for path, size in sizes.items() if after.get(path) != size)
    if damaged:
        raise OperationError(
            f"s3://{bucket}/{prefix} is not whole after the upload: {', '.join(damaged)}. Run it again."
        )
    return sum(sizes[path] for path in missing)


def stored(account: Account, bucket: str, prefix: str) -> dict[str, int]:
    """Bytes of every object under a prefix, by the rest of its key.

    Raises:
        OperationError: where the bucket is not there or may not be listed.
    """
    found = {}
    try:
        for page in account.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for row in page.get("Contents", []):
                found[row["Key"].removeprefix(prefix)] = row["Size"]
    except ClientError as error:
        raise OperationError(f"s3://{bucket}/{prefix} cannot be listed: {error}") from error
    return found


@contextmanager
def _writing(bucket: str, key: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error) as error:
        raise OperationError(
            f"s3://{bucket}/{key} could not be written: {error}. No run was started. Your identity needs s3:PutObject "
            f"under {key.partition('/')[0]}/ of that bucket and kms:GenerateDataKey on its key. What has arrived is "
            "not sent again."
        ) from error
