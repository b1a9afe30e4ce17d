"""Rules and what they find.

A rule names the keys that it reads. It is skipped where one of them is faulty by itself, so that one slip gives one
message; every other rule still runs, so that all messages of a file come together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .endpoint import EndpointSpec


@dataclass(frozen=True)
class Finding:
    """A broken rule: the key, its value as text, why, and the way out."""

    key: str
    value: str
    problem: str
    remedy: str


Rule = Callable[[EndpointSpec], Iterator[Finding]]


class Rules(list[tuple[tuple[str, ...], Rule]]):
    """The rules of one file, each with the keys that it reads, in the order in which they are written."""

    def register(self, *keys: str) -> Callable[[Rule], Rule]:
        """Decorator of a rule that reads `keys`."""

        def add(function: Rule) -> Rule:
            self.append((keys, function))
            return function

        return add


def findings(rules: Iterable[tuple[tuple[str, ...], Rule]], spec: EndpointSpec, broken: set[str]) -> Iterator[Finding]:
    """Every broken rule; `broken` holds the dotted keys that are faulty by themselves."""
    for keys, function in rules:
        if not any(_touches(key, bad) for key in keys for bad in broken):
            yield from function(spec)


def _touches(key: str, bad: str) -> bool:
    return key == bad or key.startswith(bad + ".") or bad.startswith((key + ".", key + "["))
