"""The driver in a process of its own: its log, its time, its memory, and its end when the time is up.

A compiler that is killed, or that takes the interpreter with it, ends this process and not what started it. Standard
library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

LOG, COST, REQUEST, RESULT = "compile.log", "cost.json", "request.json", "result.json"
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """What compiling one variant took. peak_bytes: the largest sum of resident memory of the compiler's processes."""

    seconds: float
    peak_bytes: int


def watch(
    python: str,
    folder: Path,
    log: Path,
    limit: float,
    environment: Mapping[str, str],
    show: Callable[[bytes], None] | None = None,
) -> tuple[int, bool, Cost]:
    """Runs the driver on `folder` to its end, or for `limit` seconds; returns exit code, whether time was up, and the
    cost. show: gets what is new in the log as it grows."""
    command = [python, "-m", "compile.portable.driver", "compile", str(folder.resolve())]
    started, peak, timed_out = time.monotonic(), 0, False
    with log.open("wb") as stream, log.open("rb") as reader:
        process = subprocess.Popen(  # noqa: S603  (our own Python, no shell)
            command,
            cwd=folder,
            env=dict(environment),
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
                if show is not None:
                    show(reader.read())
        finally:
            _end(process)
            if show is not None:
                show(reader.read())
    # What the process measured of itself and its children at its end: short ones fall between two samples.
    result = folder / RESULT
    own_peak = json.loads(result.read_text(encoding="utf-8"))["peak_bytes"] if result.is_file() else 0
    cost = Cost(round(time.monotonic() - started, 3), max(peak, own_peak))
    (folder / COST).write_text(json.dumps(asdict(cost)), encoding="utf-8")
    return process.returncode, timed_out, cost


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
