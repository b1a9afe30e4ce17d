"""What the two targets with a Neuron SDK have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.portable import driver
from compile.portable.kept import COMPILED
from compile.targets import sdk
from compile.targets.base import CompilerInput, CompilerOutput, LoweredVariant
from compile.targets.process_runner import Finished, run

if TYPE_CHECKING:
    from compile.analysis.summary import Account
    from endpoint_spec import EndpointSpec
    from endpoint_spec.platforms import Image


class NeuronTarget:
    """What both targets share; a subclass has its name, packages and keywords, and judges what was compiled.

    python: with the compiler. elsewhere: the container image that it compiles in, on another machine.
    """

    name: str
    packages: sdk.Packages
    rehearsal = False
    on_cpu = False

    def __init__(self, python: Path | None = None, elsewhere: Image | None = None) -> None:
        self.python = python or Path(sys.executable)
        self._elsewhere = elsewhere

    @cached_property
    def found(self) -> Mapping[str, Any]:
        """What the compiler's Python has. Raises CompileError unless it has the target's module."""
        if self.python == Path(sys.executable):
            found = driver.found(self.packages.module, self.packages.distributions)
        else:
            found = sdk.asked(self.python, self.packages)
        sdk.require_usable(found, self.packages, self.name)
        return found

    @property
    def torch(self) -> str:
        """See Target."""
        return self._elsewhere.torch if self._elsewhere else str(self.found["torch"])

    @property
    def runs_here(self) -> bool:
        """See Target."""
        return self.python == Path(sys.executable) and (bool(self.found["stand_in"]) or sdk.has_device())

    def check(self, spec: EndpointSpec) -> None:
        """Package, versions, memory and disk. Raises CompileError naming what does not fit and the way out."""
        sdk.check_versions(spec, self.found, self.packages)
        sdk.check_room(spec)

    def separates_weights(self, spec: EndpointSpec) -> bool:
        """See Target. torch_neuron's own option of this name places them by itself."""
        del spec
        return False

    def environment(self) -> dict[str, str]:
        """See Target."""
        return {**versions(self.found), "stand_in": str(self.found["stand_in"])}

    def asked(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The target's part of the driver's request."""
        packages = [self.packages.module, *self.packages.distributions]
        return {"target": self.name, "packages": packages, "keywords": dict(keywords)}

    def compile(self, lowered: LoweredVariant, given: CompilerInput) -> None:
        """See Target."""
        run(lowered, given, self.python)


def versions(found: Mapping[str, Any]) -> dict[str, str]:
    """Of the Python that compiles, its torch and the compiler's packages."""
    return {"python": found["python"], "torch": found["torch"], **found["versions"]}


def output(
    lowered: LoweredVariant, done: Finished, account: Account, comparison: dict[str, Any] | None = None
) -> CompilerOutput:
    """What was compiled, after it was judged."""
    return CompilerOutput(
        file=lowered.work / COMPILED,
        stand_in=bool(done.found["stand_in"]),
        versions=versions(done.found),
        account=account,
        cost=done.cost,
        comparison=comparison,
        record=lowered.work,
        replayed=done.replayed,
        answers=done.answers,
    )
