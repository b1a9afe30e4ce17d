"""What server/http_protocol.py and server/process.py need of uvicorn's private classes, name by name.

A failure here means that the installed uvicorn is another than the pinned one, and has moved what we build on.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

ROOT = Path(__file__).parents[3]
BASES = ["httptools", "h11"]


def broken(name: str, purpose: str) -> str:
    return (
        f"uvicorn {uvicorn.__version__}: {name} is not as inference_code/server needs it ({purpose}). "
        "Install the uvicorn that requirements.txt pins; or, to move the pin, adapt server/http_protocol.py and this "
        "list, and run tests/inference_code/server"
    )


class Wire(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def protocol_class(base: str) -> type[Any]:
    if base == "h11":
        return H11Protocol
    pytest.importorskip("httptools")
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415

    return HttpToolsProtocol


def after(base: str, data: bytes, look: Callable[[Any], Any]) -> Any:
    """What `look` finds in uvicorn's own protocol, on an event loop, after these bytes of a connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)

    async def run() -> Any:
        config = uvicorn.Config(app, log_level="critical", lifespan="off")
        config.load()
        protocol = protocol_class(base)(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(Wire())
        if data:
            protocol.data_received(data)
        return look(protocol)

    return asyncio.run(run())


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("method", "parameters", "purpose"),
    [
        ("connection_made", ["transport"], "_Receiver passes a connection on"),
        ("connection_lost", ["exc"], "_Careful ends the cycles that are under way"),
        ("eof_received", [], "_Careful replaces it"),
        ("on_response_complete", [], "_Careful goes on with what is left"),
        ("shutdown", [], "_Careful replaces it"),
        ("send_400_response", ["msg"], "replaced by our JSON; it must be what the protocol calls for a bad request"),
        ("data_received", ["data"], "_Heads replaces it"),
        ("pause_writing", [], "_Receiver passes it on"),
        ("resume_writing", [], "_Receiver passes it on"),
    ],
)
def test_both_protocols_have_the_methods_that_are_replaced(
    base: str, method: str, parameters: list[str], purpose: str
) -> None:
    function = getattr(protocol_class(base), method, None)
    assert function is not None, broken(method, purpose)
    assert list(inspect.signature(function).parameters)[1:] == parameters, broken(method, purpose)


@pytest.mark.parametrize(
    ("method", "parameters", "purpose"),
    [
        ("on_message_begin", [], "_Heads counts heads"),
        ("on_url", ["url"], "_Heads bounds the head"),
        ("on_header", ["name", "value"], "_Heads bounds the head"),
        ("on_headers_complete", [], "_LargeBodies gives a large body its memory"),
        ("on_body", ["body"], "_LargeBodies copies the first bytes"),
        ("on_message_complete", [], "_LargeBodies ends a body that the parser did not see"),
        ("_unset_keepalive_if_required", [], "called where data_received is replaced"),
    ],
)
def test_the_protocol_on_httptools_has_the_parsers_callbacks(method: str, parameters: list[str], purpose: str) -> None:
    function = getattr(protocol_class("httptools"), method, None)
    assert function is not None, broken(method, purpose)
    assert list(inspect.signature(function).parameters)[1:] == parameters, broken(method, purpose)


@pytest.mark.parametrize("base", BASES)
def test_a_cycle_can_be_seen_to_end_and_be_disconnected(base: str) -> None:
    assert after(base, b"", lambda protocol: protocol.cycle) is None, broken("cycle", "None before the first request")
    names = ("response_complete", "disconnected", "message_event")
    complete, gone, event = after(base, HEAD, lambda one: [getattr(one.cycle, name, None) for name in names])
    assert complete is False, broken("RequestResponseCycle.response_complete", "_Careful and rest() read it")
    assert gone is False, broken("RequestResponseCycle.disconnected", "_Careful sets it")
    assert isinstance(event, asyncio.Event), broken("RequestResponseCycle.message_event", "_Careful wakes the app")


