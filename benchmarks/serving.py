"""The native server against its peers: the same handler, artifact and payloads, in one run, by turns.

    python -m benchmarks.serving                       every peer, workload and number of connections, in 12 minutes
    python -m benchmarks.serving --peers native,plain --cases npy --connections 1,16 --seconds 2 --rounds 1
    python -m benchmarks.serving --artifact build/rehearsal/depth/model.tar.gz --payload photo.jpg --payload other.png
    python -m benchmarks.serving --write               also put the table and the plot into docs/benchmarks.md

The peers: native (this server), image (the same, verified and started as its container image does it), native2 (the
same with two processes), plain (Starlette with a pool of threads), torchserve and triton. Those that cannot be
installed here (.venv-torchserve, .venv-triton, by tools/install.py), or that do not suit a workload, are named with the
reason and left out. Load comes from wrk, which is installed where apt-get may do it; elsewhere from a client on
asyncio, which is slower itself: the text says so. Nobody else should use the machine meanwhile: the run waits up to
five minutes for a quiet one, says how busy it was at its beginning, and refuses above one busy processor in four unless
--busy is given.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.peers import DEVICE_SECONDS, HOME, PEERS, ROOT, Case, MissingPeerError, Running, SkippedError
from inference_code.adapters.triton.model import media_type
from tests.inference_code import artifacts
from tests.inference_code.load import Got, Sent, send_all

BATCH = 8
SIDE = 224
DOCUMENT = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "images" / "serving.svg"
BEGIN, END = "<!-- figures: python -m benchmarks.serving --write -->", "<!-- end of the figures -->"
_LUA = """
local bodies, kinds, at = {{}}, {{}}, 0
for _, one in ipairs({{{payloads}}}) do
  local file = io.open(one[1], "rb")
  bodies[#bodies + 1], kinds[#kinds + 1] = file:read("*a"), one[2]
  file:close()
end
wrk.method = "POST"
{headers}
if #bodies == 1 then
  wrk.body, wrk.headers["Content-Type"] = bodies[1], kinds[1]
else
  request = function()
    at = at % #bodies + 1
    wrk.headers["Content-Type"] = kinds[at]
    return wrk.format(nil, nil, wrk.headers, bodies[at])
  end
end
"""
OWN = "own"  # the case of --artifact
START_SECONDS = 11.0  # of starting, warming and ending a peer, for the plan alone

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)


@dataclass(frozen=True)
class Result:
    """One measurement; times in milliseconds, memory in MB. `errors`: answers that are not 200, and lost ones."""

    peer: str
    case: str
    connections: int
    requests_per_second: float
    p50: float
    p99: float
    errors: int
    processor_ms: float
    idle_memory: float
    start_seconds: float


class Pictures(torch.nn.Module):
    """[batch, 3, side, side] -> [batch, side, side] of depth; the small answer's model takes the mean of it."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(1)


class Means(torch.nn.Module):
    """[batch, 3, side, side] -> [batch, 3]."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


def cases(folder: Path) -> dict[str, Case]:
    """The workloads: npy of 602 KB, a JPEG of 640 x 480, and the accelerator-like model with a small npy."""
    chance = np.random.default_rng(0)
    pixels = chance.random((3, SIDE, SIDE), np.float32)
    photograph = Image.open(ROOT / "examples" / "photographs" / "coffee.jpg").convert("RGB")
    jpeg = artifacts.encoded(photograph.resize((640, 480)), "JPEG", quality=90)
    rows = {
        "npy": (Means(), (3, SIDE, SIDE), "tensor", artifacts.npy(pixels), "application/x-npy", False),
        "jpeg": (Pictures(), (3, SIDE, SIDE), "depth-estimation", jpeg, "image/jpeg", False),
        "accelerator": (Means(), (3, 16, 16), "tensor", artifacts.npy(pixels[:, :16, :16]), "application/x-npy", True),
    }
    found = {}
    for name, (module, shape, task, body, content_type, accelerator) in rows.items():
        model = folder / name
        graphs = tuple(
            artifacts.add_graph(
                model, module, {"pixels": torch.zeros(batch, *shape)}, bucket={"image": list(shape[1:])}
            )
            for batch in (1, BATCH)
        )
        leave_out = shutil.ignore_patterns("__pycache__")  # verify.py refuses what the manifest lacks
        shutil.copytree(ROOT / "inference_code", model / "code" / "inference_code", ignore=leave_out)
        shutil.copy(ROOT / "inference_code" / "inference.py", model / "code" / "inference.py")
        every = [path for path in model.rglob("*") if path.is_file()]
        files = {path.relative_to(model).as_posix(): artifacts.m.file_sha256(path) for path in every}
        artifacts.finish(model, graphs, task, files=files)
        (folder / f"{name}.body").write_bytes(body)
        accept = "application/x-npy; size=model" if task == "depth-estimation" else "application/x-npy"
        found[name] = Case(name, model, folder / f"{name}.body", content_type, accelerator, accept=accept)
    return found


def own_case(folder: Path, options: argparse.Namespace) -> Case:
    """The case of --artifact and --payload. Raises SkippedError for what cannot be read."""
    model = folder / OWN
    if options.artifact.is_dir():
        shutil.copytree(options.artifact, model)
    else:
        model.mkdir()
        command = ["tar", "-xzf", str(options.artifact), "-C", str(model)]
        unpacked = subprocess.run(command, capture_output=True, text=True, check=False)
        if unpacked.returncode != 0:
            raise SkippedError(f"{options.artifact} cannot be unpacked: {unpacked.stderr.strip().splitlines()[:1]}")
    if not (model / "code" / "inference.py").is_file():
        raise SkippedError(f"{options.artifact} holds no code/inference.py: build it with inferentia build")
    bodies = []
    for number, payload in enumerate(options.payload):
        file, kind = payload_file(payload)
        body = folder / f"{OWN}-{number}.body"
        shutil.copy(file, body)
        bodies.append((body, kind or media_type(body.read_bytes())))
    return Case(OWN, model, *bodies[0], options.accelerator, tuple(bodies[1:]), options.accept)


def said_of(model: Path) -> str:
    """What the artifact of --artifact is, in a sentence beside its figures."""
    manifest = artifacts.m.read(model)
    what = f"a rehearsal of {manifest.target}" if manifest.rehearsal else f"an artifact of the {manifest.target} target"
    return f"{OWN} is {what}, served by this processor: none of its figures are Inferentia's."


def payload_file(text: str) -> tuple[Path, str]:
    """FILE and TYPE of a --payload; an empty TYPE: by the file's first bytes."""
    if Path(text).is_file():
        return Path(text), ""
    file, _, kind = text.rpartition("=")
    return (Path(file), kind) if file else (Path(text), "")


# Load ---------------------------------------------------------------------------------------------------------------


def requests_of(case: Case, running: Running) -> list[tuple[bytes, dict[str, str]]]:
    """The bodies that are sent in turn, with their headers."""
    return [
        (body.read_bytes(), {"Content-Type": kind, "Accept": case.accept, **running.headers})
        for body, kind in case.payloads
    ]


def lines(headers: dict[str, str]) -> str:
    """Headers as HTTP writes them."""
    return "".join(f"{name}: {text}\r\n" for name, text in headers.items())


def by_wrk(case: Case, running: Running, connections: int, seconds: float) -> tuple[int, float, float, float, int]:
    """(answers, requests a second, p50 ms, p99 ms, errors)."""
    kind = running.headers.get("Content-Type")  # one for all, where the server wants it so
    payloads = ", ".join(f"{{{json.dumps(str(body))}, {json.dumps(kind or own)}}}" for body, own in case.payloads)
    others = {"Accept": case.accept, **running.headers}
    headers = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(text)}" for name, text in others.items())
    script = case.body.with_suffix(".lua")
    script.write_text(_LUA.format(payloads=payloads, headers=headers))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, math.floor(seconds))}s", "--latency", "--timeout", "60s"]
    run = subprocess.run(
        [*command, "-s", str(script), f"{running.url}/invocations"], capture_output=True, text=True, check=True
    )
    return parse_wrk(run.stdout)


