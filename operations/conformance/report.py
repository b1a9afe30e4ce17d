"""The report of a conformance run: Markdown for people, JSON for machines, under build/conformance/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checks import Outcome


@dataclass(frozen=True)
class Run:
    """What a run was. ended: "" where every step was done, else why not. left: what could not be destroyed."""

    began: str
    account: str
    region: str
    rehearsal: bool
    budget: float
    spent: float
    ended: str
    left: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def differing(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.differences]


def write(run: Run, folder: Path) -> tuple[Path, Path]:
    """Write report.md and report.json; both are whole or not there."""
    record = asdict(run) | {"differing": len(run.differing)}
    contents = {"report.md": markdown(run), "report.json": json.dumps(record, indent=2, default=_shown) + "\n"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
    return folder / "report.md", folder / "report.json"


def markdown(run: Run) -> str:
    """The report for people."""
    where = "the embedded AWS on this machine: this says nothing about AWS" if run.rehearsal else "AWS"
    lines = [
        "# Conformance",
        "",
        f"Asked on {run.began} of {where}, account {run.account}, {run.region}. "
        f"At most {run.spent:.2f} of {run.budget:.2f} USD were spent, as computed.",
        "",
        f"**{len(run.differing)} of {len(run.outcomes)} checks differ from what the embedded AWS answers.**",
    ]
    if run.ended:
        lines += ["", f"**The run did not end as planned**: {run.ended}"]
    if run.left:
        lines += ["", "**Still there, and may cost**:", "", *(f"- {item}" for item in run.left)]
    if run.differing:
        lines += ["", "## Differences"]
    for outcome in run.differing:
        lines += ["", *_differing(outcome)]
    lines += ["", "## All checks", "", "| step | check | call | request id | differs |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.step} | {one.check} | {one.call} | {one.request_id or 'none'} | {len(one.differences) or ''} |"
        for one in run.outcomes
    ]
    return "\n".join(lines) + "\n"


def _differing(outcome: Outcome) -> Sequence[str]:
    rows = [
        f"| {one.where or 'the answer'} | {_cell(one.expected)} | {_cell(one.answered)} |"
        for one in outcome.differences
    ]
    return (
        f"### {outcome.step}: {outcome.check}",
        "",
        f"`{outcome.call}` with `{_cell(outcome.arguments)}`, request id {outcome.request_id or 'none'}. "
        f"Source of what is expected: {outcome.source}",
        "",
        "| where | the embedded AWS | answered |",
        "|---|---|---|",
        *rows,
    )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=_shown)
    return text.replace("|", "\\|").replace("\n", " ")[:500]


def _shown(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
