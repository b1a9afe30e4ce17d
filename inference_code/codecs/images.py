"""JPEG, PNG and WebP to float32, and 16-bit grey PNG out.

What a picture becomes: RGB, upright. EXIF orientation is applied; grey is repeated over the three channels; a palette
is looked up; transparency is composited over white; CMYK is converted without a colour profile; of an animation the
first frame counts. Grey of 16 bits keeps them (colour of 16 bits is read with 8, as Pillow reads it).

A JPEG that is going to be made much smaller is decoded at 1/2, 1/4 or 1/8 of its size, which the JPEG library does in
the frequency domain for a fraction of the work. It stays at least DRAFT_MARGIN times as large as what it is resized to.
Against the full decoding, on the scale of 0 to 255, the resized picture differs on photographs by less than 1 on
average and 18 in any one value; on the worst that was tried, coloured checks of 10 pixels, by less than 7 and 45
(measured with Pillow 10.4 and 12.3, qualities 75 to 95; the tests hold it to that).

Pillow gets of a file only what a picture is made of: it reads metadata in Python, some of it in time that grows with
the square of its size. What is left is bounded before it is decoded: sides, pixels, segments, scans, and memory.
"""

from __future__ import annotations

import io
import math
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch.nn import functional

from inference_code.errors import BadRequest, EndpointError, TooLarge, Unprocessable
from inference_code.request import Array
from inference_code.settings import Limits

PNG = "image/png"
IMAGES = ("image/jpeg", "image/png", "image/webp")
_FORMATS = ("JPEG", "PNG", "WEBP")
# What other files begin with, for the message.
_OTHERS = {
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "HEIC": re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "AVIF": re.compile(rb".{4}ftypavi[fs]", re.DOTALL),
    "PDF": re.compile(rb"%PDF-"),
}
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.3, tag 274: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_MAXIMUM = 65535
_ROWS = 64  # that are encoded at once
_SIDEWAYS = (5, 6, 7, 8)  # the orientations that exchange height and width
DRAFT_MARGIN = 1.4

# JPEG's markers, https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1; those that stand within a scan are left out.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE
_APPLICATIONS_READ = {0xE0: b"JFIF", 0xE1: b"Exif", 0xEE: b"Adobe"}  # for the colours, and which side is up
_MAX_HEADER = 256 * 1024  # bytes before the first scan: tables, and one segment of EXIF
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS_READ = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
_MAX_EXIF = 64 * 1024
# Memory for each pixel, at its height, resizing included: measured 8 to 12 bytes, 18 for WebP; coefficients are 2 bytes
# for each component, kept for the whole picture while the scans of a progressive JPEG come.
_BYTES_A_PIXEL, _BYTES_OF_WEBP, _BYTES_OF_COEFFICIENTS = 16, 24, 8

# From the (height, width) of an upright picture to what it will be resized to.
Target = Callable[[int, int], "tuple[int, int]"]


@dataclass(frozen=True)
class Picture:
    """An upright picture: one RGB plane of 8 bits, or one (grey) or three planes of mode F with values 0 to 1.

    full_size: (height, width) that was sent, where the planes were decoded at a smaller one.
    """

    planes: tuple[Image.Image, ...]
    full_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the picture that was sent."""
        width, height = self.planes[0].size
        return self.full_size or (height, width)

    def resized(self, height: int, width: int) -> Array:
        """Float32 (3, height, width), 0 to 1, resized by Pillow's bicubic filter (as transformers' processor does).

        Values that the filter throws beyond 0 and 1 are clipped, as they are for 8 bits. The array is the caller's own.
        """
        if self.planes[0].mode == "RGB":
            found = np.empty((3, height, width), np.float32)
            found[:] = _resized(self.planes[0], height, width).transpose(2, 0, 1)
            found /= np.float32(255)
            return found
        planes = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in self.planes]
        stacked = np.clip(np.stack([np.asarray(plane, np.float32) for plane in planes]), 0, 1)
        return np.repeat(stacked, 3, axis=0) if len(planes) == 1 else stacked


def _by_torch(image: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """RGB of 8 bits (height, width, 3), by the same filter as Pillow's, several times faster. Needs torch 2.1.

    Of 25 000 pictures of noise, of sides from 16 to 1200, no value differed from Pillow's by more than 2 of 255 (94 %
    of the pictures by at most 1); with sides below 6 some differ by up to 26 (torch 2.13, AVX2).
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    found = functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return found[0].permute(1, 2, 0).numpy()


def _torch_can() -> bool:
    """Whether this torch resizes 8 bits."""
    try:
        _by_torch(Image.new("RGB", (_LEAST_BY_TORCH, _LEAST_BY_TORCH)), 2, 2)
    except (NotImplementedError, RuntimeError):
        return False
    return True


_LEAST_BY_TORCH = 16  # pixels of a side
_TORCH_CAN = _torch_can()