def parse_wrk(text: str) -> tuple[int, float, float, float, int]:
    """wrk's report: (answers, requests a second, p50 ms, p99 ms, errors)."""
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
    latency = {
        share: float(number) * scale[unit]
        for share, number, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)[ \t]*$", text, re.MULTILINE)
    }
    answers = int(re.findall(r"(\d+) requests in", text)[0])
    if set(latency) != {"50", "99"}:
        raise SkippedError(f"wrk measured no latency: {' '.join(text.split())}")
    refused = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    broken = sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
    return (
        answers,
        float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0]),
        latency["50"],
        latency["99"],
        refused + broken,
    )


def by_asyncio(case: Case, running: Running, connections: int, seconds: float) -> tuple[int, float, float, float, int]:
    """The same with a client in this process, where there is no wrk."""
    payloads = [(body, lines(headers)) for body, headers in requests_of(case, running)]
    began = time.perf_counter()
    times: list[float] = []
    sent_at: dict[int, float] = {}
    errors = 0

    def requests() -> Any:
        number = 0
        while time.perf_counter() - began < seconds:
            sent_at[number] = time.perf_counter()
            yield Sent(number, *payloads[number % len(payloads)])
            number += 1

    def answered(got: Got) -> None:
        nonlocal errors
        times.append(time.perf_counter() - sent_at.pop(got.number))
        errors += got.status != 200

    send_all(running.url, requests(), connections, answered)
    passed = time.perf_counter() - began
    low, high = np.quantile(times, (0.5, 0.99)) * 1000
    return len(times), len(times) / passed, float(low), float(high), errors


