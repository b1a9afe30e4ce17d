"""Error answers in the protocol of the service that was asked, so that a client shows their code and their text.

Source: https://smithy.io/2.0/aws/protocols/index.html, and for EC2 and S3
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

REST_XML = frozenset({"s3", "cloudfront", "route53"})
FORM = "application/x-www-form-urlencoded"  # the Query protocols, also EC2's
# an access key that nobody has: the code differs with the protocol
UNKNOWN_KEY = {"s3": "InvalidAccessKeyId", "json": "UnrecognizedClientException"}


def protocol(environ: Mapping[str, Any], service: str) -> str:
    """json, s3 (XML without an envelope), ec2 or query."""
    if "HTTP_X_AMZ_TARGET" in environ:
        return "json"
    if service == "ec2":
        return "ec2"
    if not service or service in REST_XML:
        return "s3"
    return "query" if str(environ.get("CONTENT_TYPE", "")).startswith(FORM) else "json"


def error(environ: Mapping[str, Any], service: str, kind: str, text: str, status: int) -> Response:
    """An error with its code and text."""
    form = protocol(environ, service)
    if form == "json":
        body = json.dumps({"__type": kind, "message": text})
        headers = {"x-amzn-ErrorType": kind, "x-amzn-RequestId": str(uuid.uuid4())}
        return Response(body, status, headers, content_type="application/json")
    inner = f"<Error><Type>Sender</Type><Code>{kind}</Code><Message>{escape(text)}</Message></Error>"
    if form == "ec2":
        body = f"<Response><Errors>{inner}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
    else:
        body = inner if form == "s3" else f"<ErrorResponse>{inner}</ErrorResponse>"
    return Response(body, status, content_type="text/xml")


def denied(environ: Mapping[str, Any], service: str, text: str) -> Response:
    """A request that is refused whatever it asks for."""
    kind = "AccessDeniedException" if protocol(environ, service) == "json" else "AccessDenied"
    return error(environ, service, kind, text, 403)


def unknown_key(environ: Mapping[str, Any], service: str, text: str) -> Response:
    """A request whose access key is none: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html."""
    kind = UNKNOWN_KEY.get(protocol(environ, service), "InvalidClientTokenId")
    return error(environ, service, kind, text, 403)
