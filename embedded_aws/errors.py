"""The errors that our answers raise; moto turns them into the protocol of the service."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class AwsError(ServiceException):
    """An AWS error by code and message: AwsError("AlreadyExistsException", "Stack [x] already exists").

    A class of ours, because moto looks up an error's service by the module of its class and fails for its own base.
    """

    def __str__(self) -> str:
        return str(self.message)


class ValidationError(AwsError):
    """The Query services' answer to a request that cannot be right."""

    code = "ValidationError"