Load = Callable[[Case, Running, int, float], "tuple[int, float, float, float, int]"]


def measure(peer: str, case: Case, connections: Sequence[int], seconds: float, load: Load) -> list[Result]:
    """Start the peer, warm it up, measure each number of connections, end it. Raises SkippedError."""
    log = HOME / "logs" / f"{peer}-{case.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    running = PEERS[peer](case, free_ports(), log)
    try:
        check_answer(peer, case, running)
        memory = running.memory() / 1e6
        load(case, running, max(connections), min(seconds, 2.0))
        return [observe(peer, case, running, memory, number, seconds, load) for number in connections]
    finally:
        running.stop()


def observe(
    name: str, case: Case, running: Running, memory: float, connections: int, seconds: float, load: Load
) -> Result:
    """One measurement of a server that is warm. memory: MB, of the idle server. Raises SkippedError without answers."""
    settle(case, running)
    before = running.processor()
    answers, rate, p50, p99, errors = load(case, running, connections, seconds)
    if answers == 0:
        raise SkippedError(f"no answer in {seconds:g} s at {connections} connections; give it more (--seconds)")
    spent = (running.processor() - before) * 1000 / max(answers, 1)
    return Result(name, case.name, connections, rate, p50, p99, errors, spent, memory, running.seconds)


def settle(case: Case, running: Running) -> None:
    """Wait until the server has worked off what the last load left inside: most notice no client that goes away."""
    body, headers = requests_of(case, running)[0]
    for number in range(2):
        send_all(running.url, [Sent(number, body, lines(headers))], 1)


def check_answer(peer: str, case: Case, running: Running) -> None:
    """Each payload once, which must be answered with what was asked for: a fast error is no result. SkippedError."""
    for body, headers in requests_of(case, running):
        (got,) = send_all(running.url, [Sent(0, body, lines(headers))], 1)
        if got.status != 200 or (case.name != OWN and b"\x93NUMPY" not in got.body):
            raise SkippedError(f"{peer} answers {case.name} with {got.status}: {got.body[:200]!r}")


