"""Keeps web pages away from a server that listens on a loopback address: a rule about a request's headers, no I/O.

Every page that a user opens may send requests to 127.0.0.1, and one whose own name is made to resolve to 127.0.0.1 (DNS
rebinding) may read the answers. The headers tell a page's request from all others, and no page can write them: Host,
Origin and Sec-Fetch-* are forbidden to it (https://fetch.spec.whatwg.org/#forbidden-request-header).

1. Host must be localhost, 127.0.0.1, [::1] or the address that the server is bound to, with the server's port, or one
   of ENDPOINT_ALLOWED_HOSTS. Letters may be capital, and a dot may follow the name: `localhost.` is the same name,
   written absolutely (https://www.rfc-editor.org/rfc/rfc1034#section-3.1). No other spelling is read, and several
   Hosts are refused. HTTP/1.0 may leave Host out, HTTP/1.1 may not (https://www.rfc-editor.org/rfc/rfc9112#section-3.2):
   browsers send it with every request.
2. A request with Origin, which browsers send with every POST and with every cross-origin fetch
   (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Origin), is refused whatever its value, unless the
   origin's host is one of ENDPOINT_ALLOWED_HOSTS.
3. So is one with Sec-Fetch-Site, which browsers send to loopback addresses and by https
   (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site), with two exceptions. `none` is the
   user's own doing, an address typed or a bookmark: GET and HEAD are answered, so that /ping and /metrics can be looked
   at in a browser; no GET runs the model. `same-origin` comes from a page of the very Host that is asked, and is
   answered where that Host is one of ENDPOINT_ALLOWED_HOSTS.

A server that others can reach is not checked: in SageMaker's container it is SageMaker that chooses the Host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from inference_code.settings import ALLOWED_HOSTS

_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HTTP_PORT = 80  # it is left out of Host: https://www.rfc-editor.org/rfc/rfc9110#section-4.2.1
_SHOWN = 100  # characters of a header's value


def guard(address: str, port: int, listed: Iterable[str]) -> BrowserGuard | None:
    """The rule for a server bound to `address`; None where that is no loopback address, and nothing is checked.

    listed: ENDPOINT_ALLOWED_HOSTS by settings.read_host. Raises ValueError for an `address` that is no IP address.
    """
    ip = ipaddress.ip_address(address)
    if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback:
        return None
    names = {*_NAMES, address if ip.version == 4 else f"[{address}]"}
    own = {f"{name}:{port}" for name in names}
    return BrowserGuard(own | names if port == _HTTP_PORT else own, listed)


class BrowserGuard:
    """The rule above. own: the values of Host that are the server's; listed: those of ENDPOINT_ALLOWED_HOSTS."""

    def __init__(self, own: Iterable[str], listed: Iterable[str] = ()) -> None:
        self._own = sorted(own)
        self._listed = frozenset(spelling for host in listed for spelling in _spellings(host))
        self._hosts = self._listed.union(*map(_spellings, self._own))

    def refusal(self, method: str, version: str, headers: Mapping[str, str]) -> str | None:
        """Why a request is refused, one sentence for its sender; None: it is answered.

        headers: by name in lower case, several of one name joined by ", "; version: HTTP's, "1.1".
        """
        if "origin" not in headers and "sec-fetch-site" not in headers and headers.get("host") in self._hosts:
            return None  # the ordinary request
        return self._of_host(version, headers.get("host")) or self._of_page(method, headers)

    def _of_host(self, version: str, host: str | None) -> str | None:
        if (host is None and version == "1.0") or (host is not None and _lower(host) in self._hosts):
            return None
        found = "is absent" if host is None else f"is {host[:_SHOWN]!r}"
        return (
            f"the header Host {found}, which is no name of this server on a loopback address; "
            f"ask {', '.join(self._own)}, or set {ALLOWED_HOSTS} where a forwarded port or a proxy has another name"
        )

    def _of_page(self, method: str, headers: Mapping[str, str]) -> str | None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None:
            scheme, _, host = _lower(origin).partition("://")
            if scheme in ("http", "https") and host in self._listed:
                return None
            found = f"Origin is {origin[:_SHOWN]!r}"
        else:
            if site is None or (site == "none" and method in ("GET", "HEAD")):
                return None
            if site == "same-origin" and _lower(headers.get("host", "")) in self._listed:
                return None
            found = f"Sec-Fetch-Site is {site[:_SHOWN]!r}"
        return (
            f"the header {found}: this comes from a browser, and no web page may use this server on a loopback "
            f"address; ask by another client, or put the host of a page that may into {ALLOWED_HOSTS}"
        )


def _spellings(host: str) -> tuple[str, ...]:
    """The host, and with a dot after its name."""
    name, colon, port = host.partition(":")
    return (host,) if host.startswith("[") else (host, f"{name}.{colon}{port}")


def _lower(text: str) -> str:
    """In small letters where it is ASCII; elsewhere as it is, for no other letter may become one of ASCII."""
    return text.lower() if text.isascii() else text
