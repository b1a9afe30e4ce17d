"""Several items in one request: a bad one fails alone, in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inference_code.errors import EndpointError, TooLarge
from inference_code.request import Item, Request


def items(values: Sequence[Any], request: Request, item: Callable[[Any, Request], Item]) -> list[Item | EndpointError]:
    """`item(value, request)` of each value, or the EndpointError that it raised. Raises TooLarge for too many."""
    assert request.model is not None  # noqa: S101  (the handler always fills it)
    most = request.model.limits.items
    if len(values) > most:
        raise TooLarge(f"the request has {len(values)} items; at most {most} are read")
    found: list[Item | EndpointError] = []
    for value in values:
        try:
            found.append(item(value, request))
        except EndpointError as error:
            found.append(error)
    return found
