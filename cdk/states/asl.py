"""The states of the Amazon States Language that the machines are made of, as small functions.

https://states-language.net/spec.html, https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = dict[str, Any]
States = dict[str, State]


def task(resource: str, parameters: Mapping[str, Any], **fields: Any) -> State:
    """A Task. fields: Next or End, ResultPath (None throws the result away), ResultSelector, Retry, Catch."""
    return {"Type": "Task", "Resource": resource, "Parameters": dict(parameters), **fields}


def pass_state(parameters: Mapping[str, Any], **fields: Any) -> State:
    """A Pass that makes data from data."""
    return {"Type": "Pass", "Parameters": dict(parameters), **fields}


def choice(rules: Sequence[tuple[Mapping[str, Any], str]], otherwise: str) -> State:
    """The state of the first test that holds, or `otherwise`."""
    return {"Type": "Choice", "Choices": [{**test, "Next": state} for test, state in rules], "Default": otherwise}


def filled(text: str, *paths: str) -> str:
    """An intrinsic function: a text whose {} are filled with what is at the paths."""
    return f"States.Format('{text}', {', '.join(paths)})"


def wait(seconds: int, then: str) -> State:
    """A pause."""
    return {"Type": "Wait", "Seconds": seconds, "Next": then}


def wait_for(path: str, then: str) -> State:
    """A pause of as many seconds as the data says."""
    return {"Type": "Wait", "SecondsPath": path, "Next": then}


def fail(error: str, cause: str) -> State:
    """An end with an error. Both are words, or a path or an intrinsic function that gives some."""
    return {"Type": "Fail", _key("Error", error, "Path"): error, _key("Cause", cause, "Path"): cause}


def field(name: str, value: str) -> dict[str, str]:
    """One field of a payload. value: words, or a path or an intrinsic function, which the field's name has to show."""
    return {_key(name, value, ".$"): value}


def _key(name: str, value: str, ending: str) -> str:
    # A token of the CDK, which begins with ${, is words: the path of a payload begins with $. or $$.
    is_path = value == "$" or value.startswith(("$.", "$$.", "$[", "States."))
    return f"{name}{ending}" if is_path else name


def text_is(variable: str, *values: str) -> dict[str, Any]:
    """A test: the text is one of the values."""
    return any_of(*({"Variable": variable, "StringEquals": value} for value in values))


def text_like(variable: str, *patterns: str) -> dict[str, Any]:
    """A test: the text is there and fits one of the patterns, in which * stands for anything."""
    likeness = any_of(*({"Variable": variable, "StringMatches": pattern} for pattern in patterns))
    return both({"Variable": variable, "IsPresent": True}, likeness)


def there(variable: str) -> dict[str, Any]:
    """A test: the data has this."""
    return {"Variable": variable, "IsPresent": True}


def below(variable: str, value: int) -> dict[str, Any]:
    """A test: the number is less."""
    return {"Variable": variable, "NumericLessThan": value}


def above_zero(variable: str) -> dict[str, Any]:
    """A test: the number is greater than zero."""
    return {"Variable": variable, "NumericGreaterThan": 0}


def both(*tests: Mapping[str, Any]) -> dict[str, Any]:
    """A test: all tests hold."""
    return {"And": [dict(test) for test in tests]}


def any_of(*tests: Mapping[str, Any]) -> dict[str, Any]:
    """A test: one of the tests holds."""
    return dict(tests[0]) if len(tests) == 1 else {"Or": [dict(test) for test in tests]}


def again(seconds: int, attempts: int) -> list[dict[str, Any]]:
    """Retry whatever fails, each time after twice the pause: for calls that change nothing, or nothing more."""
    return [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": seconds, "MaxAttempts": attempts, "BackoffRate": 2.0}]


def catch(then: str, into: str) -> list[dict[str, Any]]:
    """Whatever goes wrong: its Error and Cause at `into`, and on to `then`."""
    return [{"ErrorEquals": ["States.ALL"], "ResultPath": into, "Next": then}]
