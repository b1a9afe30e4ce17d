"""Whether the runtime releases the GIL during inference: measured on this machine, with this model.

Threads serve all cores of a process at once only if it does. A second thread wakes up every half millisecond while the
model is called. While the GIL is free it keeps its pace; while Python or a library that holds the GIL runs, it waits.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference_code.execution import model as runtime
from inference_code.execution.model import Model

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.0005
_PACE_SECONDS = 0.020  # of doing nothing, for the second thread's pace on this machine
_ENOUGH_SECONDS = 0.050
_DOUBTFUL, _DOUBTFUL_SECONDS = (0.1, 0.6), 0.300  # in between one looks longer: others may use the processors, too
_SWITCH_SECONDS = 0.1  # by default Python itself hands the GIL over after 5 ms, which is no news of the runtime
_MOST_SECONDS = 1.0  # of one call


@dataclass(frozen=True)
class GilProbe:
    """What was measured. free: the second thread's pace while the model ran, 0 to 1 of its pace beside an idle one."""

    free: float
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the model holds the GIL."""
        return self.free < 0.4


def measure(call: Callable[[], object], pace: Pace | None = None) -> GilProbe:
    """Call until enough time has been seen. `pace` is ended."""
    pace, usual = pace or Pace(), sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        idle = [pace.during(lambda: time.sleep(_PACE_SECONDS)) for _ in range(2)]  # something may disturb one of them
        alone = max(1 / _PACE_SECONDS, *(count / length for count, length in idle))
        steps, seconds = pace.during(call)
        while seconds < _ENOUGH_SECONDS or (
            seconds < _DOUBTFUL_SECONDS and _DOUBTFUL[0] < steps / seconds / alone < _DOUBTFUL[1]
        ):
            more, longer = pace.during(call)
            steps, seconds = steps + more, seconds + longer
    finally:
        sys.setswitchinterval(usual)
        pace.end()
    return GilProbe(min(1.0, steps / seconds / alone), seconds)


class Pace:
    """A thread that counts how often it wakes up."""

    def __init__(self) -> None:
        self._steps = 0
        self._ended = False
        self._thread = threading.Thread(target=self._count, name="pace", daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while not self._ended:
            time.sleep(_PAUSE_SECONDS)
            self._steps += 1

    def during(self, call: Callable[[], object]) -> tuple[int, float]:
        """The steps while `call` runs, and its seconds."""
        before, started = self._steps, time.perf_counter()
        call()
        return self._steps - before, time.perf_counter() - started

    def end(self) -> None:
        """End the thread."""
        self._ended = True
        self._thread.join()


def watch(model: Model, processes: int = 1) -> GilProbe | None:
    """Measure the model's longest call that takes no more than a second, and log what follows. None: each takes longer.

    processes: how many of them share the machine.
    """
    took = [pair for pair in zip(model.warm_up_seconds, model.manifest.graphs, strict=True) if pair[0] <= _MOST_SECONDS]
    if not took:
        _log.info("not measured whether the runtime releases the GIL: a call takes more than a second")
        return None
    graph = max(took, key=lambda pair: pair[0])[1]
    inputs = runtime.zeros(graph)
    found = measure(lambda: model.run(graph, inputs))
    _log.info(_summary(found, model.max_concurrency, processes))
    return found


def _summary(found: GilProbe, cores: int, processes: int) -> str:
    seen = f"(free for {found.free:.0%} of {found.seconds * 1000:.0f} ms)"
    if not found.held:
        return f"the runtime releases the GIL during inference {seen}: one thread per core"
    if cores == 1:
        return f"the runtime holds the GIL during inference {seen}; this process has one core"
    more = f"set serve.processes (ENDPOINT_PROCESSES, --processes) to up to {cores * processes}"
    return f"the runtime holds the GIL during inference {seen}: threads cannot use {cores} cores at once; {more}"
