"""Upload an endpoint's artifact to the artifact bucket, under its digest."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from endpoint_spec.digests import file_digest

from .account import Account, code_of
from .errors import OperationError
from .locked import Locked, guard

# Above this an upload is in parts, goes on after a lost connection, and has to be read to be compared.
TRANSFER = TransferConfig(multipart_threshold=256 * 1024 * 1024)


@dataclass(frozen=True)
class Published:
    """Where an artifact lies now."""

    name: str
    bucket: str
    key: str
    bytes: int
    uploaded: bool  # False: it was there already
    rehearsal: bool


def verify_artifact(locked: Locked) -> None:
    """Refuse a missing artifact, or one that is not the locked one.

    Raises:
        OperationError: with the command that helps.
    """
    lock, path = locked.lock, locked.artifact
    again = f'"inferentia build {lock.name}{" --rehearse" if lock.rehearsal else ""}"'
    if not path.is_file():
        raise OperationError(f"the artifact {path} is not on this machine. Build it: {again}.")
    found = file_digest(path)
    if found != lock.digests.artifact:
        raise OperationError(
            f"the artifact {path} is not the locked one: its sha256 is {found}, "
            f"the lock names {lock.digests.artifact}. Build it again: {again}."
        )


def stored_sha256(account: Account, bucket: str, key: str) -> str | None:
    """The sha256 of an object, None where there is none.

    S3 has it of what arrived in one request, and it is read then; of an upload in parts S3 has the parts' alone
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html), and the object is read.
    """
    try:
        head = account.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return None
        raise
    if head.get("ChecksumType") == "FULL_OBJECT" and "ChecksumSHA256" in head:
        return base64.b64decode(head["ChecksumSHA256"]).hex()
    digest = hashlib.sha256()
    for block in account.s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def publish(locked: Locked, account: Account, progress: Callable[[int], None] | None = None) -> Published:
    """Upload the locked artifact, or find it already there. S3 shows an object only once it is whole.

    Raises:
        OperationError: a rehearsal aimed elsewhere than loopback, no artifact, another digest, no bucket, another
            object under the artifact's key.
    """
    lock = locked.lock
    guard(account, lock)
    verify_artifact(locked)
    bucket, key = account.artifact_bucket, lock.artifact.key
    found = stored_sha256(account, bucket, key)
    uploaded = found is None and _upload(account, locked.artifact, bucket, key, progress)
    found = found or stored_sha256(account, bucket, key)
    if found != lock.digests.artifact:
        raise OperationError(
            f"s3://{bucket}/{key} holds another object than the lock's: its sha256 is {found}. "
            "Somebody replaced it; look at the object's versions first."
        )
    return Published(lock.name, bucket, key, locked.artifact.stat().st_size, uploaded, lock.rehearsal)


def _upload(
    account: Account, artifact: Path, bucket: str, key: str, progress: Callable[[int], None] | None = None
) -> bool:
    """Upload under a key that is new, as the bucket demands; False: somebody else was faster (412)."""
    # S3 verifies the checksum on arrival and refuses what was damaged on the way.
    checksum = {"ChecksumAlgorithm": "SHA256"}
    events = [f"provide-client-params.s3.{operation}" for operation in ("PutObject", "CompleteMultipartUpload")]
    for event in events:  # the transfer manager takes the header for none of them
        account.s3.meta.events.register(event, _as_new, unique_id=event)
    try:
        account.s3.upload_file(str(artifact), bucket, key, ExtraArgs=checksum, Callback=progress, Config=TRANSFER)
    except S3UploadFailedError as error:
        cause = error.__context__
        if isinstance(cause, ClientError) and code_of(cause) == "PreconditionFailed":
            return False
        raise
    finally:
        for event in events:
            account.s3.meta.events.unregister(event, unique_id=event)
    return True


def _as_new(params: dict[str, Any], **_: Any) -> None:
    params["IfNoneMatch"] = "*"
