"""Errors that a caller may see: a status, a short name and one sentence. Answered as JSON {"error", "detail"}."""

# ruff: noqa: N818  (named as HTTP names its statuses)

from __future__ import annotations

import importlib
import json
import logging
from http import HTTPStatus

SHUTTING_DOWN = "server is shutting down; retry"  # response to requests rejected during shutdown
_log = logging.getLogger(__name__)


def _toolkit_base() -> type[Exception]:
    """The stock toolkit takes a status only from its own exception class; elsewhere that class is not installed."""
    try:
        module = importlib.import_module("sagemaker_inference.errors")
    except ImportError:
        return Exception
    base: type[Exception] = module.BaseInferenceToolkitError
    return base


class EndpointError(_toolkit_base()):  # type: ignore[misc]
    """A request, or one item of it, that gets an error instead of an answer.

    A user's handler may raise any of these classes. `detail` is for the caller: what was wrong, its value, what to do.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    error = "internal_error"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        Exception.__init__(self, detail)
        self.detail = detail
        self.retry_after = retry_after  # seconds
        # The three names that the stock toolkit reads:
        self.status_code = int(self.status)
        self.phrase = self.status.phrase
        self.message = self.body().decode()

    def __str__(self) -> str:
        return self.detail

    def to_dict(self) -> dict[str, str]:
        """{"error": short name, "detail": one sentence}."""
        return {"error": self.error, "detail": self.detail}

    def body(self) -> bytes:
        """The JSON body of the answer."""
        return json.dumps(self.to_dict()).encode()


class BadRequest(EndpointError):
    """400: the body or a parameter cannot be read or does not fit the model."""

    status, error = HTTPStatus.BAD_REQUEST, "bad_request"


class Forbidden(EndpointError):
    """403: the request comes from a web page, or asks for a name that is not this server's (browser_guard.py)."""

    status, error = HTTPStatus.FORBIDDEN, "forbidden"


class NotFound(EndpointError):
    """404: no such path."""

    status, error = HTTPStatus.NOT_FOUND, "not_found"


class MethodNotAllowed(EndpointError):
    """405: the path is there, the method is not."""

    status, error = HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed"


class NotAcceptable(EndpointError):
    """406: none of the media types in Accept can be made."""

    status, error = HTTPStatus.NOT_ACCEPTABLE, "not_acceptable"


class RequestTimeout(EndpointError):
    """408: the body did not arrive in time."""

    status, error = HTTPStatus.REQUEST_TIMEOUT, "request_timeout"


class TooLarge(EndpointError):
    """413: the request, its picture, or the answer exceeds a limit."""

    status, error = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"


class UnsupportedMediaType(EndpointError):
    """415: the Content-Type is not one that the task reads."""

    status, error = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"


class Unprocessable(EndpointError):
    """422: the request was understood, but the model's answer to it cannot be written in the form asked for."""

    status, error = HTTPStatus.UNPROCESSABLE_ENTITY, "unprocessable"


class Internal(EndpointError):
    """500: our fault or the handler's; the log has the details."""


class Unavailable(EndpointError):
    """503: the server is at a limit, or a deadline has passed; `retry_after`: seconds after which to retry."""

    status, error = HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"


def as_endpoint_error(error: BaseException, step: str = "") -> EndpointError:
    """The one place where an exception becomes what a caller may see.

    An EndpointError stays itself. Anything else is a mistake of ours or of the handler's: the log gets its traceback,
    the caller an Internal without it. `step` names the function of a task that raised it (preprocess, output_fn, ...):
    there a ValueError is the request's fault, and becomes a BadRequest.
    """
    if isinstance(error, EndpointError):
        return error
    if step and isinstance(error, ValueError):
        return BadRequest(" ".join(str(error).split())[:500] or f"{step} refused the request")
    _log.error("%s failed", step or "a request", exc_info=error)
    what = f"{step} failed with " if step else ""
    return Internal(f"{what}{type(error).__name__}; the worker's log has the details")


class LoadError(Exception):
    """The model cannot be served here: wrong versions, digest, cores, settings. One line; it stops the worker."""
