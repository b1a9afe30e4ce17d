"""Damaged and mismatched requests, by the hundred: each is answered below 500, and nothing is raised."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_code import handler
from inference_code.handler import Headers
from tests.inference_code.artifacts import depth_artifact, doubling_artifact, encoded, gradient, npy


def bodies() -> list[tuple[str, bytes]]:
    npz = io.BytesIO()
    np.savez(npz, x=np.ones(3, np.float32))
    picture = Image.fromarray(gradient())
    return [
        ("image/png", encoded(picture)),
        ("image/png", encoded(picture.quantize(9), transparency=3)),
        ("image/png", encoded(Image.fromarray(gradient()[:, :, 0].astype(np.uint16) * 200))),
        ("image/jpeg", encoded(picture, "JPEG")),
        ("image/jpeg", encoded(picture.convert("CMYK"), "JPEG")),
        ("image/webp", encoded(picture, "WEBP")),
        ("application/x-npy", npy(gradient())),
        ("application/x-npy", npy(np.ones(3, np.float32))),
        ("application/x-npz", npz.getvalue()),
        ("application/json", b'{"x": [1, 2, 3]}'),
        ("application/json", b'[{"x": [1, 2, 3]}, {"x": [1e38, 2, -3]}]'),
        ("application/json", b'{"x": ' + b"[" * 90 + b"]" * 90 + b"}"),
        ("application/json", b'{"x": ' + b"[" * 5000 + b"1" + b"]" * 5000 + b"}"),
    ]


ACCEPTS = ("", "*/*", "image/png", "application/json", "application/x-npy;size=model", "application/x-npz", ";", "a/b")


def damaged(body: bytes, chance: random.Random) -> bytes:
    found = bytearray(body)
    for _ in range(chance.choice((0, 1, 1, 3, 10))):
        place = chance.randrange(len(found) + 1)
        kind = chance.random()
        if kind < 0.5:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 0.7:
            found[place:place] = bytes(chance.randrange(256) for _ in range(4))
        elif kind < 0.9:
            del found[place : place + chance.randrange(8)]
        else:
            del found[place:]
    return bytes(found)


@pytest.mark.parametrize("build", [depth_artifact, doubling_artifact])
def test_hostile_requests_are_answered_below_500(tmp_path: Path, build: Any) -> None:
    served = handler.model_fn(str(build(tmp_path)))
    chance = random.Random(7)
    good = bodies()
    statuses = set()
    for _ in range(600):
        content_type, body = chance.choice(good)
        if chance.random() < 0.1:
            content_type = chance.choice(good)[0]
        sent, context = damaged(body, chance), Headers({"accept": chance.choice(ACCEPTS)})
        reply = handler.reply(handler.predict_fn(handler.input_fn(sent, content_type, context), served))
        assert reply.status < 500, (content_type, context, sent, reply.body)
        statuses.add(reply.status)
    assert {200, 400, 406, 415} <= statuses
