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
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from compile.files import write_json
from compile.targets.base import Cost, LoweredVariant
from compile.targets.diagnosis import Failure

_LOG = logging.getLogger(__name__)
LOG = "compile.log"
# The SDK's own timeout (compiler_timeout) comes first where there is one: its message is more precise than ours.
GRACE_SECONDS = 60.0
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Finished:
    """A variant that was compiled. neuron_nodes: calls of compiled code in the graph. operators: the other ones."""

    graph: Path
    log: Path
    text: str
    cost: Cost
    neuron_nodes: int
    operators: dict[str, int]


def run(lowered: LoweredVariant, keywords: dict[str, Any]) -> Finished:
    """Compiles a variant. Raises CompileError with the log's own line, the cause and the way out when that fails."""
    shutil.rmtree(lowered.work, ignore_errors=True)  # the record of the build before
    (lowered.work / "compiler").mkdir(parents=True)
    request = {
        "spec": str(lowered.spec.path.resolve()),
        "root": str(lowered.spec.root.resolve()),
        "digest": lowered.build_digest,
        "role": lowered.variant.role,
        "bucket": dict(lowered.variant.bucket),
        "batch": lowered.variant.batch,
        "keywords": keywords,
    }
    write_json(lowered.work / "request.json", request)
    log = lowered.work / LOG
    code, timed_out, cost = _watch(
        lowered.work, log, lowered.spec.compile.timeout / timedelta(seconds=1) + GRACE_SECONDS
    )
    _LOG.info("%s: compiler's exit code %d after %.1f s, see %s", lowered.variant, code, cost.seconds, log)
    text = log.read_text(encoding="utf-8", errors="replace")
    write_json(lowered.work / "cost.json", asdict(cost))
    result = lowered.work / "result.json"
    if code != 0 or not result.is_file():
        raise Failure(lowered, log, text).ended(code, timed_out, cost)
    made = json.loads(result.read_text(encoding="utf-8"))
    return Finished(lowered.work / "graph.pt", log, text, cost, made["neuron_nodes"], made["operators"])


def _watch(work: Path, log: Path, limit: float) -> tuple[int, bool, Cost]:
    """Runs the variant to its end or its limit; returns exit code, whether time was up, and the cost."""
    # The same modules as here, also those that were put on the path after Python started.
    path = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)
    command = [sys.executable, "-m", "compile.targets.compile_process", str(work)]
    started, peak, timed_out = time.monotonic(), 0, False
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  (our own Python, no shell)
            command,
            cwd=work,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
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
    result = work / "result.json"
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
