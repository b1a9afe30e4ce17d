"""What the smaller benchmarks share: a quiet machine, and their marked section of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.peers import ROOT
from benchmarks.serving import Result, machine, positive, whole_list

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, seconds: float) -> argparse.Namespace:
    """The options that all have, parsed. Ends with 2 on a busy machine, unless --busy is given."""
    parser.add_argument("--connections", type=whole_list, default=[1, 16], help="default: 1,16")
    parser.add_argument("--seconds", type=positive, default=seconds, help="of each measurement; default: %(default)s")
    parser.add_argument("--busy", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    found = parser.parse_args(arguments)
    refuse_busy(parser, busy=found.busy, write=found.write)
    return found


def refuse_busy(parser: argparse.ArgumentParser, *, busy: bool, write: bool) -> None:
    """End with 2 on a busy machine, unless `busy` was given, which excludes `write`."""
    if busy and write:
        parser.error("--write is only for a machine that is not busy")
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 4 and not busy:
        parser.error(f"the machine is busy (load {load:.1f}): figures would be worthless; wait, or say --busy")


def table(results: Sequence[Result], client: str, skipped: dict[str, str], first: str) -> str:
    """The results as Markdown, with where they were measured; `first` heads the column of what was compared."""
    lines = [
        f"Measured on {date.today().isoformat()} on {machine()}, load from {client}.",
        "",
        f"| workload | {first} | connections | requests/s | p50 ms | p99 ms | errors | CPU ms | idle MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda r: (r.case, r.connections, r.peer)):
        lines.append(
            f"| {one.case} | {one.peer} | {one.connections} | {one.requests_per_second:.0f} | {one.p50:.2f} | "
            f"{one.p99:.2f} | {one.errors} | {one.processor_ms:.2f} | {one.idle_memory:.0f} |"
        )
    return "\n".join([*lines, *(f"\nNot measured: {peer}: {reason}" for peer, reason in skipped.items())])


def put(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between the marks of `name`."""
    begin, end = marks(name)
    before, rest = document.read_text().split(begin)
    _, after = rest.split(end)
    draft = document.with_name(f".{document.name}")
    draft.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
    draft.replace(document)


def marks(name: str) -> tuple[str, str]:
    """The comments around the section of `name`."""
    return f"<!-- {name}: python -m benchmarks.{name} --write -->", f"<!-- end of {name} -->"
