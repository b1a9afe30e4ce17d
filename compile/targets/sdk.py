"""Finding the Neuron SDK, and saying plainly when it is not the real one or does not fit."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compile.errors import CompileError
from compile.portable import driver
from endpoint_spec import derive, platforms
from endpoint_spec.places import INSTALLED

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

REHEARSE = "Build with --rehearse to trace the same lowered graphs for the CPU of this machine."
_INSTALL = "python -m pip install --extra-index-url=https://pip.repos.neuron.amazonaws.com"


@dataclass(frozen=True)
class Packages:
    """What a target needs: the module to import, its distribution, the compiler's, and more whose version is kept."""

    module: str
    distribution: str
    compiler: str
    more: tuple[str, ...] = ()

    @property
    def distributions(self) -> tuple[str, ...]:
        """All whose version is kept, the module's own first."""
        return (self.distribution, self.compiler, *self.more)

    @property
    def install(self) -> str:
        """How to get them from AWS's Neuron repository."""
        return f"Install them from AWS's repository: {_INSTALL} {self.distribution} {self.compiler}."


def require(packages: Packages, target: str) -> ModuleType:
    """The target's Neuron module in this Python. Raises CompileError unless it can be imported."""
    here = driver.found(packages.module, packages.distributions)
    require_usable(here, packages, target)
    return importlib.import_module(packages.module)


def require_usable(found: Mapping[str, Any], packages: Packages, target: str) -> None:
    """Raises CompileError where a Python has no usable Neuron module.

    The packages of these names on PyPI are placeholders whose import fails with "WRONG PACKAGE"; the real ones come
    from AWS's Neuron repository (https://awsdocs-neuron.readthedocs-hosted.com, "pip repositories").
    """
    package, problem, lacking = packages.module, found["problem"], found["lacking"]
    where = "here" if found["executable"] == sys.executable else f"in {found['executable']}"
    if problem is None:
        return
    if problem == "missing" and lacking == package:
        raise CompileError(
            f"Target {target} needs {package}, which is not installed {where}.",
            f"{packages.install} --compiler-python PATH names another Python that has it. {REHEARSE}",
        )
    if problem == "missing":
        raise CompileError(f"{package} is installed {where}, but {lacking} is missing.", REHEARSE)
    if problem == "placeholder":
        raise CompileError(
            f"The {package} installed {where} is PyPI's placeholder (WRONG PACKAGE), not the Neuron SDK.",
            f"On a compile machine: {packages.install} {REHEARSE}",
        )
    raise CompileError(f"{package} cannot be imported {where}: {problem}", REHEARSE)


def has_device() -> bool:
    """Whether there is a NeuronCore to run on."""
    return driver.DEVICE.exists()


def asked(python: Path, packages: Packages) -> dict[str, Any]:
    """What another Python has, as driver.found describes it. Raises CompileError where it cannot be asked."""
    command = [str(python), "-m", "compile.portable.driver", "found", packages.module, *packages.distributions]
    try:
        ended = subprocess.run(  # noqa: S603  (the user's own Python, no shell)
            command, env=environment(python), cwd=INSTALLED, capture_output=True, text=True, timeout=300, check=True
        )
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        words = getattr(error, "stderr", None) or str(error)
        raise CompileError(
            f"{python} cannot compile: {words.strip().splitlines()[-1]}",
            "Name a Python 3.10 or newer with torch and the target's compiler in --compiler-python or "
            "INFERENTIA_COMPILER_PYTHON.",
        ) from None
    return found


def environment(python: Path) -> dict[str, str]:
    """What a process of that Python gets: this one's own modules, another one only the project's."""
    if python == Path(sys.executable):  # also modules that were put on the path after Python started
        path = [str(Path(entry or ".").resolve()) for entry in sys.path]
    else:
        path = [str(INSTALLED), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **more}


def check_versions(spec: EndpointSpec, found: Mapping[str, Any], packages: Packages) -> None:
    """Raises CompileError where SDK, torch, compiler and the container that will load the graphs do not fit.

    found: what the Python that compiles has, as driver.found describes it.
    """
    known = found["versions"]
    sdk, here = known[packages.distribution], str(found["torch"]).partition("+")[0]
    if sdk != here and not sdk.startswith(f"{here}."):
        raise CompileError(
            f"{packages.distribution} {sdk} is made for another torch than the {here} that is installed here.",
            f"Install the torch that its version begins with. {packages.install}",
        )
    if found["stand_in"]:
        return  # it compiles nothing that a container will load
    if packages.compiler not in known:
        raise CompileError(f"{packages.compiler}, the compiler itself, is not installed here.", packages.install)
    image = derive.container_image(spec)
    if here != image.torch:
        raise CompileError(
            f"torch here is {here}, in the container {image.repository}:{image.tag} it is {image.torch}: "
            "it would refuse the artifact.",
            f"Compile with torch {image.torch} on Python {image.python} (here: {found['python']}).",
        )


def check_room(spec: EndpointSpec) -> None:
    """Raises CompileError where memory or disk are below what any compilation needs (data/limits.yaml)."""
    known = platforms.compile_machine()
    memory = available_memory()
    if memory is not None and memory < known.memory_gib_min * 2**30:
        raise CompileError(
            f"{memory / 2**30:.1f} GiB of memory are free here, compiling needs {known.memory_gib_min:g} GiB at least; "
            "the compiler would be killed (-9).",
            f"Compile on a machine with {known.memory_gib_advised:g} GiB ({known.source}).",
        )
    disk = shutil.disk_usage(spec.root).free
    if disk < known.disk_gib_min * 2**30:
        raise CompileError(
            f"{disk / 2**30:.1f} GiB of disk are free in {spec.root.name}/, compiling needs "
            f"{known.disk_gib_min:g} GiB at least for the compiler's work directory.",
            "Make room, or name a larger disk with --work-directory.",
        )


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
