from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference_code.codecs import images
from inference_code.codecs.images import decode, encode_png16, from_array
from inference_code.errors import BadRequest, TooLarge, Unavailable, Unprocessable
from inference_code.settings import Limits
from tests.inference_code.artifacts import encoded, gradient

MANY = Limits(pixels=10_000_000)


def values(body: bytes) -> np.ndarray[Any, Any]:
    """The decoded picture at its own size, uint8 [height, width, 3]."""
    picture = decode(body, MANY)
    return np.rint(picture.resized(*picture.size) * 255).astype(np.uint8).transpose(1, 2, 0)


def png(width: int, height: int, data: bytes = b"", *, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_colour_pictures_keep_their_values() -> None:
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        np.testing.assert_array_equal(values(encoded(Image.fromarray(gradient()), kind, **options)), gradient())
    lossy = values(encoded(Image.fromarray(gradient()), "JPEG", quality=95)).astype(int)
    assert np.abs(lossy - gradient()).max() < 16


def test_grey_and_black_and_white_fill_three_channels() -> None:
    grey = gradient()[:, :, 0]
    for image, expected in (
        (Image.fromarray(grey), grey),
        (Image.fromarray(grey).convert("1", dither=Image.Dither.NONE), np.where(grey > 127, 255, 0)),
    ):
        found = values(encoded(image))
        for channel in range(3):
            np.testing.assert_array_equal(found[:, :, channel], expected)


def test_sixteen_bit_grey_keeps_its_bits() -> None:
    deep = np.array([[0, 1, 256], [32768, 65534, 65535]], np.uint16)
    picture = decode(encoded(Image.fromarray(deep)), MANY)
    found = picture.resized(2, 3)
    np.testing.assert_array_equal(found[0], deep.astype(np.float32) / np.float32(65535))
    np.testing.assert_array_equal(found[0], found[2])
    assert found.dtype == np.float32


def test_sixteen_bit_colour_is_read() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32768, 0) * 2 for _ in range(2))
    np.testing.assert_array_equal(values(png(2, 2, rows, depth=16)), np.full((2, 2, 3), [255, 128, 0]))


def test_transparency_is_composited_over_white() -> None:
    layer = np.dstack([gradient(), np.full((30, 40), 255, np.uint8)])
    layer[:, :20, 3] = 0
    found = values(encoded(Image.fromarray(layer)))
    assert (found[:, :20] == 255).all()
    np.testing.assert_array_equal(found[:, 20:], gradient()[:, 20:])
    half = Image.new("LA", (2, 2), (0, 51))
    assert (values(encoded(half)) == 204).all()


