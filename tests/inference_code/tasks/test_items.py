"""Several items in one request: in order, each with its own answer or its own error."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference_code import handler
from inference_code.codecs.multipart import Part, split
from inference_code.errors import BadRequest, EndpointError, TooLarge
from inference_code.handler import Headers
from tests.inference_code.artifacts import (
    Server,
    depth_artifact,
    doubling_artifact,
    encoded,
    gradient,
    npy,
    read_npy,
    sums_artifact,
)


def form(*parts: tuple[str, bytes], boundary: str = "xYzZY") -> tuple[bytes, str]:
    """(body, content type) of parts (their content type, their bytes)."""
    body = b""
    for index, (kind, content) in enumerate(parts):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="p{index}"\r\nContent-Type: {kind}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def ask(served: Any, body: bytes, content_type: str, accept: str = "") -> tuple[Any, str]:
    context = Headers({"accept": accept})
    done = handler.predict_fn(handler.input_fn(body, content_type, context), served, context)
    answer, kind = handler.output_fn(done, accept, context)
    return (json.loads(answer) if kind == "application/json" else read_npy(answer)), kind


def picture(grey: int, height: int = 30, width: int = 40, kind: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", (width, height), (grey, grey, grey)), kind)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    return handler.model_fn(str(depth_artifact(tmp_path)))


def one_by_one(served: Any, *bodies: bytes) -> list[Any]:
    return [ask(served, body, "image/png", "application/json")[0] for body in bodies]


def test_parts_of_all_kinds_are_answered_in_order_as_if_alone(served: Any) -> None:
    body, kind = form(
        ("image/png", picture(10)),
        ("IMAGE/JPEG", picture(90, kind="JPEG")),
        ("application/x-npy", npy(gradient())),
        ("application/json", json.dumps({"image": base64.b64encode(picture(200)).decode()}).encode()),
    )
    answers, answered = ask(served, body, kind, "application/json")
    alone = one_by_one(
        served, picture(10), picture(90, kind="JPEG"), encoded(Image.fromarray(gradient())), picture(200)
    )
    assert (answers, answered) == (alone, "application/json")


@pytest.mark.parametrize("bad", [("image/png", b"damaged"), ("text/plain", b"x"), ("nonsense", b"x")])
def test_one_bad_part_fails_alone(served: Any, bad: tuple[str, bytes]) -> None:
    answers, _ = ask(served, *form(("image/png", picture(10)), bad, ("image/png", picture(20))))
    assert answers[1].keys() == {"error", "detail"}
    assert np.mean(answers[0]) < np.mean(answers[2])


def test_equal_sizes_stack_as_npy_and_others_become_json_where_accept_allows(served: Any) -> None:
    body, kind = form(("image/png", picture(10)), ("image/png", picture(20)))
    assert ask(served, body, kind)[0].shape == (2, 30, 40)
    body, kind = form(("image/png", picture(10)), ("image/png", picture(20, 8, 9)))
    answers, answered = ask(served, body, kind, "*/*")
    assert (answered, np.shape(answers[0]), np.shape(answers[1])) == ("application/json", (30, 40), (8, 9))
    with pytest.raises(EndpointError, match="do not stack") as caught:
        ask(served, body, kind, "application/x-npy")
    assert caught.value.status == 406


def test_a_list_of_pictures_in_json(served: Any) -> None:
    files = [picture(10), b"damaged", picture(200)]
    sent = [{"image": base64.b64encode(one).decode()} for one in files] + [{"picture": 1}]
    answers, _ = ask(served, json.dumps(sent).encode(), "application/json", "application/json")
    assert [answers[0], answers[2]] == one_by_one(served, files[0], files[2])
    assert [answer["error"] for answer in (answers[1], answers[3])] == ["bad_request", "bad_request"]
    lone, _ = ask(served, json.dumps(sent[0]).encode(), "application/json", "application/json")
    assert lone == answers[0]


def test_tensors_in_parts(tmp_path: Path) -> None:
    served = handler.model_fn(str(sums_artifact(tmp_path)))
    good = [json.dumps({"x": [value, 0, 0], "n": [1, 2]}).encode() for value in (1, 5)]
    parts = [("application/json", one) for one in (good[0], b"[1]", b"{}", good[1])]
    answers, _ = ask(served, *form(*parts))
    assert [answer.get("outputs", {}).get("sum") for answer in answers] == [1, None, None, 5]


def test_a_users_preprocess_gets_each_part_as_a_request(tmp_path: Path) -> None:
    source = """
