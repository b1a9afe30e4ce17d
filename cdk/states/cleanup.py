"""The machine that ends what a run left running; a failing run starts it, and the rule on runs that ended badly does.

A run that is stopped or timed out enters no further state, so it cannot clean up behind itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import asl
from .asl import States
from .job import JobContext, job_name_prefix
from .run import notify

# A start that was under way when its run ended is visible only some seconds later.
SETTLE = 20
# Runs that fail notify of it themselves.
NOT_NOTIFIED = ("TIMED_OUT", "ABORTED")


def cleanup_machine(context: JobContext, stop: States, topics: Sequence[str], settle: int = SETTLE) -> dict[str, Any]:
    """The whole definition. Its input is the `detail` of Step Functions' event: name, status and input of the run.

    stop: states from "List jobs" to "All stopped".
    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """
    message = asl.filled(
        f"Run {{}} of endpoint {context.name} ended as {{}}. What it left running is stopped.", "$.run", "$.status"
    )
    prefix = job_name_prefix(context.name, "$.run", "$.given.submission")
    return {
        "Comment": f"Ends what a run of endpoint {context.name} left running",
        "TimeoutSeconds": 3600,
        "StartAt": "Read input",
        "States": {
            "Read input": asl.pass_state(
                {"run.$": "$.name", "status.$": "$.status", "given.$": "States.StringToJson($.input)"}, Next="Name jobs"
            ),
            "Name jobs": asl.pass_state({"run.$": "$.run", "status.$": "$.status", "stem.$": prefix}, Next="Settle"),
            "Settle": asl.wait(settle, "List jobs"),
            **stop,
            "All stopped": asl.choice([(asl.text_is("$.status", *NOT_NOTIFIED), "Notify of the end 0")], "Done"),
            **notify("Notify of the end", context, topics, f"Compiling {context.name} was ended", message, "Done"),
            "Done": {"Type": "Succeed"},
        },
    }
