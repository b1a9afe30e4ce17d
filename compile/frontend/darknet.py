"""Weight files of darknet (.weights): a header, then one float after the other in the order of the network's layers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compile.definition import DARKNET
from compile.errors import CompileError

SUFFIX = ".weights"


def read_darknet(path: Path) -> dict[str, Tensor]:
    """All numbers, float32 (n,), as the tensor DARKNET.

    The header is three int32 (major, minor, revision) and how many pictures were seen, 8 bytes from version 0.2 on:
    https://github.com/pjreddie/darknet, src/parser.c, load_weights_upto.
    Raises CompileError for a file that is none.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        major, minor, _ = struct.unpack("<3i", head) if len(head) == 12 else (-1, 0, 0)
        begin = 20 if major * 10 + minor >= 2 else 16
        if not (0 <= major < 100 and 0 <= minor < 100) or size <= begin or (size - begin) % 4:
            raise CompileError(f"The weights {path} are no file of darknet.", "Get the file again.")
        stream.seek(begin)
        return {DARKNET: torch.from_numpy(np.fromfile(stream, "<f4"))}
