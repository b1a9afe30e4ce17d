"""Finding the Neuron SDK, and saying plainly when it is not the real one or does not fit."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from compile.errors import CompileError
from endpoint_spec import platforms

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

REHEARSE = "Build with --rehearse to trace the same lowered graphs for the CPU of this machine."
_INSTALL = "python -m pip install --extra-index-url=https://pip.repos.neuron.amazonaws.com"
_DEVICE = Path("/dev/neuron0")  # the Neuron driver's first device


@dataclass(frozen=True)
class Packages:
    """What a target needs: the module to import, its distribution, the compiler's, and more whose version is kept."""

    module: str
    distribution: str
    compiler: str
    more: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """How to get them from AWS's Neuron repository."""
        return f"Install them from AWS's repository: {_INSTALL} {self.distribution} {self.compiler}."


def require(packages: Packages, target: str) -> ModuleType:
    """The target's Neuron module. Raises CompileError unless it can be imported on this machine.

    The packages of these names on PyPI are placeholders whose import fails with "WRONG PACKAGE"; the real ones come
    from AWS's Neuron repository (https://awsdocs-neuron.readthedocs-hosted.com, "pip repositories").
    """
    package = packages.module
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise CompileError(f"{package} is installed, but {error.name} is missing.", REHEARSE) from None
        raise CompileError(
            f"Target {target} needs {package}, which is not installed here.", f"{packages.install} {REHEARSE}"
        ) from None
    except Exception as error:  # the placeholder raises whatever its author chose
        if "WRONG PACKAGE" in str(error).upper():
            raise CompileError(
                f"The {package} installed here is PyPI's placeholder (WRONG PACKAGE), not the Neuron SDK.",
                f"On a compile machine: {packages.install} {REHEARSE}",
            ) from None
        raise CompileError(f"{package} cannot be imported: {error}", REHEARSE) from error


def is_stand_in(module: ModuleType, packages: Packages) -> bool:
    """Only an installed distribution is the Neuron SDK; a module that merely lies on the path is a test's stand-in."""
    if getattr(module, "STAND_IN", False):
        return True
    try:
        installed = metadata.distribution(packages.distribution)
    except metadata.PackageNotFoundError:
        return True
    home = Path(str(installed.locate_file(""))).resolve()
    return not Path(module.__file__ or "").resolve().is_relative_to(home)


def has_device() -> bool:
    """Whether there is a NeuronCore to run on."""
    return _DEVICE.exists()


def versions(module: ModuleType, packages: Packages) -> dict[str, str]:
    """Versions by distribution, of those that are there; the module's own where it is not installed."""
    found = {}
    for name in (packages.distribution, packages.compiler, *packages.more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found.setdefault(packages.distribution, str(getattr(module, "__version__", "unknown")))
    return found


def check_versions(spec: EndpointSpec, module: ModuleType, packages: Packages) -> None:
    """Raises CompileError where SDK, torch, compiler and the container that will load the graphs do not fit."""
    known = versions(module, packages)
    sdk, here = known[packages.distribution], str(torch.__version__).partition("+")[0]
    if sdk != here and not sdk.startswith(f"{here}."):
        raise CompileError(
            f"{packages.distribution} {sdk} is made for another torch than the {here} that is installed here.",
            f"Install the torch that its version begins with. {packages.install}",
        )
    if is_stand_in(module, packages):
        return  # it compiles nothing that a container will load
    if packages.compiler not in known:
        raise CompileError(f"{packages.compiler}, the compiler itself, is not installed here.", packages.install)
    image = platforms.image(spec.compile.target, spec.serve.server)
    if here != image.torch:
        raise CompileError(
            f"torch here is {here}, in the container {image.repository}:{image.tag} it is {image.torch}: "
            "it would refuse the artifact.",
            f"Compile with torch {image.torch} on Python {image.python} (here: {platform.python_version()}).",
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


class NeuronTarget:
    """What both targets share; a subclass has its name and its packages, and compiles."""

    name: str
    packages: Packages
    rehearsal = False

    @cached_property
    def _module(self) -> ModuleType:
        return require(self.packages, self.name)

    @property
    def stand_in(self) -> bool:
        """See Target."""
        return is_stand_in(self._module, self.packages)

    @property
    def runs_here(self) -> bool:
        """See Target."""
        return self.stand_in or has_device()

    def check(self, spec: EndpointSpec) -> None:
        """Package, versions, memory and disk. Raises CompileError naming what does not fit and the way out."""
        check_versions(spec, self._module, self.packages)
        check_room(spec)

    def separates_weights(self, spec: EndpointSpec) -> bool:
        """See Target. torch_neuron's own option of this name places them by itself."""
        del spec
        return False

    def versions(self) -> dict[str, str]:
        """See Target."""
        return versions(self._module, self.packages)
