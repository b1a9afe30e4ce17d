"""What all requests together may take of the memory."""

from __future__ import annotations

import threading

import pytest

from inference_code.errors import TooLarge, Unavailable
from inference_code.memory import MemoryBudget, machine_bytes
from inference_code.settings import Settings
from tests.inference_code.helpers import LONG


def test_more_than_there_is_names_figure_and_setting() -> None:
    with pytest.raises(TooLarge, match=r"a picture takes 101 bytes .* at most 100 are \(ENDPOINT_DECODE_BYTES\)"):
        MemoryBudget(100).take(101, "a picture")


def test_what_others_have_is_waited_for_and_then_503() -> None:
    budget = MemoryBudget(100, wait_s=0.01)
    with budget.taken(60, "one"):
        with pytest.raises(Unavailable, match="60 of 100 are in use") as caught:
            budget.take(41, "other")
        assert caught.value.retry_after == 1
        budget.take(40, "small")
    budget.take(60, "other")


def test_memory_that_is_given_back_wakes_who_waits() -> None:
    budget = MemoryBudget(100, wait_s=LONG)
    budget.take(100, "one")
    waiting = threading.Thread(target=budget.take, args=(100, "other"))
    waiting.start()
    budget.give_back(100)
    waiting.join(LONG)
    assert not waiting.is_alive()


def test_defaults_are_shares_of_the_machine() -> None:
    settings = Settings()
    assert settings.limits.decode_bytes == machine_bytes() // 4
    assert settings.transfer_bytes == machine_bytes() // 16
