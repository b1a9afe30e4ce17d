"""Sets of wheels: checked before anything is uploaded, written with the digests of what is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from endpoint_spec import built_images
from endpoint_spec.jobs import REQUIREMENTS, files_digest, kept_wheels_prefix
from endpoint_spec.platforms import image
from operations.errors import OperationError, WrongUseError
from operations.jobs import wheels

Run = Callable[..., tuple[int, str, str]]
WHEEL = "safe_tensors-0.8.0-cp38-abi3-manylinux_2_17_x86_64.whl"
BODY = b"a wheel, as far as a digest can tell"
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One wheel, spelled as wheels are, and its requirement, spelled as people do."""
    tmp_path /= "wheels"
    tmp_path.mkdir()
    (tmp_path / WHEEL).write_bytes(BODY)
    (tmp_path / REQUIREMENTS).write_text(
        "# comment\nSafe.Tensors==0.8.0 \\\n"
        f"    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{DIGEST}  # of the wheel\n"
    )
    return tmp_path


def test_a_whole_set_is_named_by_its_content(folder: Path) -> None:
    found = wheels.read(folder)
    assert found.files.keys() == {WHEEL, REQUIREMENTS}
    assert found.digest == files_digest(found.files)
    assert found.last == REQUIREMENTS


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / WHEEL).write_bytes(b"other"), "does not name"),
        (lambda folder: (folder / WHEEL).unlink(), "safe-tensors==0.8.0 has no wheel here"),
        (
            lambda folder: (folder / "more-1.0-py3-none-any.whl").write_bytes(BODY),
            "more-1.0-py3-none-any.whl has sha256",
        ),
        (lambda folder: (folder / REQUIREMENTS).unlink(), "holds no requirements.txt"),
        (lambda folder: (folder / REQUIREMENTS).write_text("safe-tensors>=0.8\n"), "safe-tensors>=0.8 is not pinned"),
        (
            lambda folder: (folder / REQUIREMENTS).write_text("safe-tensors==0.8.0\n"),
            "is not pinned with NAME==VERSION",
        ),
        (lambda folder: (folder / REQUIREMENTS).write_text("--index-url x\n"), "--index-url is not pinned"),
    ],
    ids=["changed", "missing", "unnamed", "no list", "a range", "no hash", "an option"],
)
def test_what_a_job_could_not_install_is_refused_here(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(WrongUseError, match=said):
        wheels.read(folder)


def test_written_requirements_read_back(folder: Path) -> None:
    (folder / REQUIREMENTS).unlink()
    assert wheels.write_requirements(folder) == 1
    assert wheels.read(folder).files[WHEEL] == DIGEST
    (folder / "sources-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(OperationError, match=r"sources-1\.0\.tar\.gz"):
        wheels.write_requirements(folder)


def test_a_folder_that_holds_something_is_not_used(folder: Path, run: Run) -> None:
    code, _, err = run("wheels", str(folder))
    assert code == 2
    assert "is not empty" in err


def test_pip_is_asked_for_wheels_of_the_image(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    compiler = "neuron_cc-1.24.0.0+d58fa6134-cp310-cp310-linux_x86_64.whl"

    def fake(command: list[str], **_: object) -> object:
        asked.append(command)
        for name in (compiler, WHEEL):
            (Path(command[command.index("--dest") + 1]) / name).write_bytes(BODY)
        return wheels.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", fake)
    code, out, err = run("wheels", str(tmp_path / "set"), "--package", "more==1.0", "--json")
    assert code == 0, err
    (command,) = asked
    assert {"--only-binary=:all:", "3.10"} <= set(command)
    assert command[-2:] == ["neuron-cc[tensorflow]==1.24.0.0", "more==1.0"]
    assert json.loads(out)["wheels"] == 2
    written = (tmp_path / "set" / REQUIREMENTS).read_text()
    assert f"neuron-cc==1.24.0.0+d58fa6134 --hash=sha256:{DIGEST}\n" in written
    assert wheels.read(tmp_path / "set").files.keys() == {compiler, WHEEL, REQUIREMENTS}


def test_an_image_that_holds_its_compiler_needs_no_wheels(tmp_path: Path, run: Run) -> None:
    code, _, err = run("wheels", str(tmp_path / "set"), "--target", "inf2")
    assert code == 2
    assert "the image of inf2 holds its compiler" in err
    assert not (tmp_path / "set").exists()


def test_pips_own_words(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(command: list[str], **_: object) -> object:
        return wheels.subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no matching distribution\n")

    monkeypatch.setattr(wheels.subprocess, "run", fake)
    code, _, err = run("wheels", str(tmp_path / "set"))
    assert code == 1
    assert "ERROR: no matching distribution" in err
    assert not (tmp_path / "set").exists()


def test_a_kept_set_comes_back_whole_or_not_at_all(folder: Path, tmp_path: Path, run: Run, bucket: str) -> None:
    code, out, err = run("wheels", str(folder), "--keep", "--json")  # holds a set: nothing is downloaded
    assert code == 0, err
    prefix = kept_wheels_prefix((folder / REQUIREMENTS).read_text())
    assert json.loads(out)["kept"] == f"s3://{bucket}/{prefix}"
    digest = prefix.split("/")[1]
    assert run("wheels", str(tmp_path / "new" / "set"), "--from", digest[:8])[0] == 0
    assert wheels.read(tmp_path / "new" / "set").files == wheels.read(folder).files
    code, _, err = run("wheels", str(tmp_path / "other"), "--from", "xyz")
    assert (code, f"which has: {digest}" in err) == (2, True)
    boto3.client("s3").put_object(Bucket=bucket, Key=prefix + WHEEL, Body=b"other")
    code, _, err = run("wheels", str(tmp_path / "other"), "--from", digest)
    assert (code, f"{WHEEL} has sha256" in err) == (1, True)
    assert not (tmp_path / "other").exists()


def test_an_images_wheels_are_those_of_its_lock(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(command: list[str], **_: object) -> object:
        asked.extend([*command, Path(command[-1]).read_text()])
        return wheels.subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

    monkeypatch.setattr(wheels.subprocess, "run", fake)
    code, _, err = run("wheels", str(tmp_path / "set"), "--image")
    assert (code, "no network" in err) == (1, True)
    assert "--require-hashes" in asked
    assert asked[-1] == built_images.requirements(image("inf1", "native"))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("more", [("--from", "0", "--keep"), ("--image", "--package", "x==1")])
def test_what_cannot_be_meant_together(tmp_path: Path, run: Run, more: tuple[str, ...]) -> None:
    code, _, err = run("wheels", str(tmp_path / "set"), *more)
    assert (code, "say it without" in err) == (2, True)
