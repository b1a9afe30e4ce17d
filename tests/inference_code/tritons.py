"""A real tritonserver: the binary of nvidia-pytriton with its python backend, on a model repository."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv-triton"


def obstacle() -> str:
    """Why Triton cannot run here; empty when it can. Installs what is missing."""
    command = [str(ROOT / ".venv" / "bin" / "python"), str(ROOT / "tools" / "install.py"), "--server", "triton"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if run.returncode == 3:
        return run.stderr.strip().splitlines()[-1]
    assert run.returncode == 0, run.stderr
    return ""


def backends(folder: Path) -> Path:
    """A backend directory with the python backend and the stub of this Python."""
    (package,) = HOME.glob("lib/python*/site-packages/pytriton/tritonserver")
    backend = folder / "backends" / "python"
    shutil.copytree(package / "backends" / "python", backend)
    for stub in (package / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}").iterdir():
        shutil.copy(stub, backend)
    return folder / "backends"


class Triton:
    """tritonserver with its HTTP, gRPC and SageMaker frontends on free ports of the loopback."""

    def __init__(
        self, repository: Path, folder: Path, name: str = "model", environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "triton.log"
        http, grpc, sagemaker = free_ports(3)
        self.http, self.grpc, self.url = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"http://127.0.0.1:{sagemaker}"
        (site,) = HOME.glob("lib/python*/site-packages")
        command = [str(site / "pytriton" / "tritonserver" / "bin" / "tritonserver"), f"--model-repository={repository}"]
        command += [f"--backend-directory={backends(folder)}", "--model-control-mode=explicit", f"--load-model={name}"]
        command += [f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false", "--http-address=127.0.0.1"]
        command += ["--grpc-address=127.0.0.1"]
        command += ["--allow-sagemaker=true", f"--sagemaker-port={sagemaker}", "--exit-timeout-secs=5"]
        variables = {
            **os.environ,
            # The stub takes its Python from PATH and its libraries from where that Python was installed.
            "PATH": f"{HOME / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": os.pathsep.join(
                [str(site / "nvidia_pytriton.libs"), str(Path(sys.base_prefix) / "lib")]
            ),
            "SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": name,
            **(environment or {}),
        }
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(command, env=variables, cwd=folder, stdout=stream, stderr=stream)

    def wait(self, seconds: float = 120) -> None:
        """Wait until the SageMaker frontend's /ping says 200. Fails with the log's end."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(self.log.read_text(errors="replace")[-4000:])

    def stop(self) -> str:
        """End it; its log."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self.log.read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
