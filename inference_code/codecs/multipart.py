"""multipart/form-data, as browsers, curl -F and requests' `files` send it (RFC 7578, RFC 2046).

The parser of Python's standard library works on text, line by line; pictures need one that cuts bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inference_code.errors import BadRequest, TooLarge

MULTIPART = "multipart/form-data"
# RFC 2046, section 5.1.1: what a boundary may be made of.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_MAX_HEADER = 4096  # bytes of one part's headers
_DEFAULT_TYPE = "text/plain"  # RFC 7578, section 4.4


@dataclass(frozen=True)
class Part:
    """One part; content_type is its header as it stands."""

    content_type: str
    body: bytes


def split(body: bytes, boundary: str, limit: int) -> list[Part]:
    """The parts of `body` in order. Raises BadRequest for a body that is not complete, TooLarge above `limit` parts."""
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(f"Content-Type has boundary {boundary[:80]!r}; {MULTIPART} needs one as RFC 2046 has it")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    # The first delimiter may stand at the very beginning; one more than is read is enough to know of too many.
    pieces = (b"\r\n" + body).split(delimiter, limit + 2)
    if len(pieces) == 1:
        raise BadRequest(f"the body holds no --{boundary}")
    parts: list[Part] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return parts
        if len(parts) == limit:
            raise TooLarge(f"the request has more than {limit} parts, which is what is read at most")
        parts.append(_part(piece, len(parts)))
    raise BadRequest(f"the body ends without --{boundary}--")


def _part(piece: bytes, index: int) -> Part:
    """A part from the line end of its delimiter on."""
    begin = len(piece) - len(piece.lstrip(b" \t"))  # padding that a transport may have added
    end = piece.find(b"\r\n\r\n", begin, begin + _MAX_HEADER)
    if not piece.startswith(b"\r\n", begin) or end < 0:
        raise BadRequest(f"part {index} of the body has no headers, or more than {_MAX_HEADER} bytes of them")
    content_type = _DEFAULT_TYPE
    for line in piece[begin:end].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            content_type = value.decode("latin1").strip()
    return Part(content_type, piece[end + 4 :])
