"""Runs one command without a network: `python isolation.py COMMAND...`, used for EnableNetworkIsolation.

The command gets a network namespace of its own in which only the loopback interface is up. Linux only; without the
right to make one (CAP_SYS_ADMIN, or user namespaces) it fails with exit code 126 and a message.
Sources: https://man7.org/linux/man-pages/man7/network_namespaces.7.html, .../man7/user_namespaces.7.html
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


@functools.cache
def possible() -> bool:
    """Whether this machine lets a process leave the network; found out by trying once."""
    if sys.platform != "linux":
        return False
    command = [sys.executable, "-I", str(Path(__file__)), "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - ourselves


def _unshare(flags: int) -> int:
    """0, or the errno of unshare(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.unshare(flags) == 0 else ctypes.get_errno()


def leave_the_network() -> None:
    """Move this process into a network of its own; raises OSError where that is not allowed."""
    user, group = os.getuid(), os.getgid()
    error = _unshare(CLONE_NEWNET)
    if error:
        error = _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        if error:
            raise OSError(error, os.strerror(error))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(probe, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def main(command: list[str]) -> None:
    """Become the command."""
    try:
        leave_the_network()
    except OSError as error:
        print(f"no network namespace can be made here: {error}", file=sys.stderr)  # noqa: T201 - the job's own log
        sys.exit(126)
    os.execvp(command[0], command)  # noqa: S606 - the job's command


if __name__ == "__main__":
    main(sys.argv[1:])
