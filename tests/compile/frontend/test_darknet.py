"""Weight files of darknet: read, given to the right layers, refused in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from compile.errors import CompileError
from compile.frontend.weights import load, read
from compile.models import find
from compile.models.networks.yolo import Numbered
from compile.models.networks.yolov3 import darknet_order
from tests.compile.models.tiny import TINY

HEADER = struct.pack("<3iq", 0, 2, 0, 32013312)
# Convolutions of darknet's cfg/yolov3-tiny.cfg, each head behind what it reads.
TINY_ORDER = ["0", "2", "4", "6", "8", "10", "13", "14", "15", "20.m.1", "16", "19", "20.m.0"]


def written(path: Path, network: torch.nn.Module, *, more: int = 0) -> Path:
    """A file as darknet's save_weights makes it: of each convolution biases, then scales, mean, variance, weights."""
    state = network.state_dict()
    values = []
    for prefix in darknet_order(network):  # type: ignore[arg-type]
        plain = f"{prefix}.bias" in state
        normed = ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.weight")
        parts = ("bias", "weight") if plain else normed
        values += [state[f"{prefix}.{part}"].flatten() for part in parts]
    numbers = torch.cat([*values, torch.zeros(more)])
    path.write_bytes(HEADER + numbers.numpy().tobytes())
    return path


@pytest.mark.parametrize("variant", ["tiny", "yolov3"])
def test_every_number_comes_to_its_layer(tmp_path: Path, variant: str) -> None:
    family, (options, _) = find("yolov3", variant)[0], TINY["yolov3", variant]
    torch.manual_seed(1)
    original = family.build(variant, options)
    for value in original.weights.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value))
    path = written(tmp_path / "net.weights", original.weights)
    other = family.build(variant, options)
    load(other, read(path), str(path))
    for name, value in original.weights.state_dict().items():
        if not name.endswith(("num_batches_tracked", "anchors")):
            assert torch.equal(other.weights.state_dict()[name], value), name


def test_the_order_is_that_of_the_configuration() -> None:
    module = find("yolov3", "tiny")[0].build("tiny", TINY["yolov3", "tiny"][0]).weights
    assert isinstance(module, Numbered)
    assert darknet_order(module) == [f"model.{place}" for place in TINY_ORDER]


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    options = TINY["yolov3", "tiny"][0]
    family, _ = find("yolov3", "tiny")
    path = written(tmp_path / "net.weights", family.build("tiny", options).weights, more=7)
    with pytest.raises(CompileError, match=r"The darknet file has \d+ numbers, the network takes \d+"):
        load(family.build("tiny", options), read(path), str(path))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, HEADER, HEADER + b"abc"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.weights"
    path.write_bytes(content)
    with pytest.raises(CompileError, match="are no file of darknet"):
        read(path)
