"""One compile job: `python -m compile.portable.job INDEX INPUTS OUTPUTS`, in a container or on an EC2 instance.

INPUTS holds project/ (a bundle: plan.json, graph/, trials.safetensors, code/) and, where the image has no compiler,
wheels/ with requirements.txt. It compiles variant INDEX of the plan into OUTPUTS/variant/variant.tar; OUTPUTS/record
keeps the log, also of a failure. No network, no other place than these and a scratch folder beside OUTPUTS. What goes
wrong is one line on stderr and in the file INFERENTIA_MESSAGE_FILE, SageMaker's ExitMessage. Standard library alone;
the driver, in a process of its own, needs torch and the compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compile.portable import diagnosis, kept
from compile.portable.process import LOG, REQUEST, RESULT, watch

MESSAGE_FILE = "/opt/ml/output/message"
_MESSAGE_BYTES = 1000  # SageMaker's ExitMessage takes 1024
_SHOWN = 4000  # of a message, in the log
_STOPPED = 143  # as a shell reports SIGTERM


class JobError(Exception):
    """Why a job fails: one line."""


class _Stopped(BaseException):
    """SIGTERM or SIGINT."""


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 compiled, 1 failed, 2 wrong use, 143 stopped."""
    if len(arguments) != 3 or not arguments[0].isdigit():
        print("usage: python -m compile.portable.job INDEX INPUTS OUTPUTS", file=sys.stderr)  # noqa: T201
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        run(int(arguments[0]), Path(arguments[1]).resolve(), Path(arguments[2]).resolve())
    except JobError as error:
        return _failed(1, str(error))
    except OSError as error:
        return _failed(1, f"{error.filename or 'a file'}: {error.strerror or error}")
    except _Stopped:
        return _failed(_STOPPED, "The job was stopped.")
    return 0


def _stop(*_: Any) -> None:
    raise _Stopped


def run(index: int, inputs: Path, outputs: Path) -> None:
    """Compiles one variant. Raises JobError."""
    bundle = inputs / "project"
    plan = _checked(bundle)
    if index >= len(plan["variants"]):
        raise JobError(f"The plan has {len(plan['variants'])} variants, there is none with the index {index}.")
    variant = plan["variants"][index]
    record = outputs / "record" / variant["slug"]
    (record / "compiler").mkdir(parents=True, exist_ok=True)
    # Beside the outputs, because that disk is the one whose size the spec chose.
    with tempfile.TemporaryDirectory(dir=outputs.parent, prefix="scratch-") as scratch:
        environment = {**os.environ, **_wheels(inputs / "wheels", Path(scratch) / "wheels")}
        work = Path(scratch) / "work"
        work.mkdir()
        request = {
            **variant["request"],
            "graph": str(bundle / "graph"),
            "variant": index,
            "workdir": str(record / "compiler"),
            "trial_file": str(bundle / "trials.safetensors"),
        }
        (work / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        try:
            code, timed_out, cost = watch(sys.executable, work, record / LOG, plan["timeout"], environment, _show)
        finally:
            for name in (REQUEST, RESULT):
                if (work / name).is_file():
                    shutil.copy(work / name, record / name)
        text = (record / LOG).read_text(encoding="utf-8", errors="replace")
        found = diagnosis.first(text)  # a compiler may fall back to the host, and end well
        if code != 0 or not (work / RESULT).is_file():
            found = diagnosis.ended(text, code, timed_out, f"{plan['timeout']:g} s", cost)
        if found is not None:
            cause = str(found).removeprefix(f"{variant['label']}: ")
            raise JobError(f"{variant['label']}: {cause} {found.remedy}")
        shutil.copy(record / LOG, work / LOG)
        kept.pack(work, kept.OF_COMPILED, variant["key"], outputs / "variant" / "variant.tar")
    print(f"{variant['label']}: compiled in {cost.seconds:.1f} s, key {variant['key']}", flush=True)  # noqa: T201


def _checked(bundle: Path) -> dict[str, Any]:
    """The plan, after every file of the bundle was found with the sha256 that it states."""
    try:
        plan: dict[str, Any] = json.loads((bundle / "plan.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"plan.json of the bundle cannot be read: {error}. Submit again.") from None
    for name, digest in sorted(plan["files"].items()):
        try:
            found = kept.file_digest(bundle / name)
        except OSError:
            raise JobError(f"{name} of the bundle is missing. Submit again.") from None
        if found != digest:
            raise JobError(f"{name} of the bundle has sha256 {found}, plan.json says {digest}. Submit again.")
    return plan


def _wheels(folder: Path, to: Path) -> dict[str, str]:
    """Installs the wheels that came along into a folder of their own: what the image has stays as it is. Returns what
    the environment has to name."""
    requirements = folder / "requirements.txt"
    lines = requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else []
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        return {}
    quiet = ["--quiet", "--no-warn-script-location", "--disable-pip-version-check"]
    fixed = ["--no-index", "--no-deps", "--require-hashes", "--find-links", str(folder), "--target", str(to)]
    command = [sys.executable, "-m", "pip", "install", *quiet, *fixed, "-r", str(requirements)]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:  # noqa: S603  (arguments as a list)
        raise JobError("The wheels cannot be installed; pip's own words are in the log.")
    path = os.pathsep.join(filter(None, [str(to), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "PATH": os.pathsep.join([str(to / "bin"), os.environ.get("PATH", os.defpath)])}


def _show(text: bytes) -> None:
    """What is new in the compiler's log: in a job there is nobody beside it to open the file."""
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def _failed(code: int, text: str) -> int:
    line = " ".join(text.replace("->", "").split())
    print(f"error: {line[:_SHOWN]}", file=sys.stderr)  # noqa: T201
    file = Path(os.environ.get("INFERENTIA_MESSAGE_FILE") or MESSAGE_FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line.encode()[:_MESSAGE_BYTES].decode(errors="ignore") + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
