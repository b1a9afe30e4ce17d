"""The project of a conformance run, build/conformance/project: one tiny endpoint, and the commands that act on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import endpoint_spec as specs
from endpoint_spec import built_images, derive

from .. import locked as locking
from ..account import stack_of
from ..errors import OperationError

Say = Callable[[str], None]
NAME = "inferentia-conformance"
STACK = stack_of(NAME)
FOLDER = Path("build/conformance")
SOURCES = Path(__file__).resolve().parents[2]
LAST_LINES = 15
# What the spec says in each step. items changes the model's environment, and so model, configuration and endpoint.
STAGES = {
    "deploy": {"items": 16, "latency": "10s", "least": 1, "most": 2},
    "update": {"items": 17, "latency": "1us", "least": 1, "most": 2},  # no answer is that fast: the alarm rings
    "alarm": {"items": 18, "latency": "1us", "least": 1, "most": 2},
    "scale": {"items": 17, "latency": "10s", "least": 2, "most": 3},
}
SPEC = """\
# Written by inferentia conformance.
name: {name}
model:
  {{family: dlrm, variant: kaggle_10k, weights: "random:0", options: {{rows: [10, 20], bottom: [8, 4], top: [8, 1]}}}}
compile: {{target: cpu}}
serve: {{max_batch_delay: 0ms, limits: {{items: {items}}}}}
scale: {{min: {least}, max: {most}}}
alarms: {{p99_latency: {latency}, min_requests: 1}}
tags: {{made-by: {name}}}
"""


@dataclass(frozen=True)
class Project:
    """root: the user's project, whose prices and images count. rehearsal: for the embedded AWS alone."""

    root: Path
    rehearsal: bool

    @property
    def folder(self) -> Path:
        """Reports, logs and the project are below it."""
        return self.root / FOLDER

    @property
    def home(self) -> Path:
        """The project itself."""
        return self.folder / "project"

    def write(self, stage: str) -> specs.EndpointSpec:
        """Write the spec as a step wants it, and beside it the user's built images."""
        file = self.home / "endpoints" / f"{NAME}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SPEC.format(name=NAME, **STAGES[stage]), encoding="utf-8")
        if (self.root / built_images.FILE).is_file():
            shutil.copy(self.root / built_images.FILE, self.home / built_images.FILE)
        return specs.find(NAME, self.home)

    def require_image(self, spec: specs.EndpointSpec) -> None:
        """Raises OperationError where the image that the endpoint runs was not built."""
        image = derive.container_image(spec)
        if self.rehearsal or image.registry != "own" or built_images.key(image) in built_images.read(self.root):
            return
        raise OperationError(
            f"{built_images.FILE} has no image {built_images.key(image)}, which a conformance run deploys. Build it "
            "with an endpoint of compile: {target: cpu}: cdk deploy InferentiaImages && inferentia image build NAME "
            "(docs/first-real-deployment.md)."
        )

    def build(self) -> None:
        """Make artifact and lock; nothing of that is on AWS."""
        self._must("build", sys.executable, "-m", "compile", "build", NAME, *(["--rehearse"] if self.rehearsal else []))

    def locked(self) -> locking.Locked:
        """The spec with its lock; raises as locked.load does."""
        return locking.load(NAME, self.home, rehearsal=self.rehearsal)

    def cdk(self, title: str, *arguments: str, minutes: float) -> None:
        """Run the stock CDK CLI. Raises OperationError with its last lines where it fails or is not done in time."""
        self.finish(self.start_cdk(title, *arguments), title, minutes)

    def start_cdk(self, title: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it; `finish` waits for it."""
        beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        cdk = shutil.which("cdk", path=beside)
        if cdk is None:
            raise OperationError("there is no cdk on PATH. Activate the environment: . .venv/bin/activate")
        app = f"{sys.executable} {SOURCES / 'app.py'}"
        rehearsal = ["-c", "rehearsal=true"] if self.rehearsal else []
        return self._start(title, cdk, *arguments, "--app", app, *rehearsal)

    def finish(self, process: subprocess.Popen[bytes], title: str, minutes: float) -> None:
        """Wait for a command. Raises OperationError with its last lines where it fails or is not done in time."""
        try:
            code = process.wait(max(1.0, minutes * 60))
        except subprocess.TimeoutExpired:
            raise OperationError(f"{title} was not done after {minutes:.0f} minutes. {self._last(title)}") from None
        finally:
            end(process)
        if code:
            raise OperationError(f"{title} ended with code {code}. {self._last(title)}")

    def _must(self, title: str, *command: str) -> None:
        self.finish(self._start(title, *command), title, minutes=30)

    def _start(self, title: str, *command: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH", ""))))
        log = self._log(title)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            return subprocess.Popen(  # noqa: S603
                command, cwd=self.home, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def _log(self, title: str) -> Path:
        return self.folder / "logs" / f"{title.replace(' ', '-')}.log"

    def _last(self, title: str) -> str:
        lines = self._log(title).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"The end of {self._log(title)}:\n" + "\n".join(lines[-LAST_LINES:])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, with everything that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
