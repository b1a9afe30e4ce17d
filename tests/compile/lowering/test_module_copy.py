"""Copies of modules, and what cannot be copied."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from compile.errors import CompileError
from compile.lowering.module_copy import duplicate


def test_a_copy_shares_nothing() -> None:
    module = nn.Linear(2, 2)
    module.cache = module.weight * 2  # with a history of gradients
    copied = duplicate(module)
    assert torch.equal(copied.cache, module.cache)
    assert copied.weight.data_ptr() != module.weight.data_ptr()


def test_what_cannot_be_copied_is_named_with_its_path() -> None:
    part = nn.Linear(2, 2)
    part.lock = threading.Lock()
    with pytest.raises(CompileError, match=r"1\.lock \(lock\) cannot be copied: .*pickle") as caught:
        duplicate(nn.Sequential(nn.ReLU(), part))
    assert "outside of the model" in caught.value.remedy
