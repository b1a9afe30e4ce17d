"""The wheels that a job installs beside its image: a folder with requirements.txt (hashes) and each wheel of it.

`download` makes such a folder with the user's own pip: the compiler where the image may lack it, by its version;
`download_for_image` one of what the native server's image installs. `keep` brings a folder to the artifact bucket for
good, under the sha256 of its requirements.txt, and `fetch` back from there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from endpoint_spec import built_images
from endpoint_spec.digests import file_digest
from endpoint_spec.jobs import KEPT_WHEELS, REQUIREMENTS, kept_wheels_prefix
from endpoint_spec.platforms import Image

from ..account import Account
from ..errors import OperationError, WrongUseError
from .content import Folder, stored, upload

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One requirement: its normalized name, its version, and the digests of wheels that it accepts."""

    name: str
    version: str
    hashes: frozenset[str]


def normalized(name: str) -> str:
    """A project's name as wheels and requirements may both spell it (PyPA, names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str, where: str) -> list[Pin]:
    """The requirements of a file such as pip-compile writes it.

    Raises:
        WrongUseError: naming a line that pins no exact version or carries no sha256.
    """
    return [_pin(line, where) for line in _logical_lines(text)]


def _logical_lines(text: str) -> Iterator[str]:
    joined = re.sub(r"\\\s*\n", " ", text)
    for line in joined.splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text:
            yield text


def _pin(line: str, where: str) -> Pin:
    found, hashes = _PIN.match(line), frozenset(_HASH.findall(line))
    if found is None or not hashes:
        raise WrongUseError(
            f"{where}: {line.split(' ', maxsplit=1)[0]} is not pinned with NAME==VERSION and --hash=sha256:..., "
            "so a job could not check what it installs. Make the folder with: inferentia wheels DIR"
        )
    return Pin(normalized(found.group(1)), found.group(2), hashes)


def read(folder: Path) -> Folder:
    """A folder of wheels, checked: every requirement has its wheel, every wheel is named and has the named sha256.

    Raises:
        WrongUseError: a folder that is no such set, naming what is wrong.
    """
    file = folder / REQUIREMENTS
    if not file.is_file():
        raise WrongUseError(
            f"{folder} holds no {REQUIREMENTS}: it is no set of wheels. Make one: inferentia wheels {folder}"
        )
    named = pins(file.read_text(encoding="utf-8"), str(file))
    wheels = {path.name: file_digest(path) for path in sorted(folder.glob("*.whl"))}
    problems = [f"{pin.name}=={pin.version} has no wheel here" for pin in named if not _found(pin, wheels)]
    accepted = {(pin.name, digest) for pin in named for digest in pin.hashes}
    problems += [
        f"{wheel} has sha256 {digest}, which {REQUIREMENTS} does not name"
        for wheel, digest in wheels.items()
        if (normalized(wheel.split("-")[0]), digest) not in accepted
    ]
    if problems:
        raise WrongUseError(f"{folder} cannot be installed as it is:\n  " + "\n  ".join(problems))
    return Folder(folder, {**wheels, REQUIREMENTS: file_digest(file)}, last=REQUIREMENTS)


def _found(pin: Pin, wheels: dict[str, str]) -> bool:
    return any(normalized(wheel.split("-")[0]) == pin.name and digest in pin.hashes for wheel, digest in wheels.items())


def write_requirements(folder: Path) -> int:
    """Write requirements.txt for the wheels of a folder, each with its own sha256; return how many there are.

    Raises:
        OperationError: where the folder holds something that is no wheel.
    """
    wheels = sorted(folder.glob("*.whl"))
    others = sorted(path.name for path in folder.iterdir() if path.suffix != ".whl" and path.name != REQUIREMENTS)
    if others:
        raise OperationError(f"{folder} holds what is no wheel: {', '.join(others)}. Take it away.")
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{normalized(name)}=={version} --hash=sha256:{file_digest(wheel)}\n")
    part = folder / f".{REQUIREMENTS}.part"
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(folder / REQUIREMENTS)
    return len(wheels)


def chosen(folder: Path | None, scratch: Path) -> Folder:
    """The set that a submission uses: the one named, or an empty one, made in `scratch`.

    Raises:
        WrongUseError: a folder that is no such set.
    """
    if folder is not None:
        return read(folder)
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / REQUIREMENTS).write_text("# nothing: the compiler is the machine's own\n", encoding="utf-8")
    return read(scratch)


# What compiles where the target's image may lack it. AWS's Dockerfiles (github.com/aws-neuron/deep-learning-containers,
# docker/pytorch/inference) install neuron-cc 1.24.0.0 for Inf1 without the extra that torch-neuron's installation guide
# asks for where models are traced, and neuronx-cc for Inf2. No image was looked into.
COMPILERS = {"inf1": ("neuron-cc[tensorflow]==1.24.0.0",), "inf2": ()}


def download(image: Image, folder: Path, packages: Sequence[str]) -> int:
    """Fill an empty folder with the wheels of the compiler of an image's target, for its Python and glibc, and their
    requirements.txt; return their number.

    packages: further requirements. No hash of ours covers any: what pip's configuration leads to is taken, with its
    dependencies, and its hash is written down, so that every job installs that very file.

    Raises:
        WrongUseError: a folder that is not empty, or nothing to download.
        OperationError: what pip reported.
    """
    wanted = [*COMPILERS[image.target], *packages]
    if not wanted:
        raise WrongUseError(
            f"the image of {image.target} holds its compiler: there is nothing to download. Submit without --wheels, "
            "or name what a job needs besides with --package."
        )
    with _new(folder) as part:
        _pip(image, part, *wanted)
        write_requirements(part)
        return len(read(part).files) - 1


def download_for_image(image: Image, folder: Path) -> int:
    """The same of what the native server's image installs; requirements.txt is the image's own lock."""
    with _new(folder) as part:
        lock = part.with_name(REQUIREMENTS)
        lock.write_text(built_images.requirements(image), encoding="utf-8")
        _pip(image, part, "--no-deps", "--require-hashes", "-r", str(lock))
        lock.replace(part / REQUIREMENTS)
        return len(read(part).files) - 1


def keep(account: Account, folder: Path) -> str:
    """Bring a set to the artifact bucket, where it stays; return its address. Raises as `read` and `upload` do."""
    bucket, prefix = account.artifact_bucket, kept_wheels_prefix((folder / REQUIREMENTS).read_text(encoding="utf-8"))
    upload(account, bucket, prefix, read(folder))
    return f"s3://{bucket}/{prefix}"


def fetch(account: Account, digest: str, folder: Path) -> int:
    """Bring a kept set into an empty folder, checked; return the number of its wheels.

    digest: the last part of its address, or how that begins.

    Raises:
        WrongUseError: a folder that is not empty, or a digest of no set or of several.
        OperationError: where the set is not what its requirements.txt says.
    """
    bucket = account.artifact_bucket
    kept = stored(account, bucket, KEPT_WHEELS)
    sets = {key.partition("/")[0] for key in kept}
    found = [one for one in sets if digest and one.startswith(digest)]
    if len(found) != 1:
        raise WrongUseError(
            f"--from {digest} names {len(found)} sets of s3://{bucket}/{KEPT_WHEELS}, which has: "
            f"{', '.join(sorted(sets)) or 'none'}."
        )
    with _new(folder) as part:
        for key in kept:
            if key.startswith(f"{found[0]}/"):
                account.s3.download_file(bucket, KEPT_WHEELS + key, str(part / key.rpartition("/")[2]))
        try:
            wheels = read(part)
            requirements = (part / REQUIREMENTS).read_text(encoding="utf-8")
        except WrongUseError as error:
            raise OperationError(f"s3://{bucket}/{KEPT_WHEELS}{found[0]}/ is not what was kept: {error}") from None
        if kept_wheels_prefix(requirements) != f"{KEPT_WHEELS}{found[0]}/":
            raise OperationError(f"s3://{bucket}/{KEPT_WHEELS}{found[0]}/{REQUIREMENTS} is not what was kept.")
        return len(wheels.files) - 1


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of an empty or missing one when the block ends well."""
    if folder.is_dir() and any(folder.iterdir()):
        raise WrongUseError(f"{folder} is not empty. Name a folder that is, or that does not exist.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = Path(scratch) / "wheels"
        part.mkdir()
        yield part
        if folder.is_dir():
            folder.rmdir()
        part.replace(folder)


def _pip(image: Image, folder: Path, *wanted: str) -> None:
    minor = int(image.glibc.removeprefix("2."))  # PEP 600: a wheel for an older glibc runs on a newer one
    platforms = [f"manylinux_2_{older}_x86_64" for older in range(minor, 16, -1)]
    tags = [word for tag in (*platforms, "manylinux2014_x86_64", "linux_x86_64") for word in ("--platform", tag)]
    fixed = ["--only-binary=:all:", "--python-version", image.python, "--implementation", "cp", *tags]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *fixed]
    command += ["--dest", str(folder), *wanted]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode != 0:
        last = "\n".join(line for line in ended.stderr.strip().splitlines() if not line.startswith("WARNING"))[-1500:]
        raise OperationError(f"pip download of {' '.join(wanted)} failed:\n{last}")