def _resized(image: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """RGB of 8 bits (height, width, 3)."""
    if _TORCH_CAN and min(image.size) >= _LEAST_BY_TORCH:
        return _by_torch(image, height, width)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def decode(body: bytes, limits: Limits, target: Target | None = None) -> Picture:
    """Decode a JPEG, PNG or WebP file; the bytes decide which, not the declared media type.

    With `target`, which says what the picture will be resized to, a JPEG may be decoded at a smaller size.
    The limits are checked before anything is decoded.
    Raises TooLarge above them, BadRequest for a file that is none of the three, truncated or damaged, Unavailable
    when other requests need the memory.
    """
    if not body:
        raise BadRequest("the body is empty; send a JPEG, PNG or WebP file")
    try:
        lean, scans = _without_metadata(body, limits)
        with Image.open(io.BytesIO(lean), formats=_FORMATS) as image:
            _check_size(*image.size, limits)
            if scans * image.width * image.height > limits.scanned_pixels:
                raise TooLarge(
                    f"the picture has {scans} scans of {image.width} x {image.height} pixels; at most "
                    f"{limits.scanned_pixels} are read, all scans together (ENDPOINT_MAX_SCANNED_PIXELS)"
                )
            return _upright(image, limits, target)
    except EndpointError:
        raise
    except MemoryError:  # a damaged file can claim anything of what its header does not bound
        raise TooLarge("the picture asks for more memory than there is; send a smaller or an undamaged one") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"the picture is too large: {error}; at most {limits.pixels} pixels are read") from None
    except UnidentifiedImageError:
        kind = next((f"a {name}" for name, known in _OTHERS.items() if known.match(body)), "not a JPEG, PNG or WebP")
        raise BadRequest(f"the body is {kind} file, or its header is damaged; send JPEG, PNG or WebP") from None
    except Exception as error:  # damaged files raise nearly anything: OSError, SyntaxError, struct.error, KeyError ...
        raise BadRequest(f"the picture cannot be decoded: {str(error)[:200] or type(error).__name__}") from None


def _without_metadata(body: bytes, limits: Limits) -> tuple[bytes, int]:
    """The file without what is not needed, and the number of its scans. Raises TooLarge."""
    if body.startswith(b"\xff\xd8"):
        return _lean_jpeg(body, limits)
    if body.startswith(_PNG_SIGNATURE):
        return _lean_png(body, limits.segments), 1
    _check_webp(body, limits)
    return body, 1


def _too_many(what: str, most: int) -> TooLarge:
    return TooLarge(f"the picture has more than {most} {what}, which is what is read at most (ENDPOINT_MAX_SEGMENTS)")


def _lean_jpeg(body: bytes, limits: Limits) -> tuple[bytes, int]:
    kept, names, most, at = [b"\xff\xd8"], dict(_APPLICATIONS_READ), limits.segments, 2
    for _ in range(most):
        found = _MARKER.search(body, at)
        if found is None or found[1][0] in (_SOS, _EOI):
            break
        marker, at = found[1][0], _end_of_segment(body, found)
        if marker in names and body.startswith(names[marker], found.end() + 2):
            del names[marker]  # the first alone is kept
        elif marker in _APPLICATION or marker == _COMMENT:
            continue
        kept.append(body[found.start() : at])
    else:
        raise _too_many("segments", most)
    if sum(map(len, kept)) > _MAX_HEADER:
        raise TooLarge(f"the picture has tables of more than {_MAX_HEADER} bytes, which is what is read at most")
    begin = found.start() if found is not None else len(body)
    return b"".join([*kept, body[begin:]]), _scans(body, begin, limits)


def _scans(body: bytes, at: int, limits: Limits) -> int:
    """The number of scans from the first on; no fewer than there are, and exact where it could be too many.

    What is counted at once may also stand behind the picture (phones append films) or within a segment.
    """
    count = body.count(b"\xff\xda", at)
    if count * limits.pixels <= limits.scanned_pixels:
        return count
    count = 0
    for _ in range(limits.segments):
        found = _MARKER.search(body, at)
        if found is None or found[1][0] == _EOI:
            return count
        count += found[1][0] == _SOS
        at = _end_of_segment(body, found)
    raise _too_many("segments", limits.segments)


def _end_of_segment(body: bytes, marker: re.Match[bytes]) -> int:
    at = marker.end()
    return at if marker[1][0] in (0x01, _SOI) else at + max(2, int.from_bytes(body[at : at + 2], "big"))


def _lean_png(body: bytes, most: int) -> bytes:
    kept, at = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    for _ in range(most):
        end = at + 12 + int.from_bytes(body[at : at + 4], "big")
        kind = body[at + 4 : at + 8]
        if kind in _CHUNKS_READ and (kind != b"eXIf" or end - at <= _MAX_EXIF):
            kept.append(body[at:end])
        at = end
        if kind == b"IEND" or at >= len(body):
            return b"".join(kept)
    raise _too_many("chunks", most)


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise TooLarge(
            f"the picture has {width} x {height} = {width * height} pixels; at most {limits.pixels} are read. "
            "Send a smaller one"
        )
    if max(width, height) > limits.side:
        raise TooLarge(
            f"the picture has {width} x {height} pixels; a side may have at most {limits.side} (ENDPOINT_MAX_SIDE)"
        )


