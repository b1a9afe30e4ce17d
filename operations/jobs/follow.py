"""Follow runs until the last of them has ended. What happens here never changes what happens there."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec.loopback import is_loopback
from operations.errors import OperationError
from operations.jobs.run import Run
from operations.jobs.screen import Screen

PAUSE_SECONDS = 5.0  # a compilation takes minutes; GetExecutionHistory and GetLogEvents are throttled
LOOPBACK_PAUSE_SECONDS = 0.5
_MOST_FAILURES = 12  # in a row: a minute without an answer


def follow(runs: Sequence[Run], screen: Screen) -> None:
    """Show what the runs do until all have ended, however they end.

    Raises:
        OperationError: where AWS cannot be asked any more; the runs go on.
    """
    failures, pending = 0, list(runs)
    with screen.shown():
        while True:
            try:
                for run in list(pending):  # each once at least: what has ended already is read too
                    run.refresh(functools.partial(screen.line, run))
                    if not run.execution.running:
                        pending.remove(run)
                failures = 0
            except (ClientError, BotoCoreError) as error:
                failures += 1
                if failures >= _MOST_FAILURES or not _passing(error):
                    raise OperationError(f"the run cannot be followed any more: {error}. {goes_on(runs)}") from error
            screen.update()
            if not pending:
                return
            time.sleep(pause(runs[0]))


def pause(run: Run) -> float:
    """Seconds between two looks."""
    near = is_loopback(run.account.stepfunctions.meta.endpoint_url)
    return LOOPBACK_PAUSE_SECONDS if near else PAUSE_SECONDS


def goes_on(runs: Sequence[Run]) -> str:
    """What to say to somebody who stops following."""
    said = []
    for run in runs:
        attach = f'"python -m operations attach {run.name}"'
        said.append(
            f"{run.run} goes on in the account; {attach} follows it again."
            if run.execution.running
            else f"{run.run} has ended; {attach} fetches its result."
        )
    return " ".join(said)


def _passing(error: Exception) -> bool:
    """Whether asking again may help: throttling, a server's fault, or no connection."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or "Throttl" in error.response.get("Error", {}).get("Code", "")
    return True
