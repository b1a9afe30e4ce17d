"""What S3 refuses that moto does not: objects written without a condition where a bucket's policy asks for one.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html, and for IfNoneMatch
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html, API_CompleteMultipartUpload and API_CopyObject.
Only this form of statement is evaluated; all others are moto's.
"""

from __future__ import annotations

import fnmatch
import json
from typing import Any
from urllib.parse import parse_qs, urlparse

from moto.s3.exceptions import PreconditionFailed, S3ClientError
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response

FORM = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
# Subresources that a PUT may change instead of the object, and the parts of an upload, which are no objects yet.
_NO_OBJECT = frozenset({"acl", "tagging", "retention", "legal-hold", "partNumber"})


def asks_for_new_keys(statement: dict[str, Any]) -> bool:
    """Whether a policy's statement denies everybody to create objects without If-None-Match."""
    everybody = statement.get("Principal") in ("*", {"AWS": "*"})
    action = statement.get("Action") in ("s3:PutObject", ["s3:PutObject"])
    return statement.get("Effect") == "Deny" and everybody and action and statement.get("Condition") == FORM


def install() -> None:
    """Ask the policy before moto answers a request for an object."""
    original = S3Response._key_response

    def key_response(self: S3Response, request: Any, full_url: str) -> Any:
        query = parse_qs(urlparse(full_url).query, keep_blank_values=True)
        if _creates_object(request.method, query):
            _check(self, request, full_url)
        return original(self, request, full_url)

    S3Response._key_response = key_response  # type: ignore[method-assign]


def _creates_object(method: str, query: dict[str, list[str]]) -> bool:
    """s3:ObjectCreationOperation: true for PutObject, CopyObject and CompleteMultipartUpload."""
    return (method == "PUT" and not _NO_OBJECT & set(query)) or (method == "POST" and "uploadId" in query)


def _check(response: S3Response, request: Any, full_url: str) -> None:
    key, name = response.parse_key_name(), response.parse_bucket_name_from_url(request, full_url)
    try:
        bucket = response.backend.get_bucket(name)
    except S3ClientError:
        return  # moto answers that there is none
    header = request.headers.get("If-None-Match")
    if header is None and _denied(bucket, f"arn:{bucket.partition}:s3:::{name}/{key}"):
        raise S3ClientError("AccessDenied", f"s3:PutObject on {name}/{key} is denied by the bucket's policy")
    if header not in (None, "*"):
        raise S3ClientError("NotImplemented", "If-None-Match expects the asterisk here")
    copies = "x-amz-copy-source" in request.headers  # of the three, moto leaves out the copy's condition
    if header == "*" and copies and response.backend.get_object(name, key) is not None:
        raise PreconditionFailed("If-None-Match")


def _denied(bucket: FakeBucket, resource: str) -> bool:
    statements = json.loads(bucket.policy)["Statement"] if bucket.policy else []
    return any(
        asks_for_new_keys(statement)
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in _resources(statement))
        for statement in (statements if isinstance(statements, list) else [statements])
    )


def _resources(statement: dict[str, Any]) -> list[str]:
    found = statement["Resource"]
    return found if isinstance(found, list) else [found]
