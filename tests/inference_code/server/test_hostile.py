"""Damaged, mismatched, lying and exploding requests: each is answered below 500, and nothing is raised.

Through the handler alone here; over HTTP, by the thousand, in test_load.py. What is sent is in corpus.py.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_code import handler
from inference_code.handler import Headers, ModelHandler
from inference_code.settings import Limits, Settings
from tests.inference_code.artifacts import depth_artifact, doubling_artifact, sums_artifact
from tests.inference_code.corpus import bad, shown

AMOUNT = [300, pytest.param(5000, marks=pytest.mark.slow)]


def answer(served: ModelHandler, number: int) -> handler.Reply:
    content_type, accept, body, more = bad(number)
    headers = {"accept": accept, "content-type": content_type, **{name.lower(): text for name, text in more.items()}}
    done = served.predict(served.input(body, headers["content-type"], Headers(headers)))
    return served.output(done)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("count", AMOUNT)
@pytest.mark.parametrize("build", [depth_artifact, doubling_artifact, sums_artifact])
def test_hostile_requests_are_answered_below_500(tmp_path: Path, build: Callable[..., Path], count: int) -> None:
    settings = Settings(limits=Limits(pixels=1_000_000, request_bytes=2_000_000))
    served = ModelHandler(handler.load(build(tmp_path), settings))
    seen: collections.Counter[int] = collections.Counter()
    for number in range(count):
        reply = answer(served, number)
        assert reply.status < 500, (shown(number), reply.body)
        seen[reply.status] += 1
    assert {400, 406, 415} <= set(seen), seen
    assert count == 300 or {200, 413} <= set(seen), seen
