"""A project in a temporary folder, with the embedded AWS beside it and the commands a user would type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil

ROOT = Path(__file__).resolve().parents[2]
CDK = ROOT / ".venv" / "bin" / "cdk"
START_SECONDS = 120


@dataclass
class Rehearsal:
    """Commands run in `folder`; their output is kept in the answer. job_python: of compile jobs."""

    folder: Path
    server: subprocess.Popen[bytes] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    job_python: Path = Path(sys.executable)

    @property
    def environment(self) -> dict[str, str]:
        """The user's shell: nothing of AWS but the embedded one, the project on Python's path."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
        home = {"CDK_HOME": str(self.folder / "home"), "CDK_DISABLE_CLI_TELEMETRY": "true"}
        return {**inherited, **home, "CDK_VALIDATION": "false", "PYTHONPATH": str(ROOT), **self.variables}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command; standard output and error come back as one text."""
        return subprocess.run(
            [str(part) for part in arguments], cwd=self.folder, env=self.environment, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=400,
        )  # fmt: skip

    def must(self, *arguments: str | Path) -> str:
        """Run a command that has to succeed; return what it said."""
        answer = self.run(*arguments)
        assert answer.returncode == 0, answer.stdout
        return answer.stdout

    def python(self, *arguments: str) -> str:
        """`python -m ...`, which has to succeed."""
        return self.must(sys.executable, "-m", *arguments)

    def cdk(self, *arguments: str, synthesized: bool = False) -> subprocess.CompletedProcess[str]:
        """The stock CLI on the project's app, as a rehearsal; or on the templates of the last call, which is short."""
        app = "cdk.out" if synthesized else f"{sys.executable} {ROOT / 'app.py'}"
        return self.run(CDK, *arguments, "--app", app, "-c", "rehearsal=true", "--progress", "events")

    def deploy(self, *stacks: str, synthesized: bool = False) -> str:
        """`cdk deploy`, which has to succeed."""
        answer = self.cdk("deploy", "--require-approval", "never", *stacks, synthesized=synthesized)
        assert answer.returncode == 0, answer.stdout
        return answer.stdout

    def start(self) -> None:
        """Start the embedded AWS and learn its environment."""
        directory = self.folder / "aws"
        options = ["--directory", str(directory), "--job-python", str(self.job_python), "--until-stdin-ends"]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "embedded_aws", "serve", *options],
            cwd=ROOT, env=self.environment, stdin=subprocess.PIPE,  # it ends with this process
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not (directory / "server.json").exists():
            assert self.server.poll() is None, "the embedded AWS ended"
            assert time.monotonic() < deadline, "the embedded AWS did not start"
            time.sleep(0.1)
        text = self.python("embedded_aws", "environment", "--directory", str(directory))
        lines = [
            line.removeprefix("export ").partition("=") for line in text.splitlines() if line.startswith("export ")
        ]
        self.variables = {key: value.strip("'\"") for key, _, value in lines}

    def client(self, service: str) -> Any:
        """A boto3 client of the embedded AWS."""
        return boto3.client(
            service,
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            region_name=self.variables["AWS_REGION"],
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
        )

    def workers(self) -> list[psutil.Process]:
        """The processes that the embedded AWS started and that still run."""
        if self.server is None or self.server.poll() is not None:
            return []
        return psutil.Process(self.server.pid).children(recursive=True)

    def stop(self) -> None:
        """Stop the embedded AWS; its workers end with it."""
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            self.server.wait(timeout=60)


def copy_example(folder: Path) -> None:
    """The example of a model of one's own, as a user would copy it into a project."""
    source = ROOT / "examples" / "own-model"
    for part in ("models", "endpoints"):
        shutil.copytree(source / part, folder / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
