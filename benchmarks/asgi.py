"""The ASGI server under the native one: uvicorn with its loops and parsers, granian, hypercorn; one application.

    python -m benchmarks.asgi                      every server, a small and a large body; under two minutes
    python -m benchmarks.asgi --write              also put the table into docs/benchmarks.md
    python -m benchmarks.asgi --servers "native;granian" --connections 4 --seconds 1 --busy

All run the project's own application (inference_code.server.app) on one model, in one process with one thread for the
device.
`native` is `python -m inference_code.server`: uvicorn with uvloop and httptools, and a bound on a request's head.
granian and hypercorn are installed with pip into build/benchmarks/peers/; one that cannot be is named and left out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import document
from benchmarks.peers import HOME, Case, Running, SkippedError, _venv, environment, started
from benchmarks.peers import native as native_server
from benchmarks.serving import Means, Result, by_asyncio, by_wrk, check_answer, console, free_ports, observe
from tests.inference_code import artifacts

_APP = """
import os
from pathlib import Path
from inference_code import handler
from inference_code.server.app import Service
from inference_code.settings import Settings

settings = Settings.from_environment()
app = Service(handler.ModelHandler(handler.load(Path(os.environ["BENCHMARK_MODEL"]), settings)), settings)
"""
_SIDES = {"small (3 kB)": 16, "large (602 kB)": 224}

Start = Callable[[Case, int, Path], Running]


def cases(folder: Path) -> list[Case]:
    """One model with a graph for each body, so that a server is started once."""
    model = folder / "model"
    graphs = tuple(
        artifacts.add_graph(model, Means(), {"pixels": torch.zeros(1, 3, side, side)}, bucket={"image": [side, side]})
        for side in _SIDES.values()
    )
    shutil.copytree(document.ROOT / "inference_code", model / "code" / "inference_code")
    (model / "code" / "asgi_app.py").write_text(_APP)
    artifacts.finish(model, graphs, "tensor")
    found = []
    for name, side in _SIDES.items():
        body = folder / f"{side}.body"
        body.write_bytes(artifacts.npy(np.random.default_rng(0).random((3, side, side), np.float32)))
        found.append(Case(name, model, body, "application/x-npy", accelerator=False))
    return found


def uvicorn(loop: str, http: str) -> Start:
    """uvicorn with one of its loops and one of its parsers."""

    def start(case: Case, port: int, log: Path) -> Running:
        quiet = ["--no-access-log", "--log-level", "warning", "--no-server-header", "--backlog", "2048"]
        chosen = ["--loop", loop, "--http", http, "--port", str(port), "--timeout-keep-alive", "75"]
        return _app([sys.executable, "-m", "uvicorn", *quiet, *chosen, "asgi_app:app"], case, port, log)

    return start


def granian(case: Case, port: int, log: Path) -> Running:
    """granian: Rust's hyper below, one worker."""
    home = _venv("granian", "granian==2.8.7")
    chosen = [
        "--interface",
        "asgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--log-level",
        "warning",
    ]
    return _app([str(home / "bin" / "granian"), *chosen, "asgi_app:app"], case, port, log)


def hypercorn(case: Case, port: int, log: Path) -> Running:
    """hypercorn on uvloop, one worker."""
    home = _venv("hypercorn", "hypercorn==0.18.0", "uvloop")
    chosen = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--worker-class", "uvloop", "--log-level", "warning"]
    return _app([str(home / "bin" / "hypercorn"), *chosen, "asgi_app:app"], case, port, log)


def _app(command: list[str], case: Case, port: int, log: Path) -> Running:
    return started(command, environment(case) | {"BENCHMARK_MODEL": str(case.model)}, port, log)


SERVERS: dict[str, Start] = {
    "native": native_server,
    "uvicorn, uvloop, httptools": uvicorn("uvloop", "httptools"),
    "uvicorn, asyncio, httptools": uvicorn("asyncio", "httptools"),
    "uvicorn, uvloop, h11": uvicorn("uvloop", "h11"),
    "granian": granian,
    "hypercorn": hypercorn,
}


def measure(server: str, built: Sequence[Case], connections: Sequence[int], seconds: float) -> list[Result]:
    """Start the server, measure each body and number of connections, end it. Raises SkippedError."""
    load = by_wrk if shutil.which("wrk") else by_asyncio
    log = HOME / "logs" / f"asgi-{'-'.join(server.replace(',', '').split())}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    running = SERVERS[server](built[0], free_ports(), log)
    results: list[Result] = []
    try:
        memory = running.memory() / 1e6
        for case in built:
            check_answer(server, case, running)
            load(case, running, max(connections), min(seconds, 1.0))
            results += [observe(server, case, running, memory, number, seconds, load) for number in connections]
    finally:
        running.stop()
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 1: nothing could be measured; 2: wrong use, or the machine is busy."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asgi", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--servers", default=";".join(SERVERS), help="separated by semicolons; a beginning of the name will do"
    )
    options = document.options(parser, arguments, seconds=3.0)
    asked = [word.strip() for word in options.servers.split(";")]
    unknown = [word for word in asked if not any(name.startswith(word) for name in SERVERS)]
    if unknown:
        parser.error(f"there is no {'; '.join(unknown)}; there are {'; '.join(SERVERS)}")
    folder = HOME / "asgi"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    built = cases(folder)
    results: list[Result] = []
    skipped: dict[str, str] = {}
    for server in SERVERS:
        if not any(server.startswith(word) for word in asked):
            continue
        console.print(server)
        try:
            results += measure(server, built, options.connections, options.seconds)
        except SkippedError as error:
            skipped[server] = str(error)
            console.print(f"[bold red]SKIPPED {server}[/]: {error}", markup=True)
    client = "wrk" if shutil.which("wrk") else "a client on asyncio (wrk is not installed)"
    text = document.table(results, client, skipped, "server")
    console.print(text, markup=False)
    if options.write and results:
        document.put("asgi", text)
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
