"""The servers that benchmarks/serving.py compares: how each is installed, started and asked.

All of them run the same handler (inference_code.handler) on the same artifact. The accelerator-like model is a graph
whose call takes DEVICE_SECONDS whatever its batch is, holds no processor, and runs one at a time, as a core does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from endpoint_spec.derive import MANIFEST_VARIABLE
from inference_code.artifact.manifest import file_sha256
from tools import install

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "build" / "benchmarks"
DEVICE_SECONDS = 0.010
_START_SECONDS = 180
_START = 64  # bytes of a body

# Runs before the server: the graphs' calls become the accelerator's.
ACCELERATOR = f"""
import threading, time
from inference_code.execution import model as runtime
_call, _core = runtime._call, threading.Lock()
def _slow(module, graph, arrays):
    with _core:
        time.sleep({DEVICE_SECONDS})
        return _call(module, graph, arrays)
runtime._call = _slow
"""

PLAIN = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from inference_code import handler

served = handler.model_fn(sys.argv[1])
pool = ThreadPoolExecutor(int(sys.argv[3]))

def answer(body, content_type, accept):
    context = handler.Headers({"accept": accept})
    return served.output(served.predict(served.input(body, content_type, context)))

async def invocations(request):
    headers = request.headers
    arguments = await request.body(), headers.get("content-type", ""), headers.get("accept", "")
    found = await asyncio.get_running_loop().run_in_executor(pool, answer, *arguments)
    return Response(found.body, found.status, {"Content-Type": found.content_type})

async def ping(request):
    return Response()

routes = [Route("/ping", ping), Route("/invocations", invocations, methods=["POST"])]
uvicorn.run(Starlette(routes=routes), port=int(sys.argv[2]), log_level="error", access_log=False)
"""

TRITON_MODEL = """
import sys
sys.path.insert(0, {code!r})
{prelude}
import numpy as np
import triton_python_backend_utils as triton
from inference_code import handler

KINDS = {kinds!r}  # a raw body carries no type; these differ in how they begin

class TritonPythonModel:
    def initialize(self, _):
        self.served = handler.model_fn({model!r})

    def execute(self, requests):
        context = handler.Headers({{"accept": {accept!r}}})
        bodies = [triton.get_input_tensor_by_name(one, "body").as_numpy().reshape(-1)[0] for one in requests]
        works = [self.served.input(body, KINDS[body[:{start}]], context) for body in bodies]
        done = self.served.predict([work for one in works for work in one])
        answers = []
        for work in works:
            reply = self.served.output([done.pop(0) for _ in work])
            value = np.array([reply.body], dtype=np.object_)
            error = None if reply.status == 200 else triton.TritonError(reply.body.decode())
            answers.append(triton.InferenceResponse([] if error else [triton.Tensor("answer", value)], error))
        return answers
"""

TRITON_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [{{ name: "body" data_type: TYPE_STRING dims: [1] }}]
output [{{ name: "answer" data_type: TYPE_STRING dims: [1] }}]
instance_group [{{ count: {instances} kind: KIND_CPU }}]
dynamic_batching {{ }}
"""


class SkippedError(Exception):
    """A peer that cannot be measured in a case, with the reason."""


class MissingPeerError(SkippedError):
    """A peer that cannot be had on this machine, for whichever case."""


@dataclass(frozen=True)
class Case:
    """What is served: an unpacked artifact with code/, the body, and whether its device is the accelerator.

    others: more bodies with their types, sent in turn with the first.
    """

    name: str
    model: Path
    body: Path
    content_type: str
    accelerator: bool
    others: tuple[tuple[Path, str], ...] = ()
    accept: str = "application/x-npy"

    @property
    def payloads(self) -> tuple[tuple[Path, str], ...]:
        """Every body with its type."""
        return (self.body, self.content_type), *self.others


@dataclass
class Running:
    """A started peer."""

    process: subprocess.Popen[bytes]
    url: str
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)

    def tree(self) -> list[psutil.Process]:
        """The peer's processes."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def memory(self) -> int:
        """Bytes that the peer's processes hold; shared pages count once, by their shares."""
        return sum(one.memory_full_info().pss for one in self.tree())

    def processor(self) -> float:
        """Seconds of processor time so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.tree())

    def stop(self) -> None:
        """End it and its processes."""
        tree = self.tree() if self.process.poll() is None else []
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended with its parent
                one.terminate()
        _, alive = psutil.wait_procs(tree, timeout=40)
        for one in alive:
            one.kill()
        self.process.wait()


def environment(case: Case) -> dict[str, str]:
    """What every peer gets: the artifact's code first, and one thread for each call of the model."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENDPOINT_", "PYTHON"))}
    malloc = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), "268435456")
    own = {"PYTHONPATH": str(case.model / "code"), "PYTHONDONTWRITEBYTECODE": "1"}  # as verify.py starts it
    return {**kept, **malloc, **own, "OMP_NUM_THREADS": "1", "ENDPOINT_WORKERS": "1"}


