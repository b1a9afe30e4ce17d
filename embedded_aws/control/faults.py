"""Faults made on purpose: calls that are refused or cut off, jobs and instances that end badly.

A fault waits until something fits its `where` (a regular expression, searched), acts `times` times and is then gone.
It is armed with `inferentia rehearsal fault ...`, or by POST to /_embedded_aws/faults.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    # an API call, before it reaches the service
    "call": frozenset({"error", "drop"}),
    # a Processing job; https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeProcessingJob.html
    "job": frozenset({"fail", "kill", "hang", "stop", "no-capacity", "internal-error"}),
    # an EC2 instance
    "instance": frozenset({"crash", "hang", "interrupt"}),
}


class FaultError(Exception):
    """A fault that cannot be armed; the text says why."""


@dataclass
class Fault:
    """One armed fault. `operation` is service:Operation or service:* of a call, empty for jobs and instances."""

    kind: str
    action: str
    where: str = ""
    operation: str = ""
    error: str = ""
    message: str = ""
    status: int = 0
    times: int = 1
    after_seconds: float = 0.0
    used: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.action not in KINDS[self.kind]:
            known = "; ".join(f"{kind}: {', '.join(sorted(actions))}" for kind, actions in KINDS.items())
            raise FaultError(f"there is no fault {self.kind} {self.action}; there are {known}")
        if self.kind == "call" and not re.fullmatch(r"[a-z0-9-]+:(\w+|\*)", self.operation):
            raise FaultError(f"a call is named service:Operation, such as s3:PutObject, not {self.operation!r}")
        if self.kind == "call" and self.action == "error" and not self.error:
            raise FaultError("a refused call needs the error's code, such as ThrottlingException")
        if self.times < 1 or self.after_seconds < 0:
            raise FaultError("times must be at least 1, after_seconds at least 0")
        try:
            re.compile(self.where)
        except re.error as error:
            raise FaultError(f"where is no regular expression: {self.where!r} ({error})") from error

    def fits(self, kind: str, operation: str, subject: str) -> bool:
        """Whether it acts on this call, job or instance."""
        if kind != self.kind:
            return False
        if kind == "call":
            service, _, name = self.operation.partition(":")
            wanted = operation.partition(":")
            if service != wanted[0] or name not in {"*", wanted[2]}:
                return False
        return re.search(self.where, subject) is not None


class Faults:
    """The armed faults of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[Fault] = []

    def arm(self, request: dict[str, Any]) -> Fault:
        """One fault from its members by name. Raises FaultError."""
        unknown = sorted(set(request) - set(Fault.__dataclass_fields__) - {"used"})
        if unknown:
            raise FaultError(f"a fault has no {', '.join(unknown)}")
        try:
            fault = Fault(**request)
        except TypeError as error:
            raise FaultError(f"a fault is kind, action and what they need: {error}") from error
        with self._lock:
            self._armed.append(fault)
        return fault

    def take(self, kind: str, subject: str, operation: str = "") -> Fault | None:
        """The first armed fault that fits, used once more."""
        with self._lock:
            for fault in self._armed:
                if fault.fits(kind, operation, subject):
                    fault.used += 1
                    if fault.used >= fault.times:
                        self._armed.remove(fault)
                    return fault
        return None

    def armed(self, kind: str) -> bool:
        """Whether any fault of a kind waits."""
        return any(fault.kind == kind for fault in list(self._armed))

    def listed(self) -> list[dict[str, Any]]:
        """Every armed fault."""
        with self._lock:
            return [asdict(fault) for fault in self._armed]

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()


# status and message of a refusal that names neither, as the services answer
USUAL = {
    "AccessDenied": (403, "Access Denied"),
    "InsufficientInstanceCapacity": (500, "We currently do not have sufficient capacity in the Availability Zone."),
    "RequestLimitExceeded": (503, "Request limit exceeded."),
    "SlowDown": (503, "Please reduce your request rate."),
    "ThrottlingException": (400, "Rate exceeded"),
    "ResourceLimitExceeded": (400, "The account-level service limit is exceeded."),
}


class CutOffError(ConnectionError):
    """The connection is to be closed without an answer."""


def refuse(fault: Fault) -> tuple[str, str, int]:
    """Code, message and HTTP status of a refused call. Raises CutOffError for one that is dropped."""
    if fault.action == "drop":
        raise CutOffError(fault.message or "an injected fault")
    status, message = USUAL.get(fault.error, (400, "an injected fault"))
    return fault.error, fault.message or message, fault.status or status


def s3_operation(method: str, path: str, query: str, headers: dict[str, Any]) -> str:
    """The operation of a path-style S3 request.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
    """
    has_key = "/" in path.strip("/")
    names = {part.partition("=")[0] for part in query.split("&") if part}
    if not has_key:
        return {"GET": "ListObjectsV2" if "list-type" in names else "GetBucket"}.get(method, f"{method.title()}Bucket")
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in names else "CompleteMultipartUpload"
    if method == "PUT" and "partNumber" in names:
        return "UploadPart"
    if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in headers:
        return "CopyObject"
    return f"{method.title()}Object"
