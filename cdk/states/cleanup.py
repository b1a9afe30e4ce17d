"""The machine that ends what a run left running; a failing run starts it, and the rule on runs that ended badly does.

A run that is stopped or timed out enters no further state, so it cannot clean up behind itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import asl
from .asl import States
from .job import Place, stem
from .run import tell

# A start that was under way when its run ended is visible only some seconds later.
SETTLE = 20
# Runs that fail tell of it themselves.
UNTOLD = ("TIMED_OUT", "ABORTED")


def cleanup_machine(place: Place, stop: States, topics: Sequence[str], settle: int = SETTLE) -> dict[str, Any]:
    """The whole definition. Its input is the `detail` of Step Functions' event: name, status and input of the run.

    stop: states from "List jobs" to "All stopped".
    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """
    message = (
        "States.Format('Run {} of endpoint " + place.name + " ended as {}. What it left running is stopped.', "
        "$.run, $.status)"
    )
    return {
        "Comment": f"Ends what a run of endpoint {place.name} left running",
        "TimeoutSeconds": 3600,
        "StartAt": "Read input",
        "States": {
            "Read input": asl.passing(
                {"run.$": "$.name", "status.$": "$.status", "given.$": "States.StringToJson($.input)"}, Next="Name jobs"
            ),
            "Name jobs": asl.passing(
                {"run.$": "$.run", "status.$": "$.status", "stem.$": stem(place.name, "$.run", "$.given.submission")},
                Next="Settle",
            ),
            "Settle": asl.wait(settle, "List jobs"),
            **stop,
            "All stopped": asl.choice([(asl.text_is("$.status", *UNTOLD), "Tell of the end 0")], "Done"),
            **tell("Tell of the end", place, topics, f"Compiling {place.name} was ended", message, "Done"),
            "Done": {"Type": "Succeed"},
        },
    }
