"""The operator table: what torch-neuron can place on an Inf1 core, and since which release.

The facts are data (operators.json); this module reads them and answers for one Neuron release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from compile.errors import UsageError

TABLE = Path(__file__).with_name("operators.json")


class UnknownReleaseError(UsageError):
    """The Neuron release asked for is not in the table; the message lists those that are."""


@dataclass(frozen=True)
class Release:
    """One torch-neuron release: package version (without the torch version), SDK version and date where published."""

    package: str
    sdk: str | None
    date: str | None


@dataclass(frozen=True)
class Operator:
    """One operator kind as of a release. `status` is added, limited or removed."""

    kind: str
    status: str
    since: str
    source: str
    condition: str | None = None

    @property
    def listed(self) -> bool:
        """Whether the kind is supported by its name alone (conditions not looked at)."""
        return self.status != "removed"


@dataclass(frozen=True)
class OperatorTable:
    """All operators as of one release, with the texts of the conditions and what to do about the missing ones."""

    release: Release
    operators: Mapping[str, Operator]
    conditions: Mapping[str, str]
    advice: Mapping[str, str]

    def get(self, kind: str) -> Operator | None:
        """The operator of this kind, or None when no source has ever listed it."""
        return self.operators.get(kind)


@lru_cache(maxsize=1)
def data() -> dict[str, Any]:
    """The whole data file: sources, conditions, advice, releases and operators with their events."""
    loaded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


def releases() -> tuple[Release, ...]:
    """Every release, oldest first."""
    return tuple(Release(**row) for row in data()["releases"])


def find_release(sdk: str | None) -> int:
    """Index of a release by SDK version ("2.13", "2.13.0") or package version ("2.9.1.0", "1.13.1.2.9.1.0").

    None means the newest. A version between two releases of the torch-neuron package has the operators of the
    earlier one. Raises UnknownReleaseError for anything older than the table or not a version.
    """
    known = releases()
    if sdk is None:
        return len(known) - 1
    wanted = _version(sdk)
    if len(wanted) > 4:  # torch's version stands in front: 1.13.1.2.9.1.0
        wanted = wanted[3:]
    if len(wanted) == 4:
        versions = [(_version(release.package), index) for index, release in enumerate(known)]
    else:
        wanted = wanted and (*wanted, 0, 0)[:3]
        versions = [(_version(release.sdk), index) for index, release in enumerate(known) if release.sdk]
    fitting = [index for version, index in versions if wanted and version <= wanted]
    if not fitting:
        raise UnknownReleaseError(
            f"{sdk!r} is not a Neuron release of the operator table.",
            f"Give an SDK version ({', '.join(release.sdk for release in known if release.sdk)}) or a torch-neuron "
            "package version such as 2.9.1.0.",
        )
    return max(fitting)


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version; none when it is not one."""
    parts = text.removeprefix("v").split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


@lru_cache(maxsize=8)
def table(sdk: str | None = None) -> OperatorTable:
    """The operator table as of a Neuron release (default: the newest). Raises UnknownReleaseError."""
    last = find_release(sdk)
    order = {release.package: index for index, release in enumerate(releases())}
    operators = {}
    for row in data()["operators"]:
        events = [event for event in row["events"] if order[event["release"]] <= last]
        changes = [event for event in events if event["change"] != "widened"]
        if changes:
            event = changes[-1]
            operators[row["kind"]] = Operator(
                row["kind"], event["change"], event["release"], event["source"], row.get("condition")
            )
    conditions = {name: entry["text"] for name, entry in data()["conditions"].items()}
    return OperatorTable(releases()[last], operators, conditions, data()["advice"])
