"""The whole way as a rehearsal: build, bootstrap, deploy, invoke, destroy; nothing leaves this machine.

`run` does all of it and cleans up; `up` leaves the embedded AWS and its endpoint running; `down` ends that.
Results stay in build/demo/ (or build/up/): depth.png, depth16.png, the photograph, summary.json, logs/.
"""

from __future__ import annotations

import signal

# Until main() the packages below are imported, and there is nothing to clean up: Ctrl-C ends that without a traceback.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
ENDPOINT = "depth"
ARTIFACTS, STACK = "InferentiaArtifacts", f"InferentiaEndpoint-{ENDPOINT}"
PHOTOGRAPH = ROOT / "examples" / "photographs" / "coffee.jpg"
PYTHON = str(ROOT / ".venv" / "bin" / "python")
START_SECONDS = 60
console = Console(stderr=True, highlight=False)


class DemoError(Exception):
    """A step failed; the text says which, why, and where its log is."""


class Rehearsal:
    """One rehearsal: its folder, the environment that points at the embedded AWS, and its numbered steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.aws = folder / "aws"
        self.done: list[dict[str, Any]] = []
        self.server: subprocess.Popen[bytes] | None = None  # holds the other end of its standard input

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with .venv/bin first and AWS replaced by the embedded one."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
        path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**inherited, **self.aws_environment(), "PATH": path, "PYTHONUNBUFFERED": "1"}

    def asked(self) -> subprocess.CompletedProcess[str]:
        """The answer of `inferentia rehearsal env`; it fails where no server runs."""
        command = [PYTHON, "-m", "embedded_aws", "environment", "--directory", str(self.aws)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    def running(self) -> bool:
        """Whether the embedded AWS runs; a server.json alone is also what a restart of the machine leaves."""
        return (self.aws / "server.json").exists() and self.asked().returncode == 0

    def aws_environment(self) -> dict[str, str]:
        """What `inferentia rehearsal env` exports; empty before the server runs."""
        if not (self.aws / "server.json").exists():
            return {}
        answer = self.asked()
        if answer.returncode != 0:
            raise DemoError(f"the embedded AWS does not answer:\n{answer.stderr.strip()}")
        lines = [line.removeprefix("export ") for line in answer.stdout.splitlines() if "=" in line]
        return {key: value.strip("'\"") for key, _, value in (line.partition("=") for line in lines)}

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show a step while it runs, and its seconds after; the function given updates the line."""
        started = time.perf_counter()
        with console.status(title) as status:
            yield lambda text: status.update(f"{title}  [dim]{text[:90]}[/]")
        seconds = time.perf_counter() - started
        self.done.append({"step": title, "seconds": round(seconds, 1)})
        console.print(f"[green]✓[/] {title} [dim]{seconds:.1f} s[/]")

    def command(self, title: str, *arguments: str) -> None:
        """Run one command as a step; its output goes to a log and its newest line is shown.

        Raises:
            DemoError: with the log's last lines, when the command fails.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{len(self.done) + 1:02d}-{title.replace(' ', '-')}.log"
        with self.step(title) as show, log.open("w") as file:
            process = subprocess.Popen(
                arguments, cwd=ROOT, env=self.environment, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                for line in process.stdout or ():
                    file.write(line)
                    show(line.strip().replace("[", "(").replace("]", ")"))
                process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode != 0:
            last = "\n".join(log.read_text().strip().splitlines()[-20:])
            raise DemoError(
                f"{title} failed (exit {process.returncode}):\n{last}\nThe whole log: {log.relative_to(ROOT)}"
            )

    def cdk(self, title: str, *arguments: str) -> None:
        """Run the stock CDK CLI on this app as a rehearsal."""
        common = ["--output", str(self.folder / "cdk.out"), "-c", "rehearsal=true", "--progress", "events"]
        self.command(title, "cdk", *arguments, *common)

    def start(self, *, stays: bool) -> None:
        """Start the embedded AWS in the background and wait until it answers.

        stays: it outlives this process; otherwise it ends with it, also where this is killed.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / "embedded-aws.log"
        with self.step("start the embedded AWS"), log.open("w") as file:
            process = self.server = subprocess.Popen(
                [PYTHON, "-m", "embedded_aws", "serve", "--directory", str(self.aws),
                 *([] if stays else ["--until-stdin-ends"])],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
            deadline = time.monotonic() + START_SECONDS
            try:
                while not (self.aws / "server.json").exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        last = "\n".join(log.read_text().strip().splitlines()[-10:])
                        raise DemoError(f"the embedded AWS did not start:\n{last}")
                    time.sleep(0.1)
            except BaseException:  # Ctrl-C too: without its file `stop` could not find it
                process.terminate()
                process.wait()
                raise

    def stop(self) -> None:
        """Stop the embedded AWS, and with it every worker."""
        if self.running():
            self.command("stop the embedded AWS", PYTHON, "-m", "embedded_aws", "stop", "--directory", str(self.aws))

    def client(self, service: str) -> Any:
        """A boto3 client that can only reach the embedded AWS."""
        variables = self.aws_environment()
        return boto3.client(
            service,
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            region_name=variables["AWS_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )


def deploy(rehearsal: Rehearsal) -> None:
    """From an empty embedded AWS to an endpoint in service."""
    rehearsal.command("build depth (rehearsal)", PYTHON, "-m", "compile", "build", ENDPOINT, "--rehearse")
    rehearsal.cdk("cdk bootstrap", "bootstrap", "aws://123456789012/us-east-1")
    rehearsal.cdk("deploy the artifacts stack", "deploy", ARTIFACTS, "--require-approval", "never")
    rehearsal.command("publish the artifact", PYTHON, "-m", "operations", "publish", ENDPOINT, "--rehearsal")
    others = sorted(path.stem for path in (ROOT / "endpoints").glob("*.yaml") if path.stem != ENDPOINT)
    if others:
        console.print(f"endpoints/ holds more than {ENDPOINT} ({', '.join(others)}): this deploys {ENDPOINT} only")
    stacks = [ARTIFACTS, STACK] if others else ["--all"]
    rehearsal.cdk(f"cdk deploy {' '.join(stacks)}", "deploy", *stacks, "--require-approval", "never")
    rehearsal.command(
        "smoke test against the lock's sample", PYTHON, "-m", "operations", "smoke", ENDPOINT, "--rehearsal"
    )


def invoke(rehearsal: Rehearsal) -> dict[str, Any]:
    """Send the photograph to the endpoint; write the pictures; return the call's figures."""
    runtime, photograph = rehearsal.client("sagemaker-runtime"), PHOTOGRAPH.read_bytes()
    with rehearsal.step("invoke the endpoint with a photograph"):
        milliseconds = {}
        for accept in ("application/x-npy", "image/png"):
            started = time.perf_counter()
            answer = runtime.invoke_endpoint(
                EndpointName=ENDPOINT, ContentType="image/jpeg", Accept=accept, Body=photograph
            )
            body = answer["Body"].read()
            milliseconds[accept] = round((time.perf_counter() - started) * 1e3, 1)
            if accept == "image/png":
                (rehearsal.folder / "depth16.png").write_bytes(body)
            else:
                depth = np.load(io.BytesIO(body), allow_pickle=False)
        colour(depth, rehearsal.folder / "depth.png")
        for file in (PHOTOGRAPH, PHOTOGRAPH.with_suffix(".LICENSE.txt")):
            shutil.copy(file, rehearsal.folder / file.name)
    return {"shape": list(depth.shape), "milliseconds": milliseconds}


def colour(depth: np.ndarray, path: Path) -> None:
    """Write a depth map of shape (height, width) as a coloured PNG, near warm and far dark."""
    from matplotlib import colormaps  # noqa: PLC0415  (half a second, only needed here)

    span = float(depth.max() - depth.min())
    if not span > 0:
        raise DemoError(f"the depth map is constant ({float(depth.min())}): the endpoint does not look at the picture")
    picture = colormaps["inferno"]((depth - depth.min()) / span)[..., :3]
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(path)


def watch(rehearsal: Rehearsal) -> dict[str, Any]:
    """What stands around the endpoint: its scaling bounds and its alarms with their states."""
    scaling, cloudwatch = rehearsal.client("application-autoscaling"), rehearsal.client("cloudwatch")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    bounds = [
        f"{row['MinCapacity']} to {row['MaxCapacity']}" for row in targets if f"/{ENDPOINT}/" in row["ResourceId"]
    ]
    found = cloudwatch.describe_alarms()["MetricAlarms"]
    alarms = {row["AlarmName"]: row["StateValue"] for row in found if ENDPOINT in row["AlarmName"]}
    if not bounds or not alarms:
        raise DemoError(f"the deployed stack lacks scaling bounds ({bounds}) or alarms ({alarms})")
    return {"instances": bounds[0], "alarms": alarms}


def summarise(rehearsal: Rehearsal, call: dict[str, Any]) -> None:
    """Write summary.json and show it as a table."""
    lock = json.loads((ROOT / "build" / "rehearsal" / f"{ENDPOINT}.lock.json").read_text())
    parity = lock["parity"]
    summary = {
        "rehearsal": True,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} (CPU; no Inferentia chip)",
        "weights": lock["weights"]["source"],
        "artifact": lock["digests"]["artifact"],
        "artifact_bytes": lock["artifact"]["bytes"],
        "parity": {key: parity[key] for key in ("inputs", "error", "bound")},
        "call": call,
        **watch(rehearsal),
        "steps": rehearsal.done,
    }
    temporary = rehearsal.folder / "summary.json.part"
    temporary.write_text(json.dumps(summary, indent=2) + "\n")
    temporary.replace(rehearsal.folder / "summary.json")
    table = Table(title="rehearsed on this machine", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("artifact", f"{summary['artifact_bytes'] / 1e6:.1f} MB")
    table.add_row(
        "weights", f"{summary['weights']} (drawn at random: the map means nothing, it shows that the pipeline runs)"
    )
    table.add_row("parity", f"error {parity['error']:.2e}, bound {parity['bound']:.2e}, {parity['inputs']} inputs")
    for accept, milliseconds in call["milliseconds"].items():
        table.add_row(f"call, {accept}", f"{milliseconds:.0f} ms ({summary['machine']})")
    table.add_row("instances", summary["instances"])
    for name, state in summary["alarms"].items():
        table.add_row("alarm", f"{state}: {name}")
    table.add_row("results", f"{rehearsal.folder.relative_to(ROOT)}/ (depth.png, depth16.png, {PHOTOGRAPH.name})")
    console.print(table)
    console.print(f"artifact sha256 {summary['artifact']}", soft_wrap=True, highlight=False)


def destroy(rehearsal: Rehearsal) -> None:
    """Take everything down, the bucket's contents first."""
    rehearsal.command("empty the artifact bucket", PYTHON, "-m", "operations", "empty-bucket", "--yes")
    rehearsal.cdk("cdk destroy --all", "destroy", "--all", "--force")


def fresh(folder: Path) -> Rehearsal:
    """A rehearsal in an empty folder; refuses to trample on one that runs."""
    rehearsal = Rehearsal(folder)
    if rehearsal.running():
        directory = rehearsal.aws.relative_to(ROOT)
        raise DemoError(
            f"an embedded AWS already runs for {directory}. End it: inferentia rehearsal down --directory {directory}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return rehearsal


@contextmanager
def only_one(what: str, build: Path) -> Iterator[None]:
    """Hold build/demo.lock, which ends with this process however it ends. Raises DemoError naming who holds it."""
    build.mkdir(exist_ok=True)
    with (build / "demo.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another one"
            raise DemoError(f"{holder} is at work in this checkout. Wait for it, or end it with Ctrl-C.") from None
        file.truncate(0)
        file.write(f"`make {what}` (process {os.getpid()}, since {time.strftime('%H:%M:%S')})")
        file.flush()
        yield


def run() -> None:
    """Everything, and clean up, also after a failure."""
    rehearsal = fresh(ROOT / "build" / "demo")
    try:
        rehearsal.start(stays=False)
        deploy(rehearsal)
        call = invoke(rehearsal)
        summarise(rehearsal, call)
        destroy(rehearsal)
    finally:
        rehearsal.stop()


def up() -> None:
    """Everything, left running; a failure cleans up."""
    rehearsal = fresh(ROOT / "build" / "up")
    try:
        rehearsal.start(stays=True)
        deploy(rehearsal)
        summarise(rehearsal, invoke(rehearsal))
    except BaseException:
        rehearsal.stop()
        raise
    relative = rehearsal.aws.relative_to(ROOT)
    console.print(f'\nIt runs. Point a shell at it: [bold]eval "$(inferentia rehearsal env '
                  f'--directory {relative})"[/]\nEnd it with [bold]make down[/].', soft_wrap=True)  # fmt: skip


def down() -> None:
    """Destroy what `up` deployed and stop the embedded AWS."""
    rehearsal = Rehearsal(ROOT / "build" / "up")
    if not rehearsal.running():
        console.print("nothing is up")
        return
    try:
        destroy(rehearsal)
    finally:
        rehearsal.stop()


def interrupted(number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM and Ctrl-C into the same way out."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Command line; 0 done, 1 a step failed, 2 wrong use, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "up", "down"))
    what = parser.parse_args().what
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupted)
    try:
        with only_one("demo" if what == "run" else what, ROOT / "build"):
            {"run": run, "up": up, "down": down}[what]()
    except (DemoError, ClientError, BotoCoreError, OSError, KeyError) as error:
        console.print("[bold red]failed:[/]", end=" ")
        console.print(
            str(error) if not isinstance(error, KeyError) else f"missing {error}", markup=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        console.print("[bold red]interrupted[/]; everything it started was stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
