"""The checks, as data: what is asked of AWS, what the embedded AWS answers, and whether the answer is like it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import jmespath
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from pydantic import BaseModel, ConfigDict

from endpoint_spec import strict_yaml
from endpoint_spec.errors import SpecErrors
from endpoint_spec.validation import validate

from ..account import Account

FILE = Path(__file__).with_name("checks.yaml")
# What stands in an expected answer for any value of a kind.
KINDS: Mapping[str, Callable[[Any], bool]] = {
    "<text>": lambda found: isinstance(found, str) and found != "",
    "<time>": lambda found: isinstance(found, datetime),
    "<number>": lambda found: isinstance(found, int | float) and not isinstance(found, bool),
    "<body>": lambda found: isinstance(found, bytes) and found != b"",
}
POLL_SECONDS = 5.0


class Check(BaseModel):
    """One check. arguments and expected may hold $words, which the run fills in.

    select: JMESPath of what is compared of the answer; without it all of it. until: JMESPath that becomes true when the
    answer is the one to compare, waited for up to `minutes`. A refusal is an answer with the member Error; `select`
    names it where one is expected.
    In `expected`, <text>, <time>, <number> and <body> stand for any of that kind, and text after ~ is a pattern.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    step: str
    source: str
    service: str
    operation: str
    arguments: dict[str, Any] = {}
    select: str | None = None
    until: str | None = None
    minutes: float = 0
    expected: Any


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    checks: tuple[Check, ...]


@cache
def load() -> tuple[Check, ...]:
    """Every check, in the order of the run. Raises SpecErrors for a file that is none."""
    document = strict_yaml.read(FILE, FILE.name)
    if document.errors:
        raise SpecErrors(document.errors)
    return validate(_File, document).checks


@dataclass(frozen=True)
class Difference:
    """One place where an answer is not the expected one; "" is the answer as a whole."""

    where: str
    expected: Any
    answered: Any


@dataclass(frozen=True)
class Outcome:
    """A check with its answer. request_id: of the last call, "" where the answer named none."""

    check: str
    step: str
    call: str
    arguments: dict[str, Any]
    expected: Any
    answered: Any
    request_id: str
    source: str
    differences: tuple[Difference, ...] = field(default=())


@dataclass(frozen=True)
class Waiting:
    """How time passes: bounds are divided by `faster`, which is 1 on AWS."""

    faster: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic

    def attempts(self, minutes: float) -> Iterator[None]:
        """Once, and then as often as the time allows."""
        end = self.now() + minutes * 60 / self.faster
        yield
        while self.now() < end:
            self.sleep(POLL_SECONDS / self.faster)
            yield


def filled(value: Any, words: Mapping[str, Any]) -> Any:
    """The same with its $words replaced; a text that is one word alone becomes that word's value."""
    if isinstance(value, dict):
        return {key: filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, words) for item in value]
    if not isinstance(value, str) or "$" not in value:
        return value
    if value.startswith("$") and value[1:] in words:
        return words[value[1:]]
    return Template(value).safe_substitute({key: str(word) for key, word in words.items()})


def run(check: Check, account: Account, words: Mapping[str, Any], waiting: Waiting) -> Outcome:
    """Ask, wait where the check waits, and compare."""
    arguments, expected = filled(check.arguments, words), filled(check.expected, words)
    answer: dict[str, Any] = {}
    for _ in waiting.attempts(check.minutes):
        answer = ask(account, check.service, check.operation, arguments)
        if check.until is None or jmespath.search(filled(check.until, words), answer):
            break
    metadata = answer.pop("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    identifier = metadata.get("RequestId") or headers.get("x-amzn-requestid", "")
    as_selected = ("Error" in answer) == ("Error." in (check.select or ""))
    found = jmespath.search(check.select, answer) if check.select and as_selected else answer
    return Outcome(
        check=check.name,
        step=check.step,
        call=f"{check.service}:{check.operation}",
        arguments=arguments,
        expected=expected,
        answered=found,
        request_id=str(identifier),
        source=check.source,
        differences=tuple(compare(expected, found)),
    )


def ask(account: Account, service: str, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, also of a refusal, which has the member Error. A body is read."""
    try:
        answer: dict[str, Any] = getattr(account.client(service), operation)(**arguments)
    except ClientError as error:
        return dict(error.response)
    return {key: item.read() if isinstance(item, StreamingBody) else item for key, item in answer.items()}


def compare(expected: Any, answered: Any, where: str = "") -> Iterator[Difference]:
    """Every place where they differ: a member that is missing, one that is new, another value."""
    if isinstance(expected, dict) and isinstance(answered, dict):
        for key in [*expected, *(key for key in answered if key not in expected)]:
            place = f"{where}.{key}".lstrip(".")
            if key not in answered:
                yield Difference(place, expected[key], "not there")
            elif key not in expected:
                yield Difference(place, "not there", answered[key])
            else:
                yield from compare(expected[key], answered[key], place)
    elif isinstance(expected, list) and isinstance(answered, list) and len(expected) == len(answered):
        for index, (wanted, found) in enumerate(zip(expected, answered, strict=True)):
            yield from compare(wanted, found, f"{where}[{index}]")
    elif not _fits(expected, answered):
        yield Difference(where, expected, answered)


def _fits(expected: Any, answered: Any) -> bool:
    if isinstance(expected, str) and expected in KINDS:
        return KINDS[expected](answered)
    if isinstance(expected, str) and expected.startswith("~"):
        return isinstance(answered, str) and re.fullmatch(expected[1:].strip(), answered, re.DOTALL) is not None
    return bool(expected == answered)
