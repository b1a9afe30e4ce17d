"""Content-Type, Accept and the custom-attributes header, read by the rules of RFC 9110."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inference_code.errors import BadRequest, NotAcceptable, UnsupportedMediaType

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  (RFC 9110's name for it; no password)
# A quote without its end runs to the end of the header, so that every character is looked at once.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_MAX_ACCEPT = 4096  # characters; SageMaker passes on 1024
_RANGE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*")
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*({_TOKEN}|"(?:[^"\\]|\\.)*")\s*)?')
_QUALITY = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?")
_ATTRIBUTE = re.compile(rf"({_TOKEN})=({_TOKEN})")


@dataclass(frozen=True)
class MediaRange:
    """One element of Accept: `image/*; size=model; q=0.5`."""

    kind: str
    parameters: dict[str, str]
    quality: float

    def specificity(self, offer: str) -> int:
        """0: does not match `offer`; 1: */*; 2: type/*; 3: the very type."""
        if self.kind == offer:
            return 3
        if self.kind == "*/*":
            return 1
        return 2 if self.kind.endswith("/*") and offer.startswith(self.kind[:-1]) else 0


@dataclass(frozen=True)
class Choice:
    """The media type to answer with, and the parameters (without q and charset) of the range that chose it."""

    content_type: str
    parameters: dict[str, str]


def negotiate(accept: str, offers: Sequence[str]) -> Choice:
    """Choose among `offers` (the first is the default) as the Accept header asks.

    Absent, empty or `*/*`: the default. Otherwise the offer of the highest q; a more specific range decides over a
    wider one; equals go by their place in the header, then by the order of `offers`.
    Raises NotAcceptable naming the offers, BadRequest for a header that cannot be read.
    """
    ranges = parse_accept(accept)
    if not ranges:
        return Choice(offers[0], {})
    candidates = []
    for place, offer in enumerate(offers):
        specificity = max(one.specificity(offer) for one in ranges)
        if specificity == 0:
            continue
        index, decisive = next((i, one) for i, one in enumerate(ranges) if one.specificity(offer) == specificity)
        if decisive.quality > 0:
            candidates.append((-decisive.quality, index, place))
    if not candidates:
        raise NotAcceptable(f"Accept is {accept[:200]!r}; this can be answered as {', '.join(offers)}")
    _, index, place = min(candidates)
    return Choice(offers[place], ranges[index].parameters)


def parse_accept(accept: str) -> list[MediaRange]:
    """The elements of an Accept header. Raises BadRequest for one that cannot be read."""
    if len(accept) > _MAX_ACCEPT:
        raise BadRequest(f"Accept has {len(accept)} characters; at most {_MAX_ACCEPT} are read")
    return [_range(element) for element in _ELEMENT.findall(accept) if element.strip()]


def _range(element: str) -> MediaRange:
    match = _RANGE.match(element)
    if match is None and element.strip() == "*":  # some HTTP libraries send a bare star
        return MediaRange("*/*", {}, 1.0)
    if match is None or (match[1] == "*" and match[2] != "*"):
        raise BadRequest(f"Accept holds {element.strip()[:100]!r}, which is not a media range such as image/png")
    parameters = _parameters(element, match.end(), "Accept")
    quality = parameters.pop("q", "1")
    parameters.pop("charset", None)
    if not _QUALITY.fullmatch(quality):
        raise BadRequest(f"Accept has q={quality[:20]!r}; q is a number from 0 to 1 with at most three decimals")
    return MediaRange(f"{match[1]}/{match[2]}".lower(), parameters, float(quality))


def _parameters(text: str, position: int, header: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise BadRequest(f"{header} cannot be read from {text[position : position + 50]!r} on")
        if match[1]:
            value = match[2]
            parameters[match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return parameters


def media_type(content_type: str) -> str:
    """The media type of a Content-Type header: lower case, parameters such as charset left out; "" when absent.

    Raises UnsupportedMediaType for a header that cannot be read.
    """
    if not content_type.strip():
        return ""
    match = _RANGE.match(content_type)
    if match is None:
        raise UnsupportedMediaType(f"Content-Type is {content_type[:100]!r}, which is not a media type")
    return f"{match[1]}/{match[2]}".lower()


def content_parameter(content_type: str, name: str) -> str:
    """The parameter `name` of a Content-Type header, "" when it has none. Raises BadRequest."""
    match = _RANGE.match(content_type)
    return _parameters(content_type, match.end(), "Content-Type").get(name, "") if match else ""


def require(content_type: str, readable: Sequence[str]) -> str:
    """`content_type` if it is among `readable`. Raises UnsupportedMediaType naming those."""
    if content_type in readable:
        return content_type
    found = f"Content-Type is {content_type}" if content_type else "Content-Type is absent"
    raise UnsupportedMediaType(f"{found}; this endpoint reads {', '.join(readable)}")


def custom_attributes(header: str) -> dict[str, str]:
    """`name=value` pairs of the custom-attributes header, separated by anything; other text is the caller's own."""
    return {name.lower(): value for name, value in _ATTRIBUTE.findall(header[:1024])}


def option(name: str, allowed: Sequence[str], *sources: dict[str, str]) -> str:
    """The value of parameter `name` in the first of `sources` that has it; the default is the first of `allowed`.

    Raises BadRequest naming the allowed values.
    """
    for source in sources:
        if name in source:
            if source[name].lower() not in allowed:
                raise BadRequest(f"{name} is {source[name][:40]!r}; it can be {' or '.join(allowed)}")
            return source[name].lower()
    return allowed[0]
