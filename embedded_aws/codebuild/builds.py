"""The life of a build: sources from S3, the commands of the buildspec, a log in CloudWatch Logs.

Sources: "Build specification reference for CodeBuild",
https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html (version 0.2, exported-variables; what
carries over between commands: `_script`); https://docs.aws.amazon.com/codebuild/latest/APIReference/API_Build.html
Of a buildspec only what images/buildspec.yml has is honoured; anything else ends the build with a line that says so.
"""

from __future__ import annotations

import io
import logging
import shlex
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from endpoint_spec.archives import ArchiveError, ZipReader

from ..control.clock import now
from ..host import Host
from ..hosting.logs import LogShipper
from ..keys import session
from ..process.group import ProcessGroup, basics, write_program
from .rights import DeniedError, Rights

log = logging.getLogger(__name__)
PROJECT = Path(__file__).parents[2]
POLL_SECONDS = 0.1
RUNNING = "IN_PROGRESS"
ENV = {"shell", "exported-variables"}
INHERITED = ("LANG", "LC_ALL", "TZ", "HOME", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE")


class BuildError(Exception):
    """The build failed before its commands; the text is its only line."""


class Build:
    """One build. `status` is BatchGetBuilds' buildStatus."""

    def __init__(self, host: Host, region: str, project: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        self.host, self.region, self.project, self.variables = host, region, project, dict(variables)
        self.stream = str(uuid.uuid4())
        self.id = f"{project['name']}:{self.stream}"
        self.session = f"AWSCodeBuild-{self.stream}"
        self.denied: list[dict[str, Any]] = []  # phases, as API_BuildPhase has them
        self.status = RUNNING
        self.exported: dict[str, str] = {}
        self.started = now()
        self.ended: datetime | None = None
        self.group = project["logsConfig"]["cloudWatchLogs"]["groupName"]
        self._logs = LogShipper(host.clients, region, self.group, self.stream)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"build {self.id}", daemon=True)

    def start(self) -> None:
        """Run in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End it; returns when nothing of it is left."""
        self._stopping.set()
        self._thread.join(30)

    def described(self) -> dict[str, Any]:
        """A member of BatchGetBuilds' builds."""
        pairs = [{"name": name, "value": value} for name, value in self.exported.items()]
        return {
            "id": self.id,
            "arn": f"arn:aws:codebuild:{self.region}:{self.host.account}:build/{self.id}",
            "projectName": self.project["name"],
            "buildStatus": self.status,
            "buildComplete": self.ended is not None,
            "startTime": self.started,
            "endTime": self.ended,
            "phases": self.denied,
            "logs": {"groupName": self.group, "streamName": self.stream},
            "exportedEnvironmentVariables": pairs,
        }

    def _run(self) -> None:
        folder, status = self.host.directory / "builds" / self.stream, "FAULT"
        try:
            folder.mkdir(parents=True)
            status = self._work(folder)
        except DeniedError as error:  # CodeBuild itself is refused, before there is a log
            contexts = [{"statusCode": "ACCESS_DENIED", "message": str(error)}]
            self.denied = [{"phaseType": "DOWNLOAD_SOURCE", "phaseStatus": "FAILED", "contexts": contexts}]
            status = "FAILED"
        except BuildError as error:
            self._logs.follow(io.StringIO(f"{error}\n"))  # no process has begun, whose output it follows
            status = "FAILED"
        except Exception:
            log.exception("build %s", self.id)
        finally:
            self._logs.shipped(10)
            shutil.rmtree(folder, ignore_errors=True)
            self.status, self.ended = status, now()

    def _work(self, folder: Path) -> str:
        sources = folder / "sources"
        bucket, _, key = self.project["source"]["location"].partition("/")
        iam = self.host.clients.client("iam", self.region)
        rights = Rights(iam, str(self.project["serviceRole"]), self.session)
        rights.check("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            rights.check(action, f"arn:aws:logs:{self.region}:{self.host.account}:log-group:{self.group}:*")
        self.host.clients.client("s3", self.region).download_file(bucket, key, str(folder / "sources.zip"))
        _unpack(folder / "sources.zip", sources)
        commands, exported = _commands(sources / self.project["source"]["buildspec"])
        script, kept = _script(folder, commands, exported)
        process = ProcessGroup(["bash", str(script)], sources, self._environment(folder))
        self._logs.follow(process.output)
        deadline = time.monotonic() + self.host.clock.limit(60.0 * self.project["timeoutInMinutes"])
        try:
            while (code := process.wait(POLL_SECONDS)) is None:
                if self._stopping.is_set():
                    return "STOPPED"
                if time.monotonic() > deadline:
                    return "TIMED_OUT"
        finally:
            process.end(0)
        if code:
            return "FAILED"
        self.exported = dict(line.split("=", 1) for line in kept.read_text().splitlines())
        return "SUCCEEDED"

    def _environment(self, folder: Path) -> dict[str, str]:
        """The variables of the build and its role's session; docker and aws are stand-ins."""
        programs = folder / "bin"
        programs.mkdir()
        for name in ("docker", "aws"):
            run = f"PYTHONPATH={shlex.quote(str(PROJECT))} exec {shlex.quote(sys.executable)} -m {__package__}.docker"
            write_program(programs / name, f'{run} {name} "$@"')
        role = session(self.host.account, str(self.project["serviceRole"]), self.session, self.region)
        return {
            **basics(programs, INHERITED),
            "STAND_IN": str(folder / "images"),
            "SERVICE_ROLE": str(self.project["serviceRole"]),
            "SESSION": self.session,
            "BASE_PYTHON": str(self.host.programs / "python3"),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.host.clients.url,
            "AWS_ACCESS_KEY_ID": role.access_key_id,
            "AWS_SECRET_ACCESS_KEY": role.secret_access_key,
            "AWS_SESSION_TOKEN": role.session_token,
            **self.variables,
        }


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with ZipReader(archive) as opened:
            for name in opened.names():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(opened.read(name))
    except ArchiveError as error:
        raise BuildError(f"the sources cannot be unpacked: {error}") from None


def _script(folder: Path, commands: Sequence[str], exported: Sequence[str]) -> tuple[Path, Path]:
    """A program that runs the commands, and the file of lines NAME=VALUE that it leaves.

    Each has a shell of its own, and of the one before the variables that it exported and its folder: that functions
    and options of the shell carry over too is not documented.
    """
    script, state, kept = folder / "commands", folder / "state", folder / "exported"
    state.touch()
    each = [f". {state}\n{command}\n{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} >{state}" for command in commands]
    ends = [f"printf '%s\\n' {name}=\"${name}\" >>{kept}" for name in exported]
    lines = [f"bash -e -c {shlex.quote(text)}" for text in each]
    script.write_text("\n".join(["set -e", *lines, f". {state}", *ends]) + "\n")
    return script, kept


def _commands(path: Path) -> tuple[list[str], list[str]]:
    """The build's commands, and the names of the variables that it exports."""
    if not path.is_file():
        raise BuildError(f"{path.name} is not among the sources")
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = [(read, {"version", "env", "phases"}), (read["phases"], {"build"}), (read["env"], ENV)]
    extra = sorted(key for part, keys in known for key in part.keys() - keys)
    if extra or read["version"] != 0.2:
        raise BuildError(f"the embedded AWS does not honour {', '.join(extra) or 'this version'} in a buildspec")
    return list(read["phases"]["build"]["commands"]), list(read["env"]["exported-variables"])
