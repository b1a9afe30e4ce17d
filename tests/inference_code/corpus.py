"""What a hostile client sends: damaged, mismatched, lying and exploding bodies of every kind, with headers to match.

`hostile(number)` is one request; the number is its seed, so a failure is repeated by its number. `raw(number)` is one
on the level of HTTP itself: bytes for a connection of its own.
"""

# ruff: noqa: E501  (tables of odd things are read more easily in long lines)

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from tests.inference_code.artifacts import encoded, gradient, npy
from tests.inference_code.load import Sent

Body = tuple[str, bytes]  # content type and bytes
_SIZES = (0, 1, 2, 7, 255, 16_383, 16_384, 65_535, 65_536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)

# Pictures ----------------------------------------------------------------------------------------------------------


@functools.cache
def pictures() -> list[Body]:
    """Good pictures in every format that Pillow writes here, also those that are not read, and animations."""
    rgb = Image.fromarray(gradient())
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 500
    found = [
        ("image/png", encoded(rgb)),
        ("image/png", encoded(rgb.quantize(9), transparency=3)),
        ("image/png", encoded(rgb.convert("1"))),
        ("image/png", encoded(rgb.convert("LA"))),
        ("image/png", encoded(Image.fromarray(gradient()[:, :, 0].astype(np.uint16) * 200))),
        ("image/png", encoded(rgb, save_all=True, append_images=frames)),
        ("image/jpeg", encoded(rgb, "JPEG", exif=exif)),
        ("image/jpeg", encoded(rgb, "JPEG", progressive=True, quality=20)),
        ("image/jpeg", encoded(rgb.convert("L"), "JPEG")),
        ("image/jpeg", encoded(rgb.convert("CMYK"), "JPEG")),
        ("image/gif", encoded(rgb, "GIF", save_all=True, append_images=frames)),
        ("image/tiff", encoded(rgb, "TIFF", compression="tiff_adobe_deflate" if features.check("libtiff") else None)),
        ("image/tiff", encoded(rgb.convert("I"), "TIFF")),
        ("image/bmp", encoded(rgb, "BMP")),
        ("image/x-icon", encoded(rgb, "ICO")),
        ("image/x-portable-pixmap", encoded(rgb, "PPM")),
    ]
    if features.check("webp"):
        found += [
            ("image/webp", encoded(rgb, "WEBP")),
            ("image/webp", encoded(rgb.convert("RGBA"), "WEBP", lossless=True, exif=exif)),
            ("image/webp", encoded(rgb, "WEBP", save_all=True, append_images=frames)),
        ]
    return found


