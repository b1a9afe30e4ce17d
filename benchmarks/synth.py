"""What synthesizing costs: the CDK app of a project with 1, 10 and 100 endpoints, each in a process of its own.

    python -m benchmarks.synth [--endpoints 1,10,100] [--repeat N] [--busy] [--write]

Seconds of the clock and of the processors, and the memory of the largest process (Python, or the Node of jsii), the
median of N runs. Each endpoint is a spec of two lines with a lock that fits; cdk-nag runs, the CDK CLI does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from subprocess import DEVNULL

import psutil

from benchmarks import document
from benchmarks.peers import ROOT
from benchmarks.serving import machine, whole_list
from tests.cdk.projects import new_project

GOAL = "Goal: 2 s and 0.04 s an endpoint."


@dataclass(frozen=True)
class Run:
    """One synthesis: seconds of the clock and of the processors, megabytes of the largest process."""

    seconds: float
    processor: float
    megabytes: float


def synthesize(project: Path) -> Run:
    """Run app.py in the project's folder. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-O", str(ROOT / "app.py")]  # as cdk.json
    seen: dict[int, tuple[float, float]] = {}  # by process: processor seconds, largest resident megabytes
    with tempfile.TemporaryDirectory() as outdir:
        environment = {**os.environ, "CDK_OUTDIR": outdir, "PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        process = psutil.Popen(command, cwd=project, env=environment, stdout=DEVNULL, stderr=DEVNULL)
        while process.poll() is None:  # jsii does not always wait for its Node, so nobody else counts that
            for one in [process, *_children(process)]:
                with contextlib.suppress(psutil.Error):
                    times, resident = one.cpu_times(), one.memory_info().rss / 2**20
                    seen[one.pid] = (times.user + times.system, max(resident, seen.get(one.pid, (0.0, 0.0))[1]))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(seconds, sum(used for used, _ in seen.values()), max(resident for _, resident in seen.values()))


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []


def measure(endpoints: int, repeat: int) -> Run:
    """The median of several runs of a project with so many endpoints."""
    with tempfile.TemporaryDirectory() as folder:
        project = new_project(Path(folder) / "project")
        for index in range(endpoints):
            project.add(f"endpoint-{index}")
        runs = [synthesize(project.root) for _ in range(repeat)]
    middle = [statistics.median(getattr(run, field) for run in runs) for field in ("seconds", "processor", "megabytes")]
    return Run(*middle)


def table(found: dict[int, Run], repeat: int) -> str:
    """The figures as Markdown, with the line through the smallest and the largest project."""
    lines = [
        f"Measured on {date.today().isoformat()} on {machine()}, the median of {repeat}. {GOAL}",
        "",
        "| endpoints | seconds | processor seconds | MB |",
        "|---|---|---|---|",
        *(
            f"| {count} | {run.seconds:.1f} | {run.processor:.1f} | {run.megabytes:.0f} |"
            for count, run in found.items()
        ),
    ]
    least, most = min(found), max(found)
    if least < most:
        for what in ("seconds", "processor"):
            slope = (getattr(found[most], what) - getattr(found[least], what)) / (most - least)
            lines.append(
                f"\n{what}: {getattr(found[least], what) - slope * least:.1f} s and {slope:.3f} s an endpoint."
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synth", description=__doc__.split("\n")[0])
    parser.add_argument("--endpoints", type=whole_list, default=[1, 10, 100], help="default: 1,10,100")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; default: %(default)s")
    parser.add_argument("--busy", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    document.refuse_busy(parser, busy=options.busy, write=options.write)
    found = {count: measure(count, options.repeat) for count in options.endpoints}
    text = table(found, options.repeat)
    print(text)
    if options.write:
        document.put("synth", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
