"""The modes of interpolation, which timm.data reads when it is imported."""

from __future__ import annotations

from enum import Enum


class InterpolationMode(Enum):
    """As torchvision names them."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