def png(width: int, height: int, depth: int = 8, colour: int = 2, *more: bytes, data: bytes = b"") -> bytes:
    """A PNG whose header claims this, with right checksums; `more` are chunks before the data."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0), *more]
    parts += [b"IDAT" + (data or zlib.compress(bytes(100_000))), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )


@functools.cache
def zeros(size: int) -> bytes:
    """`size` zeros, compressed."""
    return zlib.compress(bytes(size), 9)


def lying_picture(chance: random.Random) -> Body:
    """A picture whose header claims another size than its data has."""
    width, height = chance.choice(_SIZES), chance.choice(_SIZES)
    kind, body = chance.choice(pictures())
    found = bytearray(body)
    if kind == "image/png":
        return kind, png(width, height, chance.choice((0, 1, 2, 4, 8, 16, 255)), chance.choice((0, 2, 3, 4, 6, 99)))
    if kind == "image/jpeg":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            at = body.find(marker)
            if at >= 0:
                found[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif kind == "image/webp":
        at = 24 if body[12:16] == b"VP8X" else 21 if body[12:16] == b"VP8L" else 26
        found[at : at + 6] = struct.pack("<IH", width & 0xFFFFFFFF, height & 0xFFFF)
    elif kind == "image/gif":
        found[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    else:
        at = chance.randrange(min(60, len(found) - 4))
        found[at : at + 4] = struct.pack("<I", width & 0xFFFFFFFF)
    return chance.choice((kind, "image/jpeg")), bytes(found)


def exploding_picture(chance: random.Random) -> Body:
    """A small file that asks for much memory: by its size, by its text, by its colour profile, by its frames."""
    big = chance.choice((2_000, 6_000, 20_000, 50_000))
    text = PngInfo()
    text.add_text("comment", "x" * chance.choice((1000, 3_000_000)), zip=True)
    choices: list[Callable[[], Body]] = [
        lambda: ("image/png", png(big, big, data=zeros(10_000_000))),
        lambda: ("image/png", png(30, 30, 8, 2, b"zTXta\0\0" + zeros(80_000_000))),
        lambda: ("image/png", png(30, 30, 8, 2, b"iTXta\0\1\0\0\0" + zeros(80_000_000))),
        lambda: ("image/png", png(30, 30, 8, 2, b"iCCPa\0\0" + zeros(80_000_000))),
        lambda: ("image/png", png(30, 30, 8, 2, b"eXIf" + b"MM\0*\0\0\0\x08" + b"\xff" * 5000)),
        lambda: ("image/png", png(30, 30, 8, 2, b"acTL" + struct.pack(">II", 2**31 - 1, 0))),
        lambda: ("image/png", encoded(Image.fromarray(gradient()), pnginfo=text)),
        lambda: ("image/gif", _gif(65_535, 65_535)),
        lambda: ("image/webp", b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<II", 10, 2) + b"\xff" * 6),
    ]
    return chance.choice(choices)()


def _gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b",\0\0\0\0"
        + struct.pack("<HHB", width, height, 0)
        + b"\x08\x02\x04\x01\0;"
    )


# Arrays ------------------------------------------------------------------------------------------------------------

_DESCRIPTIONS = (
    "'<f4'", "'>f4'", "'<f2'", "'>f8'", "'|b1'", "'|u1'", "'<i8'", "'|S10'", "'<U4'", "'<M8[s]'", "'|V8'", "'<c16'",
    "'|O'", "'O'", "'<f16'", "'f'", "'float32'", "''", "None", "4", "[('a', '<f4')]", "('<f4', (2,))", "'<f4' 'x'",
    "'>O'", "b'<f4'", "'<f4\\x00'", "{}", "'a' * 9",
)  # fmt: skip
_SHAPES = (
    "(3,)", "()", "(0,)", "(1, 3)", "(30, 40, 3)", "(4, 4)", "(2, 30, 40, 3)", "(-1,)", "(3.0,)", "(True,)", "[3]",
    "3", "None", "(10**9, 10**9)", "(99999999999, 99999999999)", f"({'1, ' * 33})", f"({'9' * 400},)", "(0, 9**9)",
    f"(0, {2**63})", f"({2**62}, 4)", "('3',)", "((3,),)",
)  # fmt: skip
_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "{}", "[]", "1", "", "{", "print(1)",
    "__import__('os').abort()", "{'descr': '<f4'}", "-" * 9000 + "1", "(" * 4000, "[" * 4000 + "]" * 4000,
    "1+" * 4000 + "1", "{" * 2000, "not " * 2000 + "1", "{'descr': " * 500, "'\\N{DIGIT ONE}'", "9" * 9000, "1e999",
    "'" + "\\x00" * 2000 + "'", "\0", "{**{}}", "{'shape': (3,), 'descr': '<f4', 'fortran_order': 0}",
)  # fmt: skip


def array(chance: random.Random) -> Body:
    """An npy with a header that numpy.save never writes, or one that claims what is not there."""
    if chance.random() < 0.3:
        header = chance.choice(_HEADERS)
    else:
        order = chance.choice(("True", "False", "None", "1", "'C'"))
        description, shape = chance.choice(_DESCRIPTIONS), chance.choice(_SHAPES)
        header = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {shape}, }}"
    version = chance.choice((1, 1, 1, 2, 3, 0, 4, 255))
    length = chance.choice((len(header), len(header), len(header) + 1, 0, 65_535))
    size = struct.pack("<H", length & 0xFFFF) if version == 1 else struct.pack("<I", length)
    data = chance.choice((b"", bytes(12), np.full(3600, np.nan, np.float32).tobytes(), pickle.dumps([1]), bytes(3600)))
    kind = chance.choice(("application/x-npy", "application/x-npy", "application/x-npz", "application/octet-stream"))
    return kind, b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin1") + data


def values(chance: random.Random) -> Body:
    """A well-formed npy of numbers that no model was made for."""
    shape = chance.choice(
        ((3,), (30, 40, 3), (28, 28), (2, 28, 28, 3), (1, 1, 3), (1, 1, 1, 3), (5, 0, 3), (1, 4000, 3))
    )
    dtype = chance.choice((np.float16, np.float32, np.float64, np.uint8, np.uint16, np.int8, np.int64, np.bool_))
    value = chance.choice((0, 1, -1, 255, 65_535, float("nan"), float("inf"), -float("inf"), 1e30, 1e-45))
    with np.errstate(all="ignore"):
        return "application/x-npy", npy(np.full(shape, value).astype(dtype))


def archive(chance: random.Random) -> Body:
    """An npz that explodes, lies, nests or names odd things."""
    stream = io.BytesIO()
    kind = chance.randrange(6)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        if kind == 0:
            packed.writestr("x.npy", npy(np.zeros(10_000_000, np.uint8)))
        elif kind == 1:
            for number in range(chance.choice((64, 65, 300))):
                packed.writestr(f"{number}.npy", npy(np.ones(3, np.float32)))
        elif kind == 2:
            packed.writestr("../../x.npy", npy(np.ones(3, np.float32)))
            packed.writestr("x.npy", npy(np.ones(3, np.float32)))
        elif kind == 3:
            inner = io.BytesIO()
            np.savez(inner, x=np.ones(3))
            packed.writestr("x.npz", inner.getvalue())
        else:
            packed.writestr("x.npy", npy(np.ones(3, np.float32)))
    body = bytearray(stream.getvalue())
    if kind == 4:  # the directory claims another size
        at = body.rfind(b"PK\1\2") + 24
        body[at : at + 4] = struct.pack("<I", chance.choice((0, 10, 2**31, 2**32 - 1)))
    if kind == 5:  # encrypted, or packed in an unknown way
        at = body.rfind(b"PK\1\2") + chance.choice((8, 10))
        body[at : at + 2] = struct.pack("<H", chance.choice((1, 8, 12, 14, 99)))
    return "application/x-npz", bytes(body)


# JSON --------------------------------------------------------------------------------------------------------------

_PICTURE64 = base64.b64encode(encoded(Image.fromarray(gradient()))).decode()
_JSON = (
    '{"x": [1, 2, 3]}', '{"x": [1, 2, 3], "n": [1, 2]}', '[{"x": [1, 2, 3]}, {"x": [1, 2]}]', "", " ", "null", "true", "0", '"x"', "[]", "{}", "[[]]", "[{}]", "[null]", "{]", "[1,]", "{'x': 1}", "nan",
    "NaN", "Infinity", "-Infinity", '{"x": NaN}', '{"x": [NaN, 1, 2]}', '{"x": [1e999, 1, 2]}', '{"x": [-1e999, 1, 2]}',
    '{"x": [1, 2, 3], "x": [4, 5, 6]}', '{"x": [1, 2, 3], "y": [1, 2, 3]}', '{"x": [1, [2], 3]}', '{"x": [1, "2", 3]}',
    '{"x": [1, null, 3]}', '{"x": [true, false, true]}', '{"x": "abc"}', '{"x": {"y": 1}}', '{"\\ud800": [1, 2, 3]}',
    '{"x": "\\ud800\\udfff"}', '"\\ud800"', '{"image": "\\ud800"}', '{"image": "' + "A" * 1000 + '"}', '{"image": ""}',
    '{"image": 1}', '{"image": null}', '{"image": ["a"]}', '{"image": "data:image/png;base64,AAAA"}',
    '{"image": "' + _PICTURE64 + '"}', '[{"image": "' + _PICTURE64 + '"}, {"image": "' + _PICTURE64[:-30] + '"}]',
    '{"x": [' + "9" * 400 + ", 1, 2]}", '{"x": [' + "9" * 5000 + ", 1, 2]}", '{"x": [1e' + "9" * 300 + ", 1, 2]}",
    '{"x": [0.' + "1" * 20_000 + ", 1, 2]}", '{"x": [18446744073709551616, 1, 2]}', '{"x": [-9223372036854775809, 1, 2]}',
    '{"x": ' + "[" * 32 + "1" + "]" * 32 + "}", '{"x": ' + "[" * 33 + "1" + "]" * 33 + "}", "[" * 100_000,
    '{"x": ' * 20_000, '{"x": ' + "[" * 900 + "]" * 900 + "}", "[" + "1," * 200_000 + "1]", "[" + "{}," * 50 + "{}]",
    '{"' + "x" * 100_000 + '": 1}', '"' + "\\u0000" * 1000 + '"', '{"x": "\\', "\ufeff{}", "/* x */ {}", '{"a": 1} {"b": 2}',
    '{"__class__": "x", "__proto__": {"y": 1}}', '{"x": [1, 2, 3]}\0', '{"input_ids": [[999999999]], "text": 5}',
)  # fmt: skip


def text(chance: random.Random) -> Body:
    """JSON, or nearly."""
    found = chance.choice(_JSON)
    how = chance.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"))
    kind = chance.choice(("application/json", "application/json", "application/json; charset=utf-8", "text/csv"))
    return kind, found.encode(how, "surrogatepass" if how.startswith("utf-") and how != "utf-7" else "replace")


# Several parts -----------------------------------------------------------------------------------------------------


def multipart(chance: random.Random) -> Body:
    """multipart/form-data with all that can be odd about it."""
    boundary = chance.choice(
        ("b", "--", "-" * 60, "x" * 70, "x" * 71, "a b", "a'()+_,-./:=?b", "\xe9", "", "b\r\nX: y")
    )
    line = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    parts = []
    for _ in range(chance.choice((0, 1, 2, 3, 5, 40))):
        kind, body = chance.choice((_any_picture, values, text, array))(chance)
        headers = chance.choice((
            b"Content-Type: " + kind.encode("latin1"),
            b"content-type:" + kind.encode("latin1") + line + b'Content-Disposition: form-data; name="a"; filename="../a"',
            b"", b"X: " + b"y" * 5000, b"Content-Type: multipart/form-data; boundary=b", b": ", b"\xff\xfe", b"Content-Type",
        ))  # fmt: skip
        parts.append(headers + line + line + body)
    dash = b"--" + boundary.encode("latin1")
    body = b"".join(dash + line + part + line for part in parts) + chance.choice(
        (dash + b"--", dash, b"", dash + b"--" + line)
    )
    body = chance.choice((b"", b"preamble" + line)) + body + chance.choice((b"", b"epilogue"))
    quoted = chance.choice((boundary, f'"{boundary}"', f'"{boundary}', f"{boundary}; charset=utf-8"))
    return chance.choice(
        (f"multipart/form-data; boundary={quoted}", "multipart/form-data", f"multipart/mixed; boundary={quoted}")
    ), body


def _any_picture(chance: random.Random) -> Body:
    return chance.choice(pictures())


# Requests ----------------------------------------------------------------------------------------------------------

_KINDS: Sequence[tuple[int, Callable[[random.Random], Body]]] = (
    (4, _any_picture), (3, lying_picture), (2, exploding_picture), (5, array), (4, values), (2, archive), (6, text),
    (4, multipart),
)  # fmt: skip
_ACCEPTS = (
    "", "*/*", "*", "image/png", "application/json", "application/x-npy;size=model", "application/x-npz", ";", "a/b",
    "image/*;q=0.1, application/json", "application/json;q=0", "image/png;q=2", "image/png;q=0.1234", ", ,", '"', 'a/b;c="',
    "image/png;size=huge", "image/png, " * 400, "application/json; size=model; size=original", "*/png", "image/png;q=nan",
)  # fmt: skip
_TYPES = (
    "", "x", "IMAGE/PNG", " image/png", "image/png ;", "image/png; a", 'image/png; a="b;c"', "image/png, image/jpeg", ";;;",
    "application/json; charset=utf-16", 'application/json; charset="', "application/x-npy; " + "a=b; " * 3000, "*/*",
    "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a', "text/html", "a/b/c",
    "application/x-www-form-urlencoded", "application/octet-stream", "image/svg+xml", "application/x-python-pickle",
    "application/zip", "image/\xe9", "application/json\t", "multipart/form-data; boundary*=utf-8''b",
)  # fmt: skip
_NAMES = (
    "Accept", "X-Amzn-SageMaker-Custom-Attributes", "X-Request-Id", "Content-Type", "X-Any", "Host", "Expect", "Cookie",
    "Content-Encoding", "X-Amzn-SageMaker-Inference-Id", "Content-Disposition", "Range", "If-Match", "Accept-Encoding",
)  # fmt: skip


def damaged(body: bytes, chance: random.Random) -> bytes:
    """`body` with bytes exchanged, put in, left out, cut off or doubled."""
    found = bytearray(body)
    for _ in range(chance.choice((0, 0, 1, 1, 3, 10))):
        place = chance.randrange(len(found) + 1)
        kind = chance.random()
        if kind < 0.5:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 0.7:
            found[place:place] = bytes(chance.randrange(256) for _ in range(4))
        elif kind < 0.85:
            del found[place : place + chance.randrange(8)]
        elif kind < 0.95:
            del found[place:]
        else:
            found[place:place] = found[:10_000]
    return bytes(found)


def bad(number: int) -> tuple[str, str, bytes, dict[str, str]]:
    """Content type, Accept, body and other headers of request `number`."""
    chance = random.Random(number)
    weights, kinds = zip(*_KINDS, strict=True)
    content_type, body = chance.choices(kinds, weights)[0](chance)
    if chance.random() < 0.7:
        body = damaged(body, chance)
    if chance.random() < 0.03:
        body = gzip.compress(body)
    if chance.random() < 0.15:
        content_type = chance.choice(_TYPES)
    more: dict[str, str] = {}
    while chance.random() < 0.3:
        noise = "".join(chr(chance.choice((*range(32, 127), *range(160, 256)))) for _ in range(chance.randrange(300)))
        more[chance.choice(_NAMES)] = chance.choice(
            (noise.strip(), "100-continue", "gzip", "size=model", "rehearsal=\xff")
        )
    return content_type.replace("\r\n", " "), chance.choice(_ACCEPTS), body, more


def hostile(number: int) -> Sent:
    """Request `number`, for `load.send_all`."""
    content_type, accept, body, more = bad(number)
    lines = [f"Content-Type: {content_type}", f"Accept: {accept}"]
    lines += [f"{name}: {noise}" for name, noise in more.items() if name != "Host"]
    return Sent(number, body, "".join(f"{line}\r\n" for line in lines))


def raw(number: int) -> bytes:
    """What connection `number` sends: HTTP that is odd, ambiguous, endless or none."""
    chance = random.Random(number)
    content_type, _, body, _ = bad(number)
    if chance.random() < 0.5:
        content_type, body = "application/json", b'{"x": [1, 2, 3], "n": [1, 2]}'
    body = body[:2000]
    close = chance.choice(("Connection: close\r\n", "Connection: close\r\n", ""))
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\n{close}Content-Type: {content_type[:200]}\r\n".encode("latin1")
    length = b"Content-Length: %d\r\n" % len(body)
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    flood = b"".join(b"X-%d: y\r\n" % at for at in range(chance.choice((90, 1000, 20_000))))
    good = head + length + b"\r\n" + body
    return chance.choice((
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n",
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\nX: y\r\n\r\n",
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"a=b;" * 5000 + b"\r\nx\r\n0\r\n\r\n",
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + body,
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + body,
        lambda: head + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + body,
        lambda: head + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk + b"0\r\n\r\n",
        lambda: head + b"Transfer-Encoding: chunked\r\n" + length + b"\r\n" + chunk + b"0\r\n\r\n",
        lambda: head + length + b"Content-Length: 5\r\n\r\n" + body,
        lambda: head + b"Content-Length: -5\r\n\r\n" + body,
        lambda: head + b"Content-Length: 99999999999999999999\r\n\r\n" + body,
        lambda: head + b"Content-Length: 1_0\r\n\r\n" + body,
        lambda: head + b"Content-Length: 0x10\r\n\r\n" + body,
        lambda: head + b"\r\n" + body,
        lambda: head + length + flood + b"\r\n" + body,
        lambda: head + b"X: " + b"y" * chance.choice((8000, 60_000, 300_000)) + b"\r\n" + length + b"\r\n" + body,
        lambda: head + b"X\0Y: z\r\n" + length + b"\r\n" + body,
        lambda: head + b"X: a\0b\r\n" + length + b"\r\n" + body,
        lambda: head + b" folded: y\r\n" + length + b"\r\n" + body,
        lambda: head + b"Expect: 100-continue\r\n" + length + b"\r\n" + body,
        lambda: head + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + length + b"\r\n" + body,
        lambda: head + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + length
        + b"\r\n" + body,
        lambda: good.replace(b"HTTP/1.1", chance.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"FTP/1", b""))),
        lambda: good.replace(b"POST", chance.choice((b"GET", b"HEAD", b"TRACE", b"OPTIONS", b"CONNECT", b"PATCH", b"x" * 9000))),
        lambda: good.replace(b"/invocations", chance.choice((b"*", b"http://x/invocations", b"/%00", b"/../../etc", b"//",
                                                             b"/invocations?" + b"x" * 9000, b"/\xff\xfe", b"", b"/%ff%zz"))),
        lambda: good.replace(b"Host: x", chance.choice((b"Host: [", b"Host: x:y:z", b"Host: \xff", b"X: y", b"Host: x\r\nHost: y"))),
        lambda: good * 3,
        lambda: good[: chance.randrange(len(good))],
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
        lambda: bytes(chance.randrange(256) for _ in range(chance.randrange(1, 500))),
        lambda: b"\r\n" * 2000,
    ))()  # fmt: skip


def shown(number: int) -> str:
    """Request `number`, for a message."""
    content_type, accept, body, more = bad(number)
    return json.dumps(
        {"seed": number, "type": content_type[:200], "accept": accept[:200], "more": more, "body": repr(body[:200])}
    )
