"""One variant in a process of its own: its log, its time, its memory, and its end when the time is up.

A compiler that is killed, or that takes the interpreter with it, ends this process and not the build.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from compile.files import write_json
from compile.portable import driver
from compile.portable import tensors as tensor_files
from compile.portable.tensors import TensorStore
from compile.targets.base import Cost, LoweredVariant
from compile.targets.diagnosis import Failure
from compile.targets.sdk import NeuronTarget, environment
from endpoint_spec import archives

_LOG = logging.getLogger(__name__)
LOG = "compile.log"
# The SDK's own timeout (compiler_timeout) comes first where there is one: its message is more precise than ours.
GRACE_SECONDS = 60.0
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Finished:
    """A variant that was compiled. neuron_nodes: calls of compiled code in the graph. operators: the other ones.
    replayed, answers: as CompilerOutput has them."""

    graph: Path
    log: Path
    text: str
    cost: Cost
    neuron_nodes: int
    operators: dict[str, int]
    replayed: dict[str, float]
    answers: list[list[Tensor]] | None


def run(lowered: LoweredVariant, target: NeuronTarget, keywords: dict[str, Any]) -> Finished:
    """Compiles a variant. Raises CompileError with the log's own line, the cause and the way out when that fails."""
    shutil.rmtree(lowered.work, ignore_errors=True)  # the record of the build before
    (lowered.work / "compiler").mkdir(parents=True)
    unpacked = lowered.work / "graph"
    archives.extract(lowered.graph, unpacked, compressed=False)
    request = {
        "target": target.name,
        "packages": [target.packages.module, *target.packages.distributions],
        "graph": str(unpacked.resolve()),
        "variant": 0,
        "keywords": keywords,
        "bounds": list(lowered.bounds),
        "trials": _trials(lowered, unpacked / "trials.safetensors"),
    }
    write_json(lowered.work / driver.REQUEST, request)
    log = lowered.work / LOG
    limit = lowered.spec.compile.timeout / timedelta(seconds=1) + GRACE_SECONDS
    try:
        code, timed_out, cost = _watch(target.python, lowered.work, log, limit)
    finally:
        shutil.rmtree(unpacked)
    _LOG.info("%s: compiler's exit code %d after %.1f s, see %s", lowered.variant, code, cost.seconds, log)
    text = log.read_text(encoding="utf-8", errors="replace")
    write_json(lowered.work / "cost.json", asdict(cost))
    result = lowered.work / driver.RESULT
    if code != 0 or not result.is_file():
        raise Failure(lowered, log, text).ended(code, timed_out, cost)
    made = json.loads(result.read_text(encoding="utf-8"))
    return Finished(
        graph=lowered.work / driver.COMPILED,
        log=log,
        text=text,
        cost=cost,
        neuron_nodes=made["neuron_nodes"],
        operators=made["operators"],
        replayed={one["output"]: one["error"] for one in made["replayed"]},
        answers=_answers(made, lowered.work),
    )


def _trials(lowered: LoweredVariant, file: Path) -> dict[str, Any]:
    store = TensorStore()
    inputs = [[store.add(tensor) for tensor in trial] for trial in lowered.trials]
    store.write(file)
    return {"file": str(file.resolve()), "inputs": inputs}


def _answers(result: Mapping[str, Any], folder: Path) -> list[list[Tensor]] | None:
    """What a chip answered to each trial, from the driver's result.json; None where there was no chip."""
    if result["answers"] is None:
        return None
    tensors = tensor_files.read(folder / driver.ANSWERS)
    return [[tensors[digest] for digest in answer] for answer in result["answers"]]


def _watch(python: Path, work: Path, log: Path, limit: float) -> tuple[int, bool, Cost]:
    """Runs the variant to its end or its limit; returns exit code, whether time was up, and the cost."""
    command = [str(python), "-m", "compile.portable.driver", "compile", str(work.resolve())]
    started, peak, timed_out = time.monotonic(), 0, False
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  (our own Python, no shell)
            command,
            cwd=work,
            env=environment(python),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while process.poll() is None and not timed_out:
            peak = max(peak, sum(size for _, size in _session(process.pid)))
            timed_out = time.monotonic() - started > limit
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SAMPLE_SECONDS)
    finally:
        _end(process)
    # What the process measured of itself and its children at its end: short ones fall between two samples.
    result = work / driver.RESULT
    own_peak = json.loads(result.read_text(encoding="utf-8"))["peak_bytes"] if result.is_file() else 0
    return process.returncode, timed_out, Cost(round(time.monotonic() - started, 3), max(peak, own_peak))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the variant: the process itself, and compilers that it started."""
    for pid, _ in _session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> Iterator[tuple[int, int]]:
    """Processes of a session with their resident memory in bytes, from /proc (proc(5): fields 6 and 24)."""
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            yield int(entry.name), int(fields[21]) * page