import numpy as np
def preprocess(request):
    assert request.content_type == "text/plain"
    return np.full(3, float(request.body))
def postprocess(outputs, item):
    return outputs
"""
    served = handler.model_fn(str(doubling_artifact(tmp_path, source)))
    answers, _ = ask(served, *form(("text/plain", b"4"), ("text/plain", b"x"), ("text/plain", b"5")))
    assert (answers[0], answers[1]["error"], answers[2]) == ([8, 8, 8], "bad_request", [10, 10, 10])


def test_a_clients_own_multipart_over_http(depth_server: Server) -> None:
    files = [("a", ("a.png", picture(10), "image/png")), ("b", ("b.png", b"damaged", "image/png"))]
    answer = httpx.post(f"{depth_server.url}/invocations", files=files, headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert answer.json()[0]["height"] == 30
    assert answer.json()[1]["error"] == "bad_request"


# The parser ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), max_size=8))
@settings(max_examples=200)
def test_whatever_is_in_the_parts_comes_back(contents: list[bytes]) -> None:
    contents = [content.replace(b"xYzZY", b"") for content in contents]
    body, _ = form(*(("application/x-npy; a=b", content) for content in contents))
    assert split(body, "xYzZY", 8) == [Part("application/x-npy; a=b", content) for content in contents]


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(max_examples=300)
def test_damaged_bodies_are_split_or_refused(noise: bytes, place: int) -> None:
    body, _ = form(("image/png", b"one"), ("image/png", b"two"))
    for sent in (noise, body[:place], body[:place] + noise + body[place:]):
        with contextlib.suppress(BadRequest, TooLarge):
            split(sent, "xYzZY", 4)


@pytest.mark.parametrize(
    ("body", "boundary", "part"),
    [
        (b"x", "", "boundary ''"),
        (b"x", "a" * 71, "boundary"),
        (b"x", 'a"b', "boundary"),
        (b"x", "abc", "no --abc"),
        (b"--abc\r\nA: b\r\n\r\nx", "abc", "ends without --abc--"),
        (b"--abc\r\nA: b\r\nx\r\n--abc--", "abc", "part 0"),
        (b"--abcdef\r\n\r\nx\r\n--abc--", "abc", "part 0"),
    ],
)
def test_what_is_no_multipart_is_refused(body: bytes, boundary: str, part: str) -> None:
    with pytest.raises(BadRequest, match=part):
        split(body, boundary, 4)


def test_too_many_and_no_parts(served: Any) -> None:
    many, kind = form(*[("image/png", b"")] * 17)
    with pytest.raises(TooLarge, match="more than 16 parts"):
        ask(served, many, kind)
    with pytest.raises(BadRequest, match="no items"):
        ask(served, *form())
    with pytest.raises(BadRequest, match="a part is one item"):
        ask(served, *form(("application/x-npy", npy(np.zeros((2, 4, 4, 3), np.uint8)))))


def test_a_picture_in_json_as_clients_write_it(served: Any) -> None:
    """A data URI as browsers make it, lines as MIME breaks them, a byte order mark as Windows writes it."""
    expected = one_by_one(served, picture(90))[0]
    text = base64.b64encode(picture(90)).decode()
    lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    for image in (text, f"data:image/png;base64,{text}", lines):
        body = json.dumps({"image": image}).encode()
        assert ask(served, body, "application/json", "application/json")[0] == expected
        assert ask(served, b"\xef\xbb\xbf" + body, "application/json", "application/json")[0] == expected


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("data:image/png,AAAA", "data URI 'data:image/png', without ;base64"),
        ("A-_A", "image is not base64 (A to Z"),
        (base64.b64encode(picture(90, kind="GIF")).decode(), "the body is a GIF file"),
    ],
)
def test_a_picture_in_json_that_is_none(served: Any, image: str, words: str) -> None:
    (item,) = handler.input_fn(json.dumps({"image": image}).encode(), "application/json", Headers({}))
    assert isinstance(item.error, BadRequest)
    assert words in str(item.error)


def test_a_content_encoding_is_refused_by_name(served: Any) -> None:
    del served
    (item,) = handler.input_fn(b"x", "image/png", Headers({"content-encoding": "gzip"}))
    assert item.error is not None
    assert (item.error.status, str(item.error)) == (
        415,
        "Content-Encoding 'gzip' is not read; send the body without it",
    )
    (item,) = handler.input_fn(picture(9), "image/png", Headers({"content-encoding": "identity"}))
    assert item.error is None