def free_ports() -> int:
    """The first of three free ports in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        try:
            for other in (port + 1, port + 2):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", other))
        except (OSError, OverflowError):
            continue
        return port


# Results ------------------------------------------------------------------------------------------------------------


def median(results: Sequence[Result]) -> list[Result]:
    """One result for each peer, case and number of connections: the median of the rounds, the sum of the errors."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for one in results:
        groups.setdefault((one.peer, one.case, one.connections), []).append(one)
    names = ("requests_per_second", "p50", "p99", "processor_ms", "idle_memory", "start_seconds")
    return [
        Result(*key, **{name: statistics.median(getattr(one, name) for one in group) for name in names},
               errors=sum(one.errors for one in group))
        for key, group in groups.items()
    ]  # fmt: skip


def goals(results: Sequence[Result]) -> list[tuple[str, float, float, bool]]:
    """(what, found, wanted, reached) of the ratios that follow from these results."""
    return [*_goals(results, "native", ""), *_goals(results, "native2", ", 2 processes")]


def _goals(results: Sequence[Result], server: str, label: str) -> list[tuple[str, float, float, bool]]:
    """The goals of one of our servers. label: said of each of its rows."""
    by = {(one.peer, one.case, one.connections): one for one in results}

    def ratio(case: str, peer: str, name: str, number: int) -> float | None:
        ours, theirs = by.get((server, case, number)), by.get((peer, case, number))
        return getattr(ours, name) / getattr(theirs, name) if ours and theirs else None

    rate, lone, memory, many = "requests_per_second", "p50", "idle_memory", f"16 connections{label}"
    rows = [
        (f"{said}, {many}: requests/s against TorchServe's", ratio(case, "torchserve", rate, 16), wanted, True)
        for said, case, wanted in (("npy", "npy", 4.0), ("JPEG", "jpeg", 2.5), (OWN, OWN, 2.5))
    ]
    for case in ("npy", "jpeg", "accelerator", OWN):
        rows += [
            (f"{case}, {many}: requests/s against Triton's", ratio(case, "triton", rate, 16), 1.0, True),
            (f"{case}, lone request{label}: p50 against plain Starlette's", ratio(case, "plain", lone, 1), 1.0, False),
            (f"{case}{label}: idle memory against TorchServe's", ratio(case, "torchserve", memory, 16), 0.5, False),
        ]  # fmt: skip
    limited = by.get((server, "accelerator", 16))
    if limited:
        share = limited.requests_per_second / (BATCH / DEVICE_SECONDS)
        rows.append((f"accelerator, {many}: share of the batch-limited maximum", share, 0.95, True))
    return [
        (what, found, wanted, found >= wanted if least else found <= wanted)
        for what, found, wanted, least in rows
        if found is not None
    ]


