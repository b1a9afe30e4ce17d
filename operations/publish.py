"""Upload an endpoint's artifact to the artifact bucket, under its digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import ClientError

from endpoint_spec.digests import file_digest

from .account import Account
from .errors import OperationError
from .locked import Locked, guard


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


def stored_size(account: Account, bucket: str, key: str) -> int | None:
    """Bytes of an object, None where there is none."""
    try:
        return account.s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return None
        raise


def publish(locked: Locked, account: Account, progress: Callable[[int], None] | None = None) -> Published:
    """Upload the locked artifact, or find it already there. S3 shows an object only once it is whole.

    Raises:
        OperationError: a rehearsal aimed elsewhere than loopback, no artifact, another digest, no bucket, an upload cut
            short.
    """
    lock = locked.lock
    guard(account, lock)
    verify_artifact(locked)
    bucket = account.artifact_bucket
    size = locked.artifact.stat().st_size
    there = stored_size(account, bucket, lock.artifact.key)
    if there is not None and there != size:
        raise OperationError(
            f"s3://{bucket}/{lock.artifact.key} holds {there} bytes, the artifact of that digest {size}. "
            "Somebody replaced it; look at the object's versions first."
        )
    if there is None:
        # S3 verifies the checksum on arrival and refuses what was damaged on the way.
        account.s3.upload_file(
            str(locked.artifact),
            bucket,
            lock.artifact.key,
            ExtraArgs={"ChecksumAlgorithm": "SHA256"},
            Callback=progress,
        )
        if stored_size(account, bucket, lock.artifact.key) != size:
            raise OperationError(f"the upload of s3://{bucket}/{lock.artifact.key} did not arrive whole. Run it again.")
    return Published(lock.name, bucket, lock.artifact.key, size, there is None, lock.rehearsal)