def _check_webp(body: bytes, limits: Limits) -> None:
    """Pillow's WebP reader makes the whole canvas when it opens the file, so its size is read here first.

    The container: https://developers.google.com/speed/webp/docs/riff_container
    """
    if body[:4] != b"RIFF" or body[8:12] != b"WEBP" or len(body) < 30:
        return
    if body[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (24, 27))
    elif body[12:16] == b"VP8L":
        bits = int.from_bytes(body[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_size(width, height, limits)
    if body.count(b"ANMF") > limits.segments:
        raise _too_many("frames", limits.segments)


def _upright(image: Image.Image, limits: Limits, target: Target | None) -> Picture:
    orientation = image.getexif().get(_ORIENTATION)
    width, height = image.size[::-1] if orientation in _SIDEWAYS else image.size
    if target is not None:
        rows, columns = (math.ceil(side * DRAFT_MARGIN) for side in target(height, width))
        # Only JPEG has drafts; None leaves the colours as they are.
        image.draft(None, (rows, columns) if orientation in _SIDEWAYS else (columns, rows))
    size = image.width * image.height * (_BYTES_OF_WEBP if image.format == "WEBP" else _BYTES_A_PIXEL)
    if "progressive" in image.info:
        size += width * height * _BYTES_OF_COEFFICIENTS  # at any size of the result
    limits.memory.take(size, f"the picture of {width} x {height} pixels")
    try:
        found = Picture((_decoded(image, orientation),), (height, width))
    except BaseException:
        limits.memory.give_back(size)
        raise
    weakref.finalize(found, limits.memory.give_back, size)
    return found


def _decoded(image: Image.Image, orientation: object) -> Image.Image:
    """The one plane, upright. `image` has nothing left in it."""
    image.load()
    if image.mode.startswith("I"):  # 16-bit grey: "I;16", or "I" in older Pillow
        values = np.asarray(image).astype(np.float32)
        values /= np.float32(_PNG_MAXIMUM)
        plane = Image.fromarray(values)
    elif "A" in image.getbands() or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        plane = Image.new("RGB", layer.size, (255, 255, 255))
        plane.paste(layer, mask=layer)
    else:
        plane = image if image.mode == "RGB" else image.convert("RGB")
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return plane if method is None else plane.transpose(method)


def from_array(array: Array, limits: Limits) -> Picture:
    """A picture sent as an array: (height, width) or (height, width, 3) of uint8, uint16, or floats from 0 to 1.

    Raises BadRequest for another shape, dtype or value; TooLarge above the limits of pixels and sides.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise BadRequest(f"the array has shape {list(array.shape)}; a picture is [height, width, 3] or [height, width]")
    _check_size(array.shape[1], array.shape[0], limits)
    if array.dtype == np.uint8:
        return Picture((Image.fromarray(np.ascontiguousarray(array)).convert("RGB"),))
    if array.dtype == np.uint16:
        values = array.astype(np.float32) / np.float32(_PNG_MAXIMUM)
    elif array.dtype in (np.float16, np.float32):
        values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise BadRequest("the array holds NaN or infinity; a picture of floats has values from 0 to 1")
        if values.min() < 0 or values.max() > 1:
            raise BadRequest(
                f"the array has values from {values.min():g} to {values.max():g}; a picture of floats has 0 to 1 "
                "(send uint8 for 0 to 255)"
            )
    else:
        raise BadRequest(f"the array is {array.dtype}; a picture is uint8, uint16, float16 or float32")
    planes = [values] if values.ndim == 2 else [values[:, :, channel] for channel in range(3)]
    return Picture(tuple(Image.fromarray(np.ascontiguousarray(plane)) for plane in planes))


def encode_png16(values: Array, texts: Mapping[str, str]) -> bytes:
    """Float32 (height, width) as a grey PNG of 16 bits, stretched over the whole range.

    The text chunks `minimum` and `maximum` (9 digits) give the values back to within half a step:
    value = minimum + pixel x (maximum - minimum) / 65535. `texts` are added. Raises Unprocessable for NaN or infinity.
    """
    if not np.isfinite(values).all():
        raise Unprocessable("the answer holds NaN or infinity, which a PNG cannot represent; ask for application/x-npy")
    low, high = float(values.min()), float(values.max())
    steps = _PNG_MAXIMUM / (high - low) if high > low else 0.0
    pixels = np.empty(values.shape, np.uint16)
    for row in range(0, len(values), _ROWS):  # float64 of all rows would be four times as large as the answer
        pixels[row : row + _ROWS] = np.rint((values[row : row + _ROWS].astype(np.float64) - low) * steps)
    info = PngInfo()
    chunks = {
        "minimum": f"{low:.9g}",
        "maximum": f"{high:.9g}",
        "formula": f"value = minimum + pixel * (maximum - minimum) / {_PNG_MAXIMUM}",
    }
    for name, text in {**chunks, **texts}.items():
        info.add_text(name, text)
    stream = io.BytesIO()
    # Level 1: higher levels cost many times the time for a few percent of a smooth map.
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info, compress_level=1)
    return stream.getvalue()