def prelude(case: Case) -> str:
    """Python source that comes before the server's."""
    return ACCELERATOR if case.accelerator else ""


def native(case: Case, port: int, log: Path) -> Running:
    """Ours: python -m inference_code.server."""
    start = "import sys\nfrom inference_code.server.__main__ import main\nsys.exit(main())"
    arguments = ["--model-dir", str(case.model), "--port", str(port)]
    command = [sys.executable, "-c", f"{prelude(case)}\n{start}", *arguments]
    return started(command, environment(case), port, log)


def image(case: Case, port: int, log: Path) -> Running:
    """Ours as the container starts it: images/native/verify.py compares the artifact, then becomes the server."""
    start = f"{prelude(case)}\nimport sys\nfrom inference_code.server.__main__ import main\nsys.exit(main())"
    verify = [sys.executable, "-I", str(ROOT / "images" / "native" / "verify.py"), "--model-dir", str(case.model)]
    server = [sys.executable, "-c", start, "--model-dir", str(case.model), "--port", str(port)]
    digest = file_sha256(case.model / "manifest.json")
    return started([*verify, "--", *server], environment(case) | {MANIFEST_VARIABLE: digest}, port, log)


def native2(case: Case, port: int, log: Path) -> Running:
    """Ours with two processes on its port, a worker in each. Raises SkippedError for the accelerator-like model."""
    if case.accelerator:
        raise SkippedError(f"{case.name} has one core, which two processes cannot share")
    arguments = ["--model-dir", str(case.model), "--port", str(port), "--processes", "2"]
    variables = environment(case) | {"ENDPOINT_WORKERS": "2"}
    return started([sys.executable, "-m", "inference_code.server", *arguments], variables, port, log)


def plain(case: Case, port: int, log: Path) -> Running:
    """Starlette on uvicorn with a pool of a thread a processor, the handler called in it."""
    source = f"{prelude(case)}\n{PLAIN}"
    command = [sys.executable, "-c", source, str(case.model), str(port), str(os.cpu_count() or 1)]
    return started(command, environment(case), port, log)


def torchserve(case: Case, port: int, log: Path) -> Running:
    """TorchServe with SageMaker's handler service, configured as the toolkit's `serve` does it, one worker."""
    home = _server("torchserve")
    work = log.with_suffix(".torchserve")
    shutil.rmtree(work, ignore_errors=True)
    (work / "store").mkdir(parents=True)
    opt = work / "opt"
    shutil.copytree(case.model, opt / "model")
    program = work / "program"  # beside the artifact, whose files have their digests
    program.mkdir()
    (program / "measured.py").write_text(
        f"{prelude(case)}\nfrom inference import input_fn, model_fn, output_fn, predict_fn\n"
    )
    service = next(home.glob("lib/python*/site-packages/sagemaker_pytorch_serving_container/handler_service.py"))
    archive = [str(home / "bin" / "torch-model-archiver"), "--model-name", "model", "--version", "1", "--handler"]
    content = ["--extra-files", str(opt / "model"), "--export-path", str(work / "store")]
    subprocess.run([*archive, str(service), *content], check=True, cwd=work)
    settings = work / "config.properties"
    settings.write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\ndefault_workers_per_model=1\nmax_request_size=30000000\n"
        "max_response_size=30000000\n"
        "default_service_handler=sagemaker_pytorch_serving_container.handler_service:handle\n"
        "disable_token_authorization=true\nenable_envvars_config=true\n"
    )
    command = [str(home / "bin" / "torchserve"), "--foreground", "--start", "--model-store", str(work / "store")]
    command += ["--models", "model=model.mar", "--ts-config", str(settings), "--disable-token-auth"]
    variables = environment(case) | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{program}{os.pathsep}{opt / 'model' / 'code'}",
        "SAGEMAKER_BASE_DIR": str(opt),
        "SAGEMAKER_PROGRAM": "measured.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(opt / "model" / "code"),
        "LOG_LOCATION": str(work / "logs"),
        "METRICS_LOCATION": str(work / "logs"),
    }
    return started(command, variables, port, log, cwd=work)


