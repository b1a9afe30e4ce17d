"""The time: now, and how much faster than on AWS it passes here (both factors are 1 unless set).

Waiting (Wait states and the intervals between retries of Step Functions, the two minutes' notice of a spot
interruption) and limits (the time limits of jobs, of state
machines and of `shutdown -h +MINUTES`) have a factor each: a rehearsal wants short waits, but the work itself takes its
time, so a limit that shrank with the waits would end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(timezone.utc)


@dataclass
class Clock:
    """`waits` and `limits` divide the seconds that a template or a request asks for."""

    waits: float = 1.0
    limits: float = 1.0

    def wait(self, seconds: float) -> float:
        """Seconds to wait here for a wait of `seconds` on AWS."""
        return seconds / self.waits

    def limit(self, seconds: float) -> float:
        """Seconds after which a limit of `seconds` on AWS is reached here."""
        return seconds / self.limits
