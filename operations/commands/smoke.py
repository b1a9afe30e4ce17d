"""`smoke`: does the deployed endpoint answer as the build did?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from .. import locked as locking
from ..account import Account
from ..errors import OperationError
from ..smoke import smoke
from .common import AsJson, Name, Rehearsal, Root, finish


def smoke_command(name: Name, root: Root = Path(), rehearsal: Rehearsal = False, as_json: AsJson = False) -> None:
    """Invoke NAME with the lock's sample and compare the answer with the one the build computed.

    Exit code 1 where the answer is outside the lock's tolerance.
    """
    result = smoke(locking.load(name, root.resolve(), rehearsal=rehearsal), Account())
    finish(
        {**asdict(result), "passed": result.passed}, f"smoke {'passed' if result.passed else 'FAILED'}", as_json=as_json
    )
    if not result.passed:
        raise OperationError(
            f"{name} answers, but wrongly: error {result.error:.3g} over tolerance {result.tolerance:.3g} "
            f"at {result.compared} compared numbers. Either another artifact runs there, or its arithmetic differs."
        )


COMMANDS = {"smoke": smoke_command}
