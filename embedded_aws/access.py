"""Whom the servers of this process answer: programs of this user that hold a key of this server, and no web page.

A server on a loopback address is in reach of every page that the user's browser shows, and of every user of the
machine. `refusal` keeps pages out: their requests carry Origin or Sec-Fetch-Site, or, after DNS rebinding, a foreign
Host. `credential` and `AccessKeys` ask for an access key that only the user has; `private_directory` and
`write_private` keep it from other users. Sources, where a rule is not this project's own:
https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin,
https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site,
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

LOOPBACK = "127.0.0.1"
HOSTS = ("localhost", LOOPBACK)
STATE_FILE = "server.json"  # in the server's directory: where it listens, and its keys
SENT_BY_PAGES = ("Origin", "Sec-Fetch-Site")
DEFAULT_PORT = 80  # a client leaves it out of Host, https://www.rfc-editor.org/rfc/rfc9110#section-7.2
KEY_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# Version 4A has no region in its scope: it is signed for several.
SCOPE = r"(?P<key>\w+)/\d{8}/(?:(?P<region>[a-z0-9-]+)/)?(?P<service>[a-z0-9-]+)/aws4_request"
VERSION_4 = re.compile(rf"AWS4-(?:HMAC-SHA256|ECDSA-P256-SHA256) Credential={SCOPE}(?:,|\s)")
# S3 alone; https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
VERSION_2 = re.compile(r"AWS (?P<key>\w+):")


class AccessError(Exception):
    """The server's folder cannot be kept from others; the text says why."""


def refusal(headers: Message, port: int) -> str | None:
    """Why a server on a loopback `port` must not answer a request with these headers, or None.

    There must be one Host, which names this machine and the port: a page that reaches the server by a name of its own
    (DNS rebinding) sends that name. Origin and Sec-Fetch-Site may not be there, whatever they say: browsers send them,
    https://developer.mozilla.org/en-US/docs/Glossary/Fetch_metadata_request_header, the AWS SDKs do not.
    """
    hosts = headers.get_all("Host", [])
    if len(hosts) != 1:
        return f"it has {len(hosts)} Host headers instead of one"
    names = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == DEFAULT_PORT else set())
    if hosts[0].strip().lower() not in names:
        return (
            f"its Host is {hosts[0][:200]!r}, not localhost:{port} or 127.0.0.1:{port}; use one of these in the "
            "endpoint URL of the client, and path addressing in an S3 client"
        )
    for name in SENT_BY_PAGES:
        if name in headers:
            return f"it has the header {name} ({headers[name][:200]!r}): web pages are not answered; ask from a program"
    return None


@dataclass(frozen=True)
class Secrets:
    """What a server gives to its user alone: an access key with its secret, and the token of the control calls."""

    access_key: str
    secret_key: str
    token: str

    @classmethod
    def random(cls) -> Secrets:
        """New ones."""
        key = "AKIA" + "".join(secrets.choice(KEY_CHARACTERS) for _ in range(16))
        return cls(key, secrets.token_urlsafe(30), secrets.token_urlsafe(30))


def bears(authorization: str | None, token: str) -> bool:
    """Whether an Authorization header is `Bearer TOKEN`, https://www.rfc-editor.org/rfc/rfc6750#section-2.1."""
    return hmac.compare_digest((authorization or "").encode(), f"Bearer {token}".encode())


@dataclass(frozen=True)
class Credential:
    """The access key that a request is signed with, and what it is signed for."""

    key: str
    region: str
    service: str


def credential(environ: Mapping[str, Any]) -> Credential | None:
    """The credential that a WSGI request names, in its Authorization header or else in its query; None without one.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
    """
    header = environ.get("HTTP_AUTHORIZATION")
    if header is not None:
        found = VERSION_4.match(header) or VERSION_2.match(header)
        return _credential(found)
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if len(query.get("X-Amz-Credential", [])) == 1:
        return _credential(re.fullmatch(SCOPE, query["X-Amz-Credential"][0]))
    if len(query.get("AWSAccessKeyId", [])) == 1:
        return Credential(query["AWSAccessKeyId"][0], "us-east-1", "s3")
    return None


def _credential(found: re.Match[str] | None) -> Credential | None:
    if found is None:
        return None
    parts = {"region": None, "service": "s3", **found.groupdict()}
    return Credential(str(parts["key"]), parts["region"] or "us-east-1", str(parts["service"]))


class AccessKeys:
    """The access keys of one server: its user's, and those that `issued` finds where IAM and STS keep them."""

    def __init__(self, own: str, issued: Callable[[str], bool]) -> None:
        self.own, self.issued = own, issued

    def refusal(self, signed: Credential | None) -> str | None:
        """Why a request that names this credential must not be answered, or None."""
        if signed is None:
            return f"the request names no access key. {ADVICE}"
        if hmac.compare_digest(signed.key.encode(), self.own.encode()) or self.issued(signed.key):
            return None
        return f"the access key {signed.key[:128]!r} is none of this server's. {ADVICE}"


ADVICE = (
    "Each embedded AWS has keys of its own, new with each start: take them over with "
    'eval "$(inferentia rehearsal env --directory DIRECTORY)".'
)


def private_directory(directory: Path) -> None:
    """Make a folder that only this user may look into, or make an existing one so.

    Raises:
        AccessError: it belongs to another user, or to all as /tmp does.
        OSError: it cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise AccessError(
            f"{directory} belongs to user {found.st_uid}, and this is user {os.geteuid()}; name another folder"
        )
    if found.st_mode & stat.S_ISVTX:
        raise AccessError(f"{directory} is shared by all users (mode {found.st_mode & 0o7777:o}); name a folder in it")
    directory.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read; it is there at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(draft).replace(path)