@pytest.mark.parametrize("base", BASES)
def test_a_cycle_can_be_ended_early_and_the_connection_be_put_into_its_scope(base: str) -> None:
    def look(protocol: Any) -> tuple[Any, ...]:
        cycle = protocol.cycle
        return cycle.more_body, cycle.response_started, cycle.scope["http_version"], cycle.scope["state"]

    assert after(base, HEAD, look) == (True, False, "1.1", {}), broken("RequestResponseCycle", "refuse(), _probe()")
    state, loop, paused = after(
        base, b"", lambda protocol: (protocol.app_state, protocol.loop, protocol.flow.read_paused)
    )
    assert state == {}, broken("app_state", "it is copied into each scope")
    assert isinstance(loop, asyncio.AbstractEventLoop), broken("loop", "_Careful has timers")
    assert paused is False, broken("flow.read_paused", "phase() reads it")


def test_h11_shows_its_state_and_what_it_has_not_read() -> None:
    import h11  # noqa: PLC0415

    state, trailing = after("h11", HEAD, lambda protocol: (protocol.conn.their_state, protocol.conn.trailing_data[0]))
    assert (state, trailing) == (h11.SEND_BODY, b""), broken("conn", "PlainProtocol reads both")


@pytest.mark.parametrize("base", BASES)
def test_the_transport_is_an_attribute(base: str) -> None:
    found = after(base, b"", lambda protocol: getattr(protocol, "transport", None))
    assert isinstance(found, Wire), broken("transport", "errors are written to it")


def test_a_head_leaves_what_large_bodies_are_made_of() -> None:
    protocol = after("httptools", HEAD, lambda protocol: protocol)
    assert protocol.headers == [(b"host", b"x"), (b"content-length", b"3")], broken(
        "headers", "pairs of bytes, names in lower case: _length reads the body's size from them"
    )
    assert protocol.url == b"/invocations", broken("url", "the head is written again without `Upgrade`")
    assert isinstance(protocol.scope, dict), broken("scope", "extensions are put into it")
    assert protocol.scope["type"] == "http", broken("scope", "extensions are put into it")


def test_the_parser_can_be_made_anew_from_the_protocol() -> None:
    def renewed(protocol: Any) -> bytes:
        for name in ("should_upgrade", "get_method", "get_http_version", "feed_data"):
            assert callable(getattr(protocol.parser, name, None)), broken(f"parser.{name}", "_LargeBodies, _Heads")
        protocol.parser = type(protocol.parser)(protocol)
        protocol.on_message_complete()
        protocol.parser.feed_data(HEAD.replace(b"/invocations", b"/again"))
        return bytes(protocol.url)

    assert after("httptools", HEAD, renewed) == b"/again", broken("parser", "a new one calls the same callbacks")


@pytest.mark.parametrize("base", BASES)
def test_bytes_that_are_no_http_are_answered_by_send_400_response(base: str) -> None:
    refused: list[str] = []

    class Watched(protocol_class(base)):  # type: ignore[misc]
        def send_400_response(self, msg: str) -> None:
            refused.append(msg)

    async def run() -> None:
        config = uvicorn.Config(lambda *_: None, log_level="critical", lifespan="off")
        config.load()
        protocol = Watched(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(Wire())
        protocol.data_received(b"\x00\x01 no http\r\n\r\n")

    asyncio.run(run())
    assert len(refused) == 1, broken("send_400_response", "the protocol calls it for a bad request")


def test_the_server_can_be_extended_at_its_start_and_its_end() -> None:
    for name in ("startup", "shutdown"):
        function = getattr(uvicorn.Server, name, None)
        assert inspect.iscoroutinefunction(function), broken(f"Server.{name}", "process.py drains in it")
        assert list(inspect.signature(function).parameters)[1:] == ["sockets"], broken(f"Server.{name}", "process.py")
    server = uvicorn.Server(uvicorn.Config(lambda *_: None))
    assert server.should_exit is False, broken("Server.should_exit", "a signal that came early")
    assert isinstance(server.server_state, ServerState), broken("Server.server_state", "connections from the parent")


def test_the_version_is_pinned_exactly_and_everywhere_the_same() -> None:
    files = ("requirements/main.in", "requirements/python310.in", "requirements.txt", "requirements/python310.txt")
    pins = {name: re.findall(r"^uvicorn(.*?)(?:\s|$)", (ROOT / name).read_text(), re.MULTILINE) for name in files}
    exact = re.compile(r"==\d+\.\d+\.\d+")
    assert all(len(found) == 1 and exact.fullmatch(found[0]) for found in pins.values()), pins
    assert len({found[0] for found in pins.values()}) == 1, f"one uvicorn for all environments, not {pins}"
