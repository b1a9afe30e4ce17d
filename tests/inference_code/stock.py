"""The stock container without Docker: TorchServe and SageMaker's toolkit from PyPI, in namespaces of their own.

The toolkit writes below /etc, reads /opt/ml, listens on fixed ports of TorchServe's and looks for its server among all
processes of the machine. So each start gets a mount namespace (overlays on /etc and /opt, the artifact read-only at
/opt/ml/model as SageMaker mounts it), a network namespace with a loopback alone, and a process namespace in which the
toolkit's `serve` is the first process, as in the image.

Requests are made by a thread that has entered the network namespace (setns acts on one thread).
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.inference_code.artifacts import Response

ROOT = Path(__file__).resolve().parents[2]
PORT = 8080
_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")

# Runs inside: argv is the folder for the overlays, the artifact, and the command.
_INSIDE = """
import fcntl, os, socket, struct, subprocess, sys
scratch, model, *command = sys.argv[1:]
def mount(*arguments): subprocess.run(["mount", *arguments], check=True)
mount("-t", "tmpfs", "scratch", scratch)
for place in ("/etc", "/opt"):
    upper, work = scratch + place, scratch + place + ".work"
    os.mkdir(upper); os.mkdir(work)
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}", place)
os.makedirs("/opt/ml/model", exist_ok=True)
mount("--bind", model, "/opt/ml/model")
mount("-o", "remount,ro,bind", "/opt/ml/model")
with socket.socket() as any_socket:  # the loopback is down in a new namespace
    request = struct.pack("16sH14x", b"lo", 1)  # IFF_UP
    fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS
home = scratch + "/home"
os.mkdir(home)
os.chdir(home)
os.execvp(command[0], command)
"""


@dataclass(frozen=True)
class Stack:
    """One set of versions: its environment by tools/install.py, and the Python that builds artifacts for it."""

    name: str
    builder: Path
    toolkit: str

    @property
    def home(self) -> Path:
        return ROOT / f".venv-{self.name}"


STACKS = {
    "torchserve310": Stack("torchserve310", ROOT / ".venv310" / "bin" / "python", "2.0.21"),
    "torchserve": Stack("torchserve", ROOT / ".venv" / "bin" / "python", "2.0.25"),
}


def obstacle(stack: Stack) -> str:
    """Why the stock container cannot run here; empty when it can. Installs what is missing."""
    if os.geteuid() != 0:
        return "the toolkit's serve writes below /etc and /opt/ml: only root can give it namespaces of its own"
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]
    try:
        run = subprocess.run(probe, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no unshare (util-linux) to give the toolkit namespaces of its own"
    if run.returncode != 0:
        return f"this machine gives no namespaces: {run.stderr.strip()}"
    command = [str(ROOT / ".venv" / "bin" / "python"), str(ROOT / "tools" / "install.py"), "--server", stack.name]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if run.returncode == 3:
        return run.stderr.strip().splitlines()[-1]
    assert run.returncode == 0, run.stderr
    return ""


class Container:
    """The toolkit's `serve` on an unpacked artifact. `environment` is that of the SageMaker model."""

    def __init__(self, stack: Stack, model: Path, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scratch").mkdir()
        self.log = folder / "log"
        isolated = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = [sys.executable, "-c", _INSIDE, str(folder / "scratch"), str(model), str(stack.home / "bin" / "serve")]
        variables = {
            "PATH": f"{stack.home / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "scratch"),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*isolated, *inside], env=variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=folder
            )
        self._thread: ThreadPoolExecutor | None = None

    def inside(self, work: Callable[[], _T]) -> _T:
        """Do `work` on the thread that is in the container's network."""
        if self._thread is None:
            _wait_for_network(self.process.pid)
            self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(self.process.pid,))
        return self._thread.submit(work).result()

    def request(
        self, path: str = "/invocations", body: bytes | None = None, method: str | None = None, **headers: str
    ) -> Response:
        """One request; header names with underscores for hyphens."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.inside(lambda: ask(path, body, method or ("GET" if body is None else "POST"), names))

    def wait(self, seconds: float = 180) -> None:
        """Wait until /ping says 200. Fails with the log's end when it does not."""
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                if self.request("/ping").status == 200:
                    return
            except OSError:
                pass  # nobody listens yet
            assert time.monotonic() < end, self.log.read_text()[-4000:]
            time.sleep(0.3)

    def ready(self, count: int, seconds: float = 180, without: set[int] | None = None) -> None:
        """Wait until exactly `count` workers have loaded the model, and at least one of them is not of `without`."""
        self.wait(seconds)
        end = time.monotonic() + seconds
        while True:
            found = self.workers()
            assert len(found) <= count, found
            ready = {int(one["pid"]) for one in found if one["status"] == "READY"}
            if len(ready) == count and (not without or ready - without):
                return
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < end, found
            time.sleep(0.3)

    def kill_worker(self) -> None:
        """SIGKILL one of TorchServe's worker processes."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no command line any more
                if "model_service_worker" in " ".join(process.cmdline()):
                    process.kill()
                    return
        raise AssertionError("there is no worker")

    def workers(self) -> list[dict[str, Any]]:
        """TorchServe's own description of the model's workers."""
        return list(self.description()["workers"])

    def description(self) -> dict[str, Any]:
        """GET /models/model of the management interface, which the toolkit puts on the same port."""
        answer = self.request("/models/model")
        assert answer.status == 200, answer.body
        (found,) = json.loads(answer.body)
        return dict(found)

    def stop(self) -> str:
        """End it with everything inside; its log."""
        self.process.kill()  # --kill-child: the first process inside dies with it, and everything with that one
        self.process.wait(30)
        if self._thread is not None:
            self._thread.shutdown()
        return self.log.read_text(errors="replace")


def ask(path: str, body: bytes | None, method: str, headers: Mapping[str, str]) -> Response:
    """One request to the container, on the thread that is in its network."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()


def _wait_for_network(process: int) -> None:
    own = Path(f"/proc/{os.getpid()}/ns/net").readlink()
    end = time.monotonic() + 30
    while Path(f"/proc/{process}/ns/net").readlink() == own:
        assert time.monotonic() < end, "unshare made no network namespace"
        time.sleep(0.02)


def _enter(process: int) -> None:
    """Move this thread, and it alone, into the network namespace of `process`."""
    assert threading.current_thread() is not threading.main_thread()
    with open(f"/proc/{process}/ns/net") as namespace:  # noqa: PTH123  (no file of ours)
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns failed")


def unpack(archive: Path, folder: Path) -> Path:
    """model.tar.gz as SageMaker unpacks it."""
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
    return folder
