"""images/native/Dockerfile as a builder of containers reads it: buildah on a Debian root with stand-ins for torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from endpoint_spec import platforms
from operations.jobs import wheels

pytestmark = pytest.mark.slow
NATIVE = Path(__file__).parents[2] / "images" / "native"
IMAGE = next(row for row in platforms.images() if (row.target, row.registry) == ("inf1", "own"))
PACKAGES = "python3,python3-pip"
Run = Callable[..., subprocess.CompletedProcess[str]]


def needed(command: list[str | Path]) -> None:
    """Run it; without what it needs from outside, the tests are skipped loudly."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"SKIPPED, the Dockerfile is NOT built: {command[0]}: {(done.stdout + done.stderr)[-500:]}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with a root of Debian bookworm: its Python 3.11, and torch and numpy by name alone."""
    missing = [name for name in ("debootstrap", "buildah") if shutil.which(name) is None]
    if missing or os.geteuid():
        pytest.skip(f"SKIPPED, the Dockerfile is NOT built: missing are root or {missing}")
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    needed(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root])
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()  # as in images of Python, pip is not Debian's here
    for name, text in (("torch", f"__version__ = '{IMAGE.torch}'\n"), ("numpy", "")):
        (root / "usr/lib/python3/dist-packages" / f"{name}.py").write_text(text)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
    return folder


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run buildah on a store of its own, without namespaces."""
    store = tmp_path_factory.mktemp("store")
    first = ["buildah", "--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", "vfs"]

    def run(command: str, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*first, command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    yield run
    run("rm", "--all")
    run("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def built(base: Path, buildah: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A container of the image, its packages from kept wheels."""
    context = tmp_path_factory.mktemp("context") / "native"
    shutil.copytree(NATIVE, context, ignore=shutil.ignore_patterns("torch-*", "__pycache__"))
    lock = context / "requirements-py311.txt"
    shutil.copyfile(NATIVE / "requirements-py310.txt", lock)  # its hashes are those of every Python's wheels
    (context / "wheels").mkdir()
    image = IMAGE.model_copy(update={"python": "3.11", "glibc": "2.36"})
    try:
        wheels._pip(image, context / "wheels", "--no-deps", "--require-hashes", "-r", str(lock))
    except wheels.OperationError as error:
        pytest.skip(f"SKIPPED, the Dockerfile is NOT built: {error}")
    buildah("build", "--isolation", "chroot", "--tag", "base", base)
    given = {"BASE": "localhost/base", "PYTHON": "3.11", "TORCH": IMAGE.torch}
    flags = [f"--build-arg={name}={value}" for name, value in given.items()]
    buildah("build", "--isolation", "chroot", *flags, "--tag", "native", context)
    return buildah("from", "native").stdout.strip()


def test_the_image_starts_through_its_entrypoint_as_root(built: str, buildah: Run) -> None:
    config = json.loads(buildah("inspect", "--type", "image", "native").stdout)["OCIv1"]["config"]
    assert config["Entrypoint"] == ["sh", "/opt/inferentia/entrypoint.sh"]
    assert (config["User"], config.get("Cmd")) == ("0", None)
    start = ("--isolation", "chroot", "--env", f"ENDPOINT_MANIFEST_SHA256={'0' * 64}", built, *config["Entrypoint"])
    assert "/opt/ml/model" in buildah("run", *start, "serve", code=1).stderr  # the verifier speaks: no artifact is here
    assert "not with: bash" in buildah("run", *start, "bash", code=2).stderr


def test_what_is_added_is_listed(built: str, buildah: Run) -> None:
    shown = buildah("run", "--isolation", "chroot", built, "cat", "/opt/inferentia/sbom.json").stdout
    assert [one["name"] for one in json.loads(shown)["components"]][:2] == ["localhost/base", "click"]


def test_another_torch_ends_the_build_in_one_line(built: str, buildah: Run, tmp_path: Path) -> None:
    del built
    flags = ["--build-arg=BASE=localhost/base", "--build-arg=PYTHON=3.11", "--build-arg=TORCH=9.9"]
    done = buildah("build", "--isolation", "chroot", *flags, NATIVE, code=1)
    assert "install.sh: the base localhost/base has torch" in done.stderr