def markdown(results: Sequence[Result], client: str, skipped: dict[str, str], busy: float, note: str = "") -> str:
    """The table, the goals and where they were measured. note: what else to say in front."""
    lines = [
        f"Measured on {date.today().isoformat()} on {machine()}, load from {client}; other processes kept "
        f"{busy:.1f} processors busy when the run began.",
        *(
            ["native2 is the native server with two processes."]
            if any(one.peer == "native2" for one in results)
            else []
        ),
        *([note] if note else []),
        "",
        "| workload | server | connections | requests/s | p50 ms | p99 ms | errors | CPU ms | idle MB | start s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda r: (r.case, r.peer, r.connections)):
        lines.append(
            f"| {one.case} | {one.peer} | {one.connections} | {one.requests_per_second:.0f} | {one.p50:.2f} | "
            f"{one.p99:.2f} | {one.errors} | {one.processor_ms:.2f} | {one.idle_memory:.0f} | {one.start_seconds:.1f} |"
        )
    lines += ["", "| goal | found | wanted | |", "|---|---|---|---|"]
    for what, found, wanted, reached in goals(results):
        lines.append(f"| {what} | {found:.2f} | {wanted:g} | {'reached' if reached else 'missed'} |")
    lines += [f"\nNot measured: {peer}: {reason}" for peer, reason in skipped.items()]
    return "\n".join(lines)


def machine() -> str:
    """Processors, their name, memory."""
    text = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, {memory:.0f} GiB"


def plot(results: Sequence[Result], path: Path) -> None:
    """Requests a second over connections, one panel a workload."""
    import matplotlib as mpl  # noqa: PLC0415  (only for --write)

    mpl.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    names = sorted({one.case for one in results})
    figure, axes = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for peer in sorted({one.peer for one in results}):
            rows = sorted((r.connections, r.requests_per_second) for r in results if (r.case, r.peer) == (name, peer))
            if rows:
                axis.plot(*zip(*rows, strict=True), marker="o", label=peer)
        axis.set(title=name, xlabel="connections", xscale="log", ylim=(0, None))
    axes[0][0].set_ylabel("requests/s")
    axes[0][0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def write_document(text: str, results: Sequence[Result]) -> None:
    """Put the figures between the marks of docs/benchmarks.md."""
    document = DOCUMENT.read_text()
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    plot(results, PLOT)
    picture = f"![Requests a second over connections](images/{PLOT.name})"
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{picture}\n\n{END}{after}")


# The command line -----------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace, load: Load) -> tuple[list[Result], dict[str, str]]:
    """Every round of every case and peer; the order of the peers turns with the round."""
    folder = HOME / "cases"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    built = cases(folder)
    if options.artifact:
        built[OWN] = own_case(folder, options)
    results: list[Result] = []
    skipped: dict[str, str] = {}
    for number in range(options.rounds):
        for case in (built[name] for name in options.cases):
            turn = number % len(options.peers)
            for peer in options.peers[turn:] + options.peers[:turn]:
                in_case = f"{peer}, {case.name}"
                if peer in skipped or in_case in skipped:
                    continue
                try:
                    console.print(f"round {number + 1} of {options.rounds}: {case.name}, {peer}")
                    results += measure(peer, case, options.connections, options.seconds, load)
                except (SkippedError, subprocess.CalledProcessError, StopIteration) as error:
                    name = peer if isinstance(error, MissingPeerError) else in_case
                    skipped[name] = str(error) or type(error).__name__
                    console.print(f"[bold red]SKIPPED {name}[/]: {escape(skipped[name])}")
    return median([one for one in results if f"{one.peer}, {one.case}" not in skipped]), skipped


def plan_seconds(options: argparse.Namespace) -> float:
    """Seconds of each measurement so that the whole takes --minutes; at least one."""
    starts = options.rounds * len(options.cases) * len(options.peers)
    left = options.minutes * 60 - starts * START_SECONDS
    return max(1.0, float(math.floor(left / (starts * len(options.connections)))))


def wrk_is_there() -> bool:
    """Whether wrk can be used; installs it where apt-get may."""
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "wrk"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if shutil.which("wrk") is None:
        console.print("[bold red]SKIPPED wrk[/]: it is not installed (apt-get install wrk); the client is on asyncio")
        return False
    return True


def quiet(wait: float) -> float:
    """The machine's load, once it is at most one processor in four, or after `wait` seconds."""
    end = time.monotonic() + wait
    while (load := os.getloadavg()[0]) > (os.cpu_count() or 1) / 4 and time.monotonic() < end:
        time.sleep(5)
    return load


def show(results: Sequence[Result]) -> None:
    """The results as a table in the terminal."""
    table = Table("workload", "server", "connections", "requests/s", "p50 ms", "p99 ms", "errors", "CPU ms", "idle MB")
    for one in sorted(results, key=lambda r: (r.case, r.connections, r.peer)):
        numbers = (f"{one.requests_per_second:.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}", str(one.errors))
        more = (f"{one.processor_ms:.2f}", f"{one.idle_memory:.0f}")
        table.add_row(one.case, one.peer, str(one.connections), *numbers, *more)
    console.print(table)
    ratios = Table("goal", "found", "wanted", "")
    for what, found, wanted, reached in goals(results):
        ratios.add_row(what, f"{found:.2f}", f"{wanted:g}", "reached" if reached else "[bold red]missed[/]")
    console.print(ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 1: a peer was asked for and nothing could be measured; 2: wrong use, or the machine is busy."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["npy", "jpeg", "accelerator"]
    add = parser.add_argument
    add("--peers", type=_names, default=list(PEERS), help=f"default: {','.join(PEERS)}")
    add("--cases", type=_names, help="of npy,jpeg,accelerator; default: all, or own alone")
    add("--connections", type=whole_list, default=[1, 4, 16, 64], help="default: 1,4,16,64")
    add(
        "--artifact", type=Path, help="a model of your own: an unpacked artifact or a model.tar.gz, made for this torch"
    )
    add("--payload", action="append", metavar="FILE[=TYPE]", help="what is sent to it; several are sent in turn")
    add("--accept", default="application/json", help="what it is asked for; default: %(default)s")
    add("--accelerator", action="store_true", help="its calls take what the accelerator-like model's take")
    add("--minutes", type=positive, default=12.0, help="of the whole run; default: %(default)s")
    add("--seconds", type=positive, help="of each measurement, instead of --minutes")
    add("--rounds", type=_whole, default=2, help="whose median counts; default: %(default)s")
    add("--busy", action="store_true", help="measure although the machine is busy")
    add("--write", action="store_true", help="put table and plot into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    _check(parser, options, names)
    busy = os.getloadavg()[0] if options.busy else quiet(300)
    if busy > (os.cpu_count() or 1) / 4 and not options.busy:
        parser.error(f"the machine is busy (load {busy:.1f}): figures would be worthless; wait, or say --busy")
    has_wrk = wrk_is_there()
    client = "wrk" if has_wrk else "a client on asyncio (wrk is not installed)"
    options.seconds = options.seconds or plan_seconds(options)
    console.print(f"{options.seconds:g} s a measurement, {options.rounds} rounds, load from {client}")
    try:
        results, skipped = run(options, by_wrk if has_wrk else by_asyncio)
    except SkippedError as error:
        console.print(f"[bold red]error[/]: {error}")
        return 1
    if not results:
        console.print("[bold red]error[/]: nothing was measured")
        return 1
    show(results)
    note = said_of(HOME / "cases" / OWN) if options.artifact else ""
    if note:
        console.print(note)
    text = markdown(results, client, skipped, busy, note)
    (HOME / "serving.json").write_text(json.dumps([asdict(one) for one in results], indent=2) + "\n")
    (HOME / "serving.md").write_text(text + "\n")
    console.print(f"written: {HOME / 'serving.json'}, {HOME / 'serving.md'}")
    if options.write:
        write_document(text, results)
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text.strip()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def whole_list(text: str) -> list[int]:
    """Of an option: whole numbers from 1 on, with commas. Raises ArgumentTypeError."""
    return [_whole(part) for part in text.split(",")]


def positive(text: str) -> float:
    """Of an option: a number above 0. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace, names: list[str]) -> None:
    """Complete the options; wrong ones end the program with 2."""
    if options.busy and options.write:
        parser.error("--write is only for a machine that is not busy")
    if bool(options.artifact) != bool(options.payload):
        parser.error("--artifact needs --payload, and the other way round")
    artifact = options.artifact
    if artifact and not artifact.is_dir() and not (artifact.is_file() and tarfile.is_tarfile(artifact)):
        parser.error(f"{artifact} is neither a folder nor a model.tar.gz")
    for file, _ in map(payload_file, options.payload or ()):
        if not os.access(file, os.R_OK) or not file.is_file():
            parser.error(f"--payload: there is no file {file} that can be read")
    known = [*names, OWN] if options.artifact else names
    options.cases = options.cases or ([OWN] if options.artifact else names)
    for given, there in ((options.peers, list(PEERS)), (options.cases, known)):
        if set(given) - set(there):
            parser.error(f"there is no {', '.join(sorted(set(given) - set(there)))}; there are {', '.join(there)}")


def _ended(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)  # so that the peer that runs is ended, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("ended by Ctrl-C; nothing was written")
        sys.exit(128 + signal.SIGINT)
