"""Runs one command and makes sure that nothing of it outlives the server: `python -m ... FD COMMAND...`.

It leads a process group of its own. FD is the read end of a pipe whose write end only the server holds: when the
server is gone, killed or not, the pipe ends and the whole group is killed. On Linux the command is also killed with
this process (PR_SET_PDEATHSIG, https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Runs in the child before exec; the keeper has only one thread then, so this is safe."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the command to its end and give back its exit code (128 + N after signal N)."""
    descriptor, command = int(arguments[0]), arguments[1:]
    # the group gets SIGTERM: the command decides when to end, the keeper waits for it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, preexec_fn=_ready_child)  # noqa: S603, PLW1509 - single-threaded here
    threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _ready_child() -> None:
    _die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
