"""Shared stdout and /metrics aggregation for worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Callable

from inference_code.observability.log_writer import to_stdout
from inference_code.observability.metrics import State
from inference_code.workers.channel import WorkerContext

_SECONDS = 1.0  # for a process to send its metrics


def exclusive_stdout(worker: WorkerContext) -> Callable[[bytes], None]:
    """What writes whole lines to the standard output of all processes: a pipe mixes what is longer than PIPE_BUF.

    A process that was killed within a line leaves "1" in the file: the next one ends that line first.
    """

    def write(data: bytes) -> None:
        fcntl.lockf(worker.turn, fcntl.LOCK_EX)
        try:
            broken = os.pread(worker.turn, 1, 0) == b"1"
            os.pwrite(worker.turn, b"1", 0)
            to_stdout(b"\n" + data if broken else data)
            os.pwrite(worker.turn, b"0", 0)
        finally:
            fcntl.lockf(worker.turn, fcntl.LOCK_UN)

    return write


async def serve_state(worker: WorkerContext, state: Callable[[], State]) -> asyncio.AbstractServer:
    """Send `state` to every process that connects, over a unix socket in the folder that only their user may enter."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(state()).encode())
            await writer.drain()
        except ConnectionError:  # the other process has closed the connection
            pass
        finally:
            writer.close()

    path = worker.folder / str(worker.index)
    path.unlink(missing_ok=True)  # of the process that was here before and was killed
    return await asyncio.start_unix_server(answer, str(path))


async def collect_states(worker: WorkerContext) -> list[State | None]:
    """The states of the other processes; None for one that does not answer within a second."""
    others = [index for index in range(worker.count) if index != worker.index]
    return list(await asyncio.gather(*(_state(worker, index) for index in others)))


async def _state(worker: WorkerContext, index: int) -> State | None:
    with contextlib.suppress(OSError, asyncio.TimeoutError, ValueError):  # it is not there, busy, or has just ended
        found: State = json.loads(await asyncio.wait_for(_read(str(worker.folder / str(index))), _SECONDS))
        return found
    return None


async def _read(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read()
    finally:
        writer.close()
