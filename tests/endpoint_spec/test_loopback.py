"""The fence around rehearsals."""

from __future__ import annotations

import pytest

from endpoint_spec.loopback import is_loopback


@pytest.mark.parametrize(
    "url", ["http://localhost:4566", "http://127.0.0.1", "http://127.8.9.1:80", "http://[::1]:80", "http://a.localhost"]
)
def test_this_machine(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "http://notlocalhost",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost@example.com",
        "http://[::1",
        "https://s3.us-east-1.amazonaws.com",
    ],
)
def test_another_machine(url: str) -> None:
    assert not is_loopback(url)