def test_palettes_are_looked_up_with_their_transparent_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert values(encoded(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert values(encoded(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_cmyk_jpeg_has_the_right_colours() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    found = values(encoded(image, "JPEG", quality=100)).reshape(-1, 3).astype(int)
    assert np.abs(found - [200, 40, 90]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_honoured(orientation: int, kind: str) -> None:
    upright = Image.fromarray(gradient(16, 24))
    undo = {  # how a camera stores an upright scene under each orientation
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = values(encoded(stored, kind, exif=exif, quality=95)).astype(int)
    assert found.shape == (16, 24, 3)
    assert np.abs(found - gradient(16, 24)).max() < 40


def test_an_unknown_orientation_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(values(encoded(Image.fromarray(gradient()), exif=exif)), gradient())


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    body = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert values(body)[0, 0].tolist() == [255, 0, 0]


def test_resizing_is_pillows_bicubic() -> None:
    image = Image.fromarray(gradient())
    expected = np.asarray(image.resize((14, 28), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(decode(encoded(image), MANY).resized(28, 14), expected, atol=1e-7)


def test_a_one_pixel_picture_is_resized() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), "red")), MANY).resized(4, 4)[0].min() == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"I am a text file, not a picture.\n" * 10,
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        png(8, 8, b"too short"),
        encoded(Image.new("RGB", (8, 8)), "GIF"),
        encoded(Image.new("RGB", (8, 8)), "BMP"),
        encoded(Image.new("RGB", (8, 8)), "TIFF"),
    ],
)
def test_what_is_no_picture_is_400(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(body, MANY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_picture_is_400(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    body = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadRequest):
        decode(body[: len(body) * 2 // 3], MANY)


@pytest.mark.parametrize(
    "body",
    [
        png(60_000, 60_000),  # beyond Pillow's own bound
        png(4_000, 4_000),
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x0f\x27\0" * 2 + b"\0" * 20,
        b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + ((9999) | (9999 << 14)).to_bytes(4, "little") + b"\0" * 20,
        b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + (9999).to_bytes(2, "little") * 2 + b"\0" * 20,
    ],
)
def test_a_bomb_is_413_by_its_header(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_this(*_: Any) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", not_this)
    with pytest.raises(TooLarge, match="pixels"):
        decode(body, MANY)


def test_the_limit_itself_is_allowed() -> None:
    body = encoded(Image.new("RGB", (10, 10)))
    assert decode(body, Limits(pixels=100)).size == (10, 10)
    with pytest.raises(TooLarge, match="10 x 10 = 100 pixels; at most 99"):
        decode(body, Limits(pixels=99))


GOOD = {kind: encoded(Image.fromarray(gradient(16, 16)), kind) for kind in ("JPEG", "PNG", "WEBP")}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.binary(min_size=1, max_size=12), st.integers(0, 400))
def test_a_damaged_picture_is_read_or_refused(kind: str, noise: bytes, place: int) -> None:
    body = GOOD[kind]
    with contextlib.suppress(BadRequest, TooLarge):
        decode(body[:place] + noise + body[place + len(noise) :], Limits(pixels=10_000))


def test_pictures_as_arrays() -> None:
    assert from_array(gradient(), MANY).resized(30, 40).max() == 1
    deep = from_array(np.full((4, 5), 65535, np.uint16), MANY)
    assert (deep.size, deep.resized(4, 5).min()) == ((4, 5), 1.0)
    colours = np.zeros((4, 5, 3), np.float32)
    colours[:, :, 1] = 0.25
    assert from_array(colours, MANY).resized(4, 5)[:, 0, 0].tolist() == [0, 0.25, 0]


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((3, 4, 5), np.uint8), "shape [3, 4, 5]"),
        (np.zeros((4,), np.uint8), "shape [4]"),
        (np.zeros((0, 4, 3), np.uint8), "shape [0, 4, 3]"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), np.float64), "float64"),
        (np.zeros((4, 4, 3), np.bool_), "bool"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinity"),
        (np.full((4, 4, 3), 255, np.float32), "255 to 255"),
    ],
)
def test_arrays_that_are_no_pictures_are_400(array: Any, part: str) -> None:
    with pytest.raises(BadRequest) as caught:
        from_array(array, MANY)
    assert part in str(caught.value)


def test_an_array_beyond_the_pixel_limit_is_413() -> None:
    with pytest.raises(TooLarge):
        from_array(np.zeros((10, 11), np.uint8), Limits(pixels=109))


def test_png16_gives_the_values_back_to_half_a_step() -> None:
    depth = np.random.default_rng(1).normal(5, 3, (20, 30)).astype(np.float32)
    with Image.open(io.BytesIO(encode_png16(depth, {"rehearsal": "true"}))) as image:
        texts, pixels = image.text, np.asarray(image).astype(np.float64)
    low, high = float(texts["minimum"]), float(texts["maximum"])
    assert (np.float32(low), np.float32(high), texts["rehearsal"]) == (depth.min(), depth.max(), "true")
    assert texts["formula"] == "value = minimum + pixel * (maximum - minimum) / 65535"
    back = low + pixels * (high - low) / 65535
    assert np.abs(back - depth).max() <= (high - low) / 65535 / 2 * 1.01


def test_png16_of_a_constant_map() -> None:
    with Image.open(io.BytesIO(encode_png16(np.full((2, 2), 7, np.float32), {}))) as image:
        assert (image.text["minimum"], image.text["maximum"]) == ("7", "7")
        assert np.asarray(image).max() == 0


def test_png16_cannot_say_nan() -> None:
    with pytest.raises(Unprocessable, match="application/x-npy"):
        encode_png16(np.array([[1, np.nan]], np.float32), {})


# Work and memory -----------------------------------------------------------------------------------------------------


def segment(marker: int, data: bytes = b"") -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(segments: bytes) -> bytes:
    """A JPEG with more before its tables."""
    at = GOOD["JPEG"].index(b"\xff\xdb")
    return GOOD["JPEG"][:at] + segments + GOOD["JPEG"][at:]


def with_chunks(chunks: bytes, image: Image.Image | None = None) -> bytes:
    body = GOOD["PNG"] if image is None else encoded(image)
    at = body.index(b"IDAT") - 4
    return body[:at] + chunks + body[at:]


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def scan_bomb(side: int, scans: int) -> bytes:
    """A progressive JPEG that claims side x side, and has empty scans of ten bytes."""
    body = bytearray(encoded(Image.new("RGB", (160, 120)), "JPEG", progressive=True))
    at = body.index(b"\xff\xc2")
    body[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(body[:-2]) + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" * scans + b"\xff\xd9"


FRAMES = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\7\0\0\7\0\0" + b"ANMF\x18\0\0\0" * 101
TOO_MUCH = {
    "scans of many pixels": (scan_bomb(6300, 20), "30 scans of 6300 x 6300 pixels.*ENDPOINT_MAX_SCANNED_PIXELS"),
    "scans without end": (scan_bomb(1000, 3000), "segments.*ENDPOINT_MAX_SEGMENTS"),
    "segments": (with_segments(segment(0xFE) * 101), "segments.*ENDPOINT_MAX_SEGMENTS"),
    "tables": (with_segments(segment(0xDB, (b"\0" + b"\1" * 64) * 1000) * 5), "tables of more than"),
    "frame headers": (with_segments(segment(0xC0, b"\x08\0\x10\0\x10\3" + b"\1\x22\0" * 20_000) * 5), "tables"),
    "empty chunks": (with_chunks(chunk(b"teSt") * 101), "chunks.*ENDPOINT_MAX_SEGMENTS"),
    "empty data": (with_chunks(chunk(b"IDAT") * 101), "chunks.*ENDPOINT_MAX_SEGMENTS"),
    "frames": (FRAMES, "frames.*ENDPOINT_MAX_SEGMENTS"),
    "a long side": (encoded(Image.new("1", (2001, 1))), "2001 x 1 pixels; a side may have at most 2000"),
    "a long WebP": (encoded(Image.new("RGB", (1, 2001)), "WEBP"), "1 x 2001 pixels; a side may have at most 2000"),
}


@pytest.mark.parametrize("name", sorted(TOO_MUCH))
def test_more_work_than_is_allowed_is_413_before_decoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_this(*_: Any) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", not_this)
    body, part = TOO_MUCH[name]
    side = 7000 if "scans of" in name else 2000
    with pytest.raises(TooLarge, match=part):
        decode(body, Limits(segments=100, side=side))


METADATA = {
    "comments": with_segments(segment(0xFE, b"x" * 60_000) * 90),
    "EXIF": with_segments(segment(0xE1, b"Exif\0\0" + bytes(1000)) * 90),
    "resources": with_segments(segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\1\1\0\0" + bytes(4)) * 5000) * 90),
    "colour profiles": with_segments(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 90),
    "junk": with_segments(bytes(3_000_000)),
    "padding": with_segments(b"\xff" * 300_000 + b"\0"),
    "compressed text": with_chunks(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 90),
    "compressed profiles": with_chunks(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 90),
    "frames of an APNG": encoded(
        Image.fromarray(gradient(16, 16)), save_all=True,
        append_images=[Image.new("RGB", (16, 16), (n, 0, 0)) for n in range(30)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(METADATA))
def test_metadata_reaches_no_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    opened = Image.open

    def watched(stream: io.BytesIO, **options: Any) -> Image.Image:
        seen.append(len(stream.getvalue()))
        return opened(stream, **options)

    monkeypatch.setattr(Image, "open", watched)
    found = values(METADATA[name]).astype(int)
    assert np.abs(found - gradient(16, 16)).max() < 40
    assert seen[0] < 3000


def test_what_stands_behind_a_picture_is_no_scan() -> None:
    """Telephones append films, in which any bytes may come."""
    body = GOOD["JPEG"] + b"\xff\xda" * 100
    assert decode(body, Limits(pixels=1000, scanned_pixels=1000)).size == (16, 16)


def test_restart_markers_and_progressive_scans_of_honest_pictures_are_read() -> None:
    image = Image.fromarray(gradient(160, 160))
    for options in ({"restart_marker_blocks": 1}, {"progressive": True}, {"progressive": True, "subsampling": 0}):
        body = encoded(image, "JPEG", quality=95, **options)
        assert np.abs(values(body).astype(int) - gradient(160, 160)).max() < 40
    body = encoded(image.convert("CMYK"), "JPEG", progressive=True)
    assert decode(body, Limits(pixels=25_600, scanned_pixels=25_600 * 18)).size == (160, 160)


def test_a_picture_takes_its_memory_and_gives_it_back() -> None:
    limits = Limits(decode_bytes=100 * 100 * 24)
    assert limits.memory is limits.memory
    limits.memory._wait_s = 0.01
    body = encoded(Image.new("RGB", (100, 100)))
    picture = decode(body, limits)
    with pytest.raises(Unavailable, match=r"picture of 100 x 100 pixels takes 160000 bytes .* 160000 of 240000"):
        decode(body, limits)
    del picture
    assert decode(body, limits).size == (100, 100)
    with pytest.raises(BadRequest):
        decode(body[:-40], limits)
    assert decode(body, limits).size == (100, 100)


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {}), ("JPEG", {"progressive": True})])
def test_formats_that_take_more_memory_count_more(kind: str, options: dict[str, Any]) -> None:
    body = encoded(Image.new("RGB", (100, 100)), kind, **options)
    with pytest.raises(TooLarge, match=r"takes 240000 bytes .* at most 200000 are \(ENDPOINT_DECODE_BYTES\)"):
        decode(body, Limits(decode_bytes=200_000))


def test_a_jpeg_that_is_decoded_small_takes_the_memory_of_the_small_one() -> None:
    body = encoded(Image.new("RGB", (1600, 1600)), "JPEG")
    limits = Limits(decode_bytes=200 * 200 * 16)
    assert decode(body, limits, lambda *_: (100, 100)).size == (1600, 1600)
    with pytest.raises(TooLarge, match="1600 x 1600"):
        decode(body, limits)


def test_encoding_holds_no_second_copy_of_the_map() -> None:
    depth = np.linspace(0, 1, 4_000_000, dtype=np.float32).reshape(2000, 2000)
    tracemalloc.start()
    try:
        encode_png16(depth, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * depth.nbytes  # the pixels of 2 bytes, the file, and some rows


# Decoding at a smaller size -----------------------------------------------------------------------------------------


def photograph(scale: int = 1) -> Image.Image:
    image = Image.open(Path(__file__).parents[3] / "examples/photographs/coffee.jpg").convert("RGB")
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def checks(height: int = 1600, width: int = 2400) -> Image.Image:
    """Coloured checks of 10 pixels: nothing but hard edges."""
    small = np.random.default_rng(2).integers(0, 2, (height // 10, width // 10, 3), dtype=np.uint8) * 255
    return Image.fromarray(np.kron(small, np.ones((10, 10, 1), np.uint8)))


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (40, 1), (15, 300), (16, 16), (17, 300), (480, 640), (333, 517)]
)
def test_resizing_is_pillows(height: int, width: int) -> None:
    """By torch, where it can and the sides are long enough, to within 2 of 255 of noise; by Pillow itself elsewhere."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = from_array(pixels, MANY)
    for rows, columns in ((224, 224), (1, 5), (97, 31), (height, width)):
        found = np.rint(picture.resized(rows, columns) * 255).astype(int).transpose(1, 2, 0)
        expected = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC)).astype(int)
        by_torch = images._TORCH_CAN and min(height, width) >= 16
        assert np.abs(found - expected).max() <= (2 if by_torch else 0)


def test_torch_resizes_where_it_is_said_to() -> None:
    assert (int(torch.__version__.split(".")[0]) >= 2) == images._TORCH_CAN


def difference(body: bytes, height: int, width: int) -> np.ndarray[Any, Any]:
    """Between the decoding at a smaller size and the full one, both resized, on the scale of 0 to 255."""
    small = decode(body, MANY, lambda *_: (height, width))
    assert small.planes[0].width < decode(body, MANY).planes[0].width
    return np.abs(small.resized(height, width) - decode(body, MANY).resized(height, width)) * 255  # type: ignore[no-any-return]


@pytest.mark.parametrize(("quality", "subsampling"), [(75, 2), (95, 0)])
@pytest.mark.parametrize(("scale", "height", "width"), [(1, 28, 28), (1, 140, 210), (4, 518, 518), (4, 518, 686)])
def test_a_photograph_decoded_small_differs_little(
    scale: int, height: int, width: int, quality: int, subsampling: int
) -> None:
    body = encoded(photograph(scale), "JPEG", quality=quality, subsampling=subsampling)
    found = difference(body, height, width)
    assert found.mean() < 1
    assert found.max() < 18


@pytest.mark.parametrize(("height", "width"), [(28, 28), (518, 518), (518, 686)])
def test_hard_edges_decoded_small_stay_within_the_stated_bound(height: int, width: int) -> None:
    found = difference(encoded(checks(), "JPEG", quality=75), height, width)
    assert found.mean() < 7
    assert found.max() < 45


@pytest.mark.parametrize("orientation", range(1, 9))
def test_small_decoding_keeps_what_is_up_and_the_size_that_was_sent(orientation: int) -> None:
    image = Image.fromarray(gradient(300, 400))
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(image, "JPEG", exif=exif.tobytes(), quality=95)
    asked: list[tuple[int, int]] = []
    picture = decode(body, MANY, lambda *size: asked.append(size) or (20, 60))  # type: ignore[func-returns-value]
    full = decode(body, MANY)
    assert picture.size == full.size == asked[0] == ((300, 400) if orientation < 5 else (400, 300))
    assert picture.planes[0].width < full.planes[0].width
    np.testing.assert_allclose(picture.resized(20, 60), full.resized(20, 60), atol=8 / 255)


def test_small_decoding_leaves_margin_and_other_formats_alone() -> None:
    image = Image.fromarray(gradient(400, 400))
    for target, expected in (((100, 100), 200), ((70, 70), 100), ((300, 300), 400), ((1000, 1000), 400)):
        assert decode(encoded(image, "JPEG"), MANY, lambda *_, t=target: t).planes[0].width == expected
    for kind in ("PNG", "WEBP"):
        assert decode(encoded(image, kind), MANY, lambda *_: (10, 10)).planes[0].width == 400


@pytest.mark.parametrize(("mode", "options"), [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})])
def test_small_decoding_of_grey_cmyk_and_progressive(mode: str, options: dict[str, Any]) -> None:
    body = encoded(Image.fromarray(gradient(400, 600)).convert(mode), "JPEG", quality=95, **options)
    assert difference(body, 40, 60).max() < 8


def test_a_truncated_file_is_refused_at_a_smaller_size_too() -> None:
    body = encoded(photograph(), "JPEG")
    with pytest.raises(BadRequest, match="decoded"):
        decode(body[: len(body) // 2], MANY, lambda *_: (28, 28))


def test_a_file_that_asks_for_more_memory_than_there_is_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(TooLarge, match="more memory than there is"):
        decode(b"x", MANY)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "AVIF", "PDF"])
def test_another_kind_of_file_is_named(kind: str) -> None:
    body = b"\0\0\0 ftypavif" if kind == "AVIF" else encoded(Image.fromarray(gradient(8, 8)), kind)
    with pytest.raises(BadRequest, match=f"the body is a {kind} file"):
        decode(body, MANY)
