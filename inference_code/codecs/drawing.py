"""Answers drawn into the picture that was sent."""

from __future__ import annotations

import colorsys
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inference_code.codecs.images import Picture


def boxes_drawn(picture: Picture, rows: Sequence[Mapping[str, Any]], kind: str) -> bytes:
    """The picture as a file of `kind` (image/png, image/jpeg) with each row's box, label and score; the best on top."""
    image = _as_image(picture)
    draw = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 200))
    font = _font(max(10, round(min(image.size) / 28)))
    for row in reversed(rows):
        colour = _colour(row["label"])
        box = [row["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        draw.rectangle(box, outline=colour, width=line)
        text = f"{row['label']} {row['score']:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        at = (box[0], max(0, box[1] - (bottom - top) - 2 * line))  # above the box, where there is room
        draw.rectangle((*at, at[0] + right - left + 2 * line, at[1] + bottom - top + 2 * line), fill=colour)
        draw.text((at[0] + line - left, at[1] + line - top), text, fill=(0, 0, 0), font=font)
    stream = io.BytesIO()
    if kind == "image/jpeg":
        image.save(stream, "JPEG", quality=90)
    else:
        image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _as_image(picture: Picture) -> Image.Image:
    """RGB of 8 bits, of the caller's own."""
    if picture.planes[0].mode == "RGB":
        return picture.planes[0].copy()
    planes = [np.asarray(plane, np.float32) for plane in picture.planes]
    pixels = np.stack(planes * (3 if len(planes) == 1 else 1), axis=-1)
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow below 10.1 has one size alone
        return ImageFont.load_default()


def _colour(label: str) -> tuple[int, int, int]:
    """The same bright colour for the same label everywhere."""
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(label.encode()) % 360 / 360, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
