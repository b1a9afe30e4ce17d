"""The WSGI application: who is answered, and then by whom: control calls, endpoints, injected faults, moto."""

from __future__ import annotations

import io
import logging
import re
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from . import answers
from .access import AccessKeys, Credential, Secrets, credential
from .connection import IDLE_SECONDS, REFUSAL
from .context import ServerContext
from .control import PREFIX
from .control.calls import Control
from .control.faults import CutOffError, Faults, refuse, s3_operation
from .hosting.runtime import PATH, Runtime
from .keys import issued

log = logging.getLogger(__name__)
# "up to 5 GB" in one PutObject or part, https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html, and
# room for what aws-chunked puts between the bytes; no other request here is as large as the second
S3_BODY_BYTES, BODY_BYTES = 6 * 1024**3, 100 * 1024**2
ACCOUNT = "HTTP_X_MOTO_ACCOUNT_ID"  # where patches.py reads the account of a request
CLOSED = frozenset({"moto_api", "instance_metadata"})
# What the CDK CLI adds to its user agent while it swaps a resource: aws-cdk 2.1148.1, applyHotswapOperation.
HOTSWAP = re.compile("cdk-hotswap.success")
NO_HOTSWAP = (
    "the embedded AWS has no hotswap, neither of cdk deploy --hotswap nor of cdk watch: run cdk deploy, which updates "
    "the stack through CloudFormation"
)


class ClosedError(Exception):
    """A part of moto that is not for its users."""


class Moto(DomainDispatcherApplication):
    """moto without its own interfaces: /moto-api destroys or changes state, and moto's metadata is nobody's here."""

    def get_application(self, environ: dict[str, Any]) -> Any:
        """The application of the service that is asked. Raises ClosedError, also for /moto-api with more slashes."""
        if environ["PATH_INFO"].lstrip("/").startswith("moto-api"):
            raise ClosedError(f"moto's own interface {environ['PATH_INFO'][:200]!r} is closed here")
        return super().get_application(environ)

    def get_backend_for_host(self, host: str | None) -> Any:
        """The service that answers, however the request named it. Raises ClosedError."""
        backend = super().get_backend_for_host(host)
        if backend in CLOSED:
            raise ClosedError(f"moto's own interface {backend} is closed here")
        return backend


class Application:
    """The WSGI application: InvokeEndpoint is answered here, everything else by moto with our parts in it."""

    def __init__(self, context: ServerContext, secrets: Secrets) -> None:
        host = self.host = context.host
        self.runtime = Runtime(host.account, context.hosted, context.record_invocation)
        self.keys = AccessKeys(secrets.access_key, lambda key: issued(host.account, key))
        self.control = Control(secrets.token, host.clock, host.faults)
        self.moto = Moto(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """One request."""
        environ[ACCOUNT] = self.host.account
        signed = credential(environ)
        service = signed.service if signed else ""
        start = _without_cors(start_response)
        try:
            answer = self._refusal(environ, signed) or self._own(environ, signed) or self.moto
            return answer(environ, start)
        except CutOffError:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise
        except Exception as error:
            return _failure(environ, service, error)(environ, start)

    def _refusal(self, environ: dict[str, Any], signed: Credential | None) -> Response | None:
        """The answer to a request that may not be made, whatever it asks for, or None."""
        service = signed.service if signed else ""
        reason = environ[REFUSAL]
        if reason is not None:
            log.info("refused %s %.200r: %s", environ["REQUEST_METHOD"], environ["PATH_INFO"], reason)
            return answers.denied(environ, service, f"the embedded AWS does not answer this request: {reason}")
        if environ["PATH_INFO"].startswith(PREFIX):
            return self.control.answer(Request(environ))
        reason = self.keys.refusal(signed)
        if reason is not None:
            log.info("refused %s %.200r: %s", environ["REQUEST_METHOD"], environ["PATH_INFO"], reason)
            return answers.unknown_key(environ, service, reason)
        return None

    def _own(self, environ: dict[str, Any], signed: Credential | None) -> Response | None:
        """The answer of an injected fault or of an endpoint, or None for a request to moto."""
        assert signed is not None  # noqa: S101 - checked by _refusal
        limit = S3_BODY_BYTES if signed.service == "s3" else BODY_BYTES
        environ["wsgi.input"] = get_input_stream(environ, max_content_length=limit)
        if signed.service == "cloudcontrolapi" or HOTSWAP.search(environ.get("HTTP_USER_AGENT", "")):
            return answers.error(environ, signed.service, "UnsupportedActionException", NO_HOTSWAP, 400)
        injected = _injected(self.host.faults, environ, signed.service)
        if injected is not None:
            return injected
        invocation = PATH.fullmatch(environ["PATH_INFO"])
        if invocation and signed.service == "sagemaker" and environ["REQUEST_METHOD"] == "POST":
            name, way = invocation.groups()
            return self.runtime.answer(Request(environ), name, way, signed.region)
        return None


def _without_cors(start_response: Any) -> Any:
    """start_response without CORS headers, of moto's server or of a bucket: no page may read an answer.

    Source: https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CORS#the_http_response_headers
    """

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        return start_response(status, kept, *error)

    return start


def _injected(faults: Faults, environ: dict[str, Any], service: str) -> Response | None:
    """The answer of an injected fault to this call, or None."""
    if not faults.armed("call"):
        return None
    body = environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    target = environ.get("HTTP_X_AMZ_TARGET")
    text = body.decode("utf-8", "replace")
    if service == "s3":
        operation, text = s3_operation(environ["REQUEST_METHOD"], path, query, environ), f"{path}?{query}"
    elif target:
        operation = target.rsplit(".", 1)[-1]
    else:
        operation = parse_qs(text).get("Action", [environ["REQUEST_METHOD"]])[0]
    fault = faults.take("call", text, f"{service}:{operation}")
    if fault is None:
        return None
    code, message, status = refuse(fault)
    return answers.error(environ, service, code, message, status)


def _failure(environ: dict[str, Any], service: str, error: Exception) -> Response:
    """An operation that does not exist here, or a fault of this server: status 400, because clients retry a 500."""
    if isinstance(error, ClosedError):
        return answers.denied(environ, service, str(error))
    if isinstance(error, RequestEntityTooLarge):
        text = f"the request's body has more than {S3_BODY_BYTES if service == 's3' else BODY_BYTES} bytes"
        return answers.error(environ, service, "EntityTooLarge", text, 413)
    if isinstance(error, ClientDisconnected):
        text = f"the request's body did not come: nothing for {IDLE_SECONDS:g} s, or the connection was closed"
        return answers.error(environ, service, "RequestTimeout", text, 400)
    log.exception("%s %s", service, environ.get("PATH_INFO"))
    kind = "NotImplemented" if isinstance(error, NotImplementedError) else "EmbeddedAwsFailure"
    text = f"the embedded AWS ({service or 'unknown service'}): {error or type(error).__name__}"
    return answers.error(environ, service, kind, text, 400)
