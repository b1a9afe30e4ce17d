"""Empty the artifact bucket, every version, so that its stack can be destroyed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .account import Account
from .errors import OperationError

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

BATCH = 1000  # DeleteObjects takes at most 1000 keys (S3 API reference)


def versions(account: Account, bucket: str) -> Iterator[tuple[str, str, int]]:
    """Key, version id and bytes of every version and delete marker."""
    for page in account.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            yield version["Key"], version["VersionId"], version["Size"]
        for marker in page.get("DeleteMarkers", []):
            yield marker["Key"], marker["VersionId"], 0


def empty(account: Account, bucket: str, rows: list[tuple[str, str, int]]) -> int:
    """Delete these versions; return how many.

    Raises:
        OperationError: naming the first version that S3 would not delete.
    """
    for start in range(0, len(rows), BATCH):
        objects: list[ObjectIdentifierTypeDef] = [
            {"Key": key, "VersionId": version} for key, version, _ in rows[start : start + BATCH]
        ]
        answer = account.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", []):
            raise OperationError(f"s3://{bucket}/{error.get('Key')} could not be deleted: {error.get('Message')}")
    return len(rows)
