from __future__ import annotations

import pytest

from inference_code.codecs.negotiation import custom_attributes, media_type, negotiate, option, require
from inference_code.errors import BadRequest, NotAcceptable, UnsupportedMediaType

OFFERS = ("application/x-npy", "image/png", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/x-npy"),
        ("*/*", "application/x-npy"),
        ("*", "application/x-npy"),
        (" , ,", "application/x-npy"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("application/*", "application/x-npy"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/json;charset=utf-8;q=0.5,image/png;q=0.4", "application/json"),
        ("text/html, image/png;q=0.9, */*;q=0.1", "image/png"),
        ("image/png;q=0.2, application/json;q=0.8", "application/json"),
        ("application/json, image/png", "application/json"),
        ("image/png, application/json", "image/png"),
        ("image/png;q=0, */*", "application/x-npy"),
        ("application/x-npy;q=0, */*;q=0.5", "image/png"),
        ("*/*;q=0.5, application/json;q=0.4, application/x-npy;q=0.1", "image/png"),
        ('image/png; note="a,b;c=\\"d"', "image/png"),
        ("application/json;", "application/json"),
    ],
)
def test_the_wanted_form_is_chosen(accept: str, chosen: str) -> None:
    assert negotiate(accept, OFFERS).content_type == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/webp", "*/*;q=0", "image/png;q=0"])
def test_what_cannot_be_made_is_406_naming_what_can(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        negotiate(accept, OFFERS)
    assert all(offer in str(caught.value) for offer in OFFERS)


@pytest.mark.parametrize(
    "accept",
    ["png", "image/", "*/png", "image/png;q=2", "image/png;q=abc", 'image/png;a="b', "image/png x", "a b/c", "é/é"],
)
def test_an_unreadable_accept_is_400(accept: str) -> None:
    with pytest.raises(BadRequest, match="Accept"):
        negotiate(accept, OFFERS)


@pytest.mark.parametrize("accept", ['"' + '\\"' * 2_000, 'a/b;c="' + '\\"' * 2_000, "a/b," * 100_000, ";" * 4_000])
def test_a_long_hostile_accept_is_400(accept: str) -> None:
    with pytest.raises(BadRequest, match="Accept"):
        negotiate(accept, OFFERS)


def test_many_ranges_are_read() -> None:
    assert negotiate("a/b," * 1_000 + "image/png", OFFERS).content_type == "image/png"


def test_parameters_come_from_the_range_that_decided() -> None:
    assert negotiate("image/png; size=model; charset=utf-8; q=0.5", OFFERS).parameters == {"size": "model"}
    assert negotiate("application/json, image/png; Size=model; q=0.5", OFFERS).parameters == {}
    assert negotiate('image/png; size="mo\\del"', OFFERS).parameters == {"size": "model"}


@pytest.mark.parametrize(
    ("header", "kind"),
    [("", ""), ("Image/JPEG", "image/jpeg"), ("application/json; charset=utf-8", "application/json"), ("a/b;c", "a/b")],
)
def test_media_type(header: str, kind: str) -> None:
    assert media_type(header) == kind


@pytest.mark.parametrize("header", ["jpeg", "/", "image/", "\x00"])
def test_a_content_type_that_is_none_is_415(header: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        media_type(header)


def test_require_names_what_is_read() -> None:
    assert require("a/b", ["a/b"]) == "a/b"
    with pytest.raises(UnsupportedMediaType, match="absent; this endpoint reads a/b, c/d"):
        require("", ["a/b", "c/d"])


def test_custom_attributes_are_found_among_other_text() -> None:
    assert custom_attributes("trace-17; size=model,Lang=de") == {"size": "model", "lang": "de"}
    assert custom_attributes("") == {}


def test_option_takes_the_first_source_and_names_the_allowed() -> None:
    assert option("size", ("picture", "model"), {}, {"size": "MODEL"}) == "model"
    assert option("size", ("picture", "model"), {"size": "picture"}, {"size": "model"}) == "picture"
    assert option("size", ("picture", "model"), {}, {}) == "picture"
    with pytest.raises(BadRequest, match="size is 'huge'; it can be picture or model"):
        option("size", ("picture", "model"), {"size": "huge"})
