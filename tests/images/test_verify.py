"""images/native/verify.py: an artifact that is not the proven one is refused before any code of it runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

VERIFY = Path(__file__).parents[2] / "images" / "native" / "verify.py"
RUNS = "import pathlib, sys; pathlib.Path(sys.argv[1], 'ran').touch()\n"


def write_manifest(model: Path) -> str:
    """A manifest of every file that is there; returns its sha256."""
    files = {
        path.relative_to(model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    (model / "manifest.json").write_text(json.dumps({"files": files}))
    return hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact whose module `server` leaves a file where it ran."""
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "server.py").write_text(RUNS)
    (folder / "graphs").mkdir()
    (folder / "graphs" / "main.pt").write_bytes(b"graph")
    return folder


def start(model: Path, digest: str | None, *flags: str, **more: str) -> tuple[int, str, bool]:
    """Exit code, standard error, and whether code of the artifact ran."""
    environment = {**os.environ, **more} | ({} if digest is None else {"ENDPOINT_MANIFEST_SHA256": digest})
    command = [sys.executable, *(flags or ("-I",)), str(VERIFY), "--model-dir", str(model), "--"]
    command += [sys.executable, "-m", "server", str(model.parent)]
    done = subprocess.run(command, env=environment, cwd=model / "code", capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (model.parent / "ran").exists()


def test_the_proven_artifact_runs_and_runs_again(model: Path) -> None:
    digest = write_manifest(model)
    for _ in range(2):  # nothing is left in the folder that the manifest lacks
        assert start(model, digest) == (0, "", True)


def test_handler_and_manifest_replaced_together_are_refused(model: Path) -> None:
    digest = write_manifest(model)
    (model / "code" / "server.py").write_text(RUNS + "# another handler\n")
    other = write_manifest(model)
    code, said, ran = start(model, digest)
    assert (code, ran, said.count("\n")) == (1, False, 1)
    assert f"manifest.json has the sha256 {other}, ENDPOINT_MANIFEST_SHA256 is {digest}" in said


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed graph": (
        lambda model: (model / "graphs/main.pt").write_bytes(b"other"),
        "graphs/main.pt has the sha256",
    ),
    "a lost file": (lambda model: (model / "graphs/main.pt").unlink(), "graphs/main.pt is not there"),
    "one module more": (lambda model: (model / "code/json.py").touch(), "code/json.py is not in the manifest"),
    "a link": (lambda model: (model / "code/torch").symlink_to("/tmp"), "code/torch is neither a file nor a folder"),
    "no manifest": (lambda model: (model / "manifest.json").unlink(), "No such file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_manifest_does_not_say_is_refused(model: Path, change: str) -> None:
    digest = write_manifest(model)
    do, words = CHANGES[change]
    do(model)
    code, said, ran = start(model, digest)
    assert (code, ran) == (1, False)
    assert words in said


def test_a_manifest_that_is_none_and_a_digest_that_is_not_given_are_refused(model: Path) -> None:
    digest = write_manifest(model)
    assert "is not set" in start(model, None)[1]
    (model / "manifest.json").write_text("{}")
    code, said, ran = start(model, hashlib.sha256(b"{}").hexdigest())
    assert (code, said.count("\n"), ran) == (1, 1, False)
    assert digest


def test_modules_of_the_artifact_are_not_imported_by_the_check(model: Path) -> None:
    """PYTHONPATH leads into the artifact: the check ignores it, or does not start."""
    (model / "code" / "hashlib.py").write_text(f"open({str(model.parent / 'ran')!r}, 'w')\n")
    (model / "code" / "sitecustomize.py").write_text(f"open({str(model.parent / 'ran')!r}, 'w')\n")
    code, said, ran = start(model, "0" * 64, PYTHONPATH=str(model / "code"))
    assert (code, ran) == (1, False)
    assert "is refused" in said
    code, said, _ = start(model, "0" * 64, "-B")
    assert (code, "python3 -I" in said) == (1, True)
