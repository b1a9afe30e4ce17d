"""The id of the request that the current thread works for, in every log line of the handler."""

from __future__ import annotations

import contextvars
import logging

# The request that the current thread works for; the log lines of the handler carry it.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


class WithRequestId(logging.Filter):
    """Gives every record the attribute request_id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        record.request_id = request_id.get()
        return True