def triton(case: Case, port: int, log: Path) -> Running:
    """The tritonserver binary of nvidia-pytriton with its python backend and SageMaker frontend, one instance."""
    home = _server("triton")
    (site,) = home.glob("lib/python*/site-packages")
    package = site / "pytriton" / "tritonserver"
    if not (package / "bin" / "tritonserver").is_file():
        raise SkippedError(f"nvidia-pytriton has no tritonserver in {package}")
    work = log.with_suffix(".triton")
    shutil.rmtree(work, ignore_errors=True)
    backend = work / "backends" / "python"
    shutil.copytree(package / "backends" / "python", backend)
    stubs = sorted(package.glob(f"python_backend_stubs/{sys.version_info[0]}.{sys.version_info[1]}/*"))
    if not stubs:
        raise SkippedError(f"nvidia-pytriton has no stub for Python {sys.version_info[0]}.{sys.version_info[1]}")
    for stub in stubs:
        shutil.copy(stub, backend)
    version = work / "models" / "model" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(TRITON_CONFIG.format(name="model", instances=1))
    values = {"code": str(case.model / "code"), "model": str(case.model), "accept": case.accept, "start": _START}
    values["kinds"] = {body.read_bytes()[:_START]: kind for body, kind in case.payloads}
    (version / "model.py").write_text(TRITON_MODEL.format(prelude=prelude(case), **values))
    command = [str(package / "bin" / "tritonserver"), f"--model-repository={work / 'models'}", "--allow-http=false"]
    command += [f"--backend-directory={work / 'backends'}", "--allow-grpc=false", "--allow-metrics=false"]
    command += ["--allow-sagemaker=true", f"--sagemaker-port={port}", "--model-control-mode=explicit"]
    command += ["--load-model=model"]
    libraries = [str(site / "nvidia_pytriton.libs"), str(Path(sys.base_prefix) / "lib")]
    variables = environment(case) | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": "model",
    }
    running = started(command, variables, port, log, cwd=work)
    raw = "application/vnd.sagemaker-triton.binary+json;json-header-size=0"
    running.headers = {"Content-Type": raw}
    return running


PEERS: dict[str, Callable[[Case, int, Path], Running]] = {
    "native": native,
    "image": image,
    "native2": native2,
    "plain": plain,
    "torchserve": torchserve,
    "triton": triton,
}


def _server(name: str) -> Path:
    """The environment of another server, from its hashed lock (tools/install.py). Raises MissingPeerError."""
    try:
        install.install_server(name)
    except (install.MissingError, install.InstallError) as error:
        raise MissingPeerError(str(error)) from None
    return install.server_environment(name)


def _venv(name: str, *packages: str) -> Path:
    """A virtual environment under build/ with `packages`; torch and the rest are seen from the project's own."""
    home = HOME / "peers" / name
    done = home / "installed.txt"
    wanted = "\n".join(packages)
    if done.is_file() and done.read_text() == wanted:
        return home
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    own = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (site / "project.pth").write_text(f"{own}\n")
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "setuptools<81", *packages]
    run = subprocess.run(pip, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SkippedError(f"pip cannot install {', '.join(packages)}: {run.stderr.strip().splitlines()[-1:]}")
    done.write_text(wanted)
    return home


def started(command: list[str], variables: Mapping[str, str], port: int, log: Path, cwd: Path | None = None) -> Running:
    """Start `command` and wait until /ping says 200. Raises SkippedError with the log's end if it does not."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(variables), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=cwd
        )
    running = Running(process, f"http://127.0.0.1:{port}", 0.0)
    healthy = False
    try:
        healthy = _wait(running)
    finally:  # also when Ctrl-C comes meanwhile
        if not healthy:
            running.stop()
    if not healthy:
        lines = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise SkippedError(f"it did not become healthy (the log is {log}): {' | '.join(lines)[-400:]}")
    return running


def _wait(running: Running) -> bool:
    """Wait for the first 200 of /ping, and note how long that took. False: it ended, or the deadline passed."""
    began = time.monotonic()
    while time.monotonic() - began < _START_SECONDS and running.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{running.url}/ping", timeout=5) as answer:
                if answer.status == 200:
                    running.seconds = time.monotonic() - began
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False
