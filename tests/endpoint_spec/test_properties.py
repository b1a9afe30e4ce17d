"""Properties over many inputs: quantities read back as written, and no input ends in anything but a SpecErrors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from endpoint_spec import EndpointSpec, SpecErrors, load, strict_yaml
from endpoint_spec.quantities import count, duration, format_duration, format_ratio, ratio
from tests.endpoint_spec.projects import FULL, fill

Error = TypeVar("Error", bound=Exception)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.integers(0, 86_400_000_000 * 900))
def test_a_duration_reads_back(microseconds: int) -> None:
    value = timedelta(microseconds=microseconds)
    assert duration(format_duration(value)) == value


UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6}


@QUICK
@given(number=st.integers(0, 10**4), unit=st.sampled_from(sorted(UNITS)))
def test_units_of_time_mean_what_they_say(number: int, unit: str) -> None:
    meant = timedelta(microseconds=number * UNITS[unit])
    assert duration(f"{number}{unit}") == duration(f" {number} {unit} ") == meant


@QUICK
@given(st.integers(0, 100_000_000))
@example(29_000_000)  # 0.29 * 100 is not 29 in binary
def test_a_ratio_reads_back(millionths: int) -> None:
    text = f"{Decimal(millionths) / 10**6:f}%"
    assert ratio(format_ratio(ratio(text))) == ratio(text) == pytest.approx(millionths / 10**8, abs=1e-12)
    assert 0 <= ratio(text) <= 1


@QUICK
@given(st.integers(0, 10**9), st.sampled_from([("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_multiples_of_a_count(number: int, multiple: tuple[str, int]) -> None:
    name, factor = multiple
    assert count(f"{number}{name}") == number * factor
    assert count(number) == number


@QUICK
@given(st.text(max_size=12))
def test_other_text_is_refused_by_our_own_error(text: str) -> None:
    for read in (duration, ratio, count):
        error = raised(PydanticCustomError, lambda read=read: read(text))
        assert error is None or set(error.context or {}) == {"problem", "remedy"}


NO_QUANTITIES = [
    None,
    True,
    [],
    {},
    "",
    "-1s",
    "1e3s",
    "٣s",
    "1 2s",
    "²%",
    "1,5s",
    "9999999999999999s",
    "999999999999999d",
]


@pytest.mark.parametrize("read", [duration, ratio, count])
@pytest.mark.parametrize("value", NO_QUANTITIES)
def test_what_is_no_quantity(read: Any, value: Any) -> None:
    with pytest.raises(PydanticCustomError):
        read(value)


@QUICK
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@#?,~. \t\n\r0\x00\x85\u2028é\ufeff"), max_size=60))
def test_any_text_is_data_or_faults(text: str) -> None:
    documents: list[strict_yaml.Document] = []
    errors = raised(SpecErrors, lambda: documents.append(strict_yaml.parse(text, "x.yaml")))
    if errors is None:
        json.dumps(documents[0].data, allow_nan=False)
    else:
        assert all(error.problem and error.remedy for error in errors.errors)


def keys_of(schema: type[Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the spec, as a path."""
    paths = []
    for name, field in schema.model_fields.items():
        paths.append((*above, name))
        if hasattr(field.annotation, "model_fields"):
            paths += keys_of(field.annotation, (*above, name))
    return paths


WORDS = st.sampled_from(["random:0", "1%", "5ms", "40M", "ml.inf2.xlarge", "inf2", "native", "a.py:f"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
CHANGES = st.lists(st.tuples(st.sampled_from(keys_of(EndpointSpec)), VALUES), min_size=1, max_size=3)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
@example(changes=[(("model",), {"\n": None})])
@example(changes=[(("serve",), {"\u2028x": {"\x85": 1}})])
@example(changes=[(("model", "graph"), "")])
def test_any_value_under_any_key_is_a_spec_or_faults(
    changes: list[tuple[tuple[str, ...], Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = shared_project(tmp_path_factory)
    file = project / "endpoints/invoices.yaml"
    file.write_text(as_yaml(changed(changes)), encoding="utf-8")
    specs: list[EndpointSpec] = []
    errors = raised(SpecErrors, lambda: specs.append(load(file)))
    if errors is None:
        spec = specs[0]
        assert EndpointSpec.model_validate(spec.model_dump(mode="json")).located(spec.path, spec.root) == spec
        return
    keys = [error.key for error in errors.errors]
    assert all(error.problem and error.remedy for error in errors.errors)
    assert all("\n" not in str(error) for error in errors.errors)
    assert len(set(keys)) == len(keys), str(errors)


def changed(changes: list[tuple[tuple[str, ...], Any]]) -> Any:
    """The full spec with other values under some keys."""
    data = strict_yaml.parse(FULL, "x").data
    for path, value in changes:
        holder = data
        for key in path[:-1]:
            holder = holder.setdefault(key, {}) if isinstance(holder, dict) else {}
        if isinstance(holder, dict):
            holder[path[-1]] = value
    return data


def as_yaml(data: Any) -> str:
    """JSON is YAML, except for the numbers that are none."""
    names = {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}
    tokens = json.JSONEncoder(ensure_ascii=False).iterencode(data)
    return "".join(names.get(token, token) for token in tokens)


def raised(kind: type[Error], function: Callable[[], object]) -> Error | None:
    """The error of this kind that the function ends in, or None; any other error is the test's failure."""
    try:
        function()
    except kind as error:
        return error
    return None


def shared_project(factory: pytest.TempPathFactory) -> Path:
    """One project for all examples."""
    root = factory.getbasetemp() / "properties"
    return root if root.exists() else fill(root)
