"""The compiler's log as it grows, line by line: in a job there is nobody beside it to open the file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compile.targets.process_runner import LOG

_SECONDS = 1.0


@contextmanager
def forward(record: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, every whole line that a log below `record` gets is forwarded; the rest of it at the end."""
    over = threading.Event()
    read: dict[Path, int] = {}

    def follow() -> None:
        while not over.wait(_SECONDS):
            _new_lines(record, read, say, last=False)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _new_lines(record, read, say, last=True)


def _new_lines(record: Path, read: dict[Path, int], say: Callable[[str], None], *, last: bool) -> None:
    """read: bytes of each log that were forwarded already."""
    for log in sorted(record.rglob(LOG)):
        content = log.read_bytes()[read.get(log, 0) :]
        if not last:
            content = content[: content.rfind(b"\n") + 1]
        read[log] = read.get(log, 0) + len(content)
        for line in content.decode("utf-8", errors="replace").splitlines():
            say(line)
