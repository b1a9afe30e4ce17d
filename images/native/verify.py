"""Start a command on an artifact only if the artifact is the one that was proven. The standard library alone.

    python3 -I verify.py --model-dir /opt/ml/model -- python3 -m inference_code.server --model-dir /opt/ml/model ...

ENDPOINT_MANIFEST_SHA256 is the lock's digest of manifest.json; the endpoint's configuration has it, the artifact has
not. The manifest has the digest of every other file. Before any code of the artifact runs, all of them are compared;
a file that the manifest lacks is refused too, since Python might import it. Then the command takes this process's
place, with the artifact's code/ as its PYTHONPATH, and leaves no bytecode beside it.

Exit code 1 with one line on stderr: refused. 2: started in a wrong way.
"""

from __future__ import annotations

import sys

if not sys.flags.isolated:  # before the imports below, which PYTHONPATH could lead into the artifact
    sys.exit("verify.py must be started with `python3 -I`, so that nothing of the artifact is imported")

import argparse
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

VARIABLE, MANIFEST = "ENDPOINT_MANIFEST_SHA256", "manifest.json"


class RefusedError(Exception):
    """The artifact is not the one that was proven; the text says how."""


def verify(model_dir: Path, expected: str) -> None:
    """Compare the unpacked artifact with its manifest, and that with its digest. Raises RefusedError, OSError."""
    content = (model_dir / MANIFEST).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise RefusedError(
            f"{MANIFEST} has the sha256 {found}, {VARIABLE} is {expected or 'not set'}: "
            "another artifact than the lock's lies under its key"
        )
    files: dict[str, str] = json.loads(content)["files"]
    there = set(_files(model_dir, ""))
    for what, names in (("not in the manifest", there - {*files, MANIFEST}), ("not there", files.keys() - there)):
        if names:
            raise RefusedError(f"{min(names)} is {what}")
    for name, digest in sorted(files.items()):
        found = _sha256(model_dir / name)
        if found != digest:
            raise RefusedError(f"{name} has the sha256 {found}, the manifest says {digest}")


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """Every file by its path in the artifact. Raises RefusedError for what is neither a file nor a folder."""
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
        elif stat.S_ISREG(mode):
            yield f"{prefix}{entry.name}"
        else:
            raise RefusedError(f"{prefix}{entry.name} is neither a file nor a folder")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main() -> None:
    """Verify, then become the command."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Run COMMAND on an artifact that was verified.")
    parser.add_argument("--model-dir", type=Path, required=True, metavar="DIR", help="the folder of manifest.json")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    options = parser.parse_args()
    try:
        verify(options.model_dir, os.environ.get(VARIABLE, ""))
    except (RefusedError, OSError, ValueError, KeyError) as error:
        sys.exit(f"The artifact in {options.model_dir} is refused: {error}")
    code = {"PYTHONPATH": str(options.model_dir / "code"), "PYTHONDONTWRITEBYTECODE": "1"}
    os.execvpe(options.command[0], options.command, {**os.environ, **code})  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
