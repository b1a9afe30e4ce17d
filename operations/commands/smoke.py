"""`smoke`, `wait` and `guard`: does the deployed endpoint answer as the build did, and does it through an update?"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import locked as locking
from ..account import Account
from ..errors import OperationError
from ..rollout import during_rollout, guarded_deploy, wait
from ..smoke import smoke
from .common import AsJson, Name, Rehearsal, Root, console, finish, say


def smoke_command(
    name: Name,
    root: Root = Path(),
    rehearsal: Rehearsal = False,
    during: Annotated[
        bool,
        typer.Option(
            "--during-rollout", help="Send requests until an update is over, enough for its alarms; then try."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Invoke NAME with the lock's sample and compare the answer with the one the build computed.

    Exit code 1 where the answer is outside the lock's tolerance, or a request during the rollout failed.
    """
    locked, account = locking.load(name, root.resolve(), rehearsal=rehearsal), Account()
    sent = during_rollout(locked, account) if during else None
    result = smoke(locked, account)
    failed = sent.failed if sent else 0
    finish(
        {**asdict(result), "passed": result.passed and not failed, **({"rollout": asdict(sent)} if sent else {})},
        f"smoke {'passed' if result.passed and not failed else 'FAILED'}",
        as_json=as_json,
    )
    if not result.passed:
        raise OperationError(
            f"{name} answers, but wrongly: error {result.error:.3g} over tolerance {result.tolerance:.3g} "
            f"at {result.compared} compared numbers. Either another artifact runs there, or its arithmetic differs."
        )
    if sent and failed:
        raise OperationError(f"{failed} of {sent.requests} requests failed during the rollout; the first: {sent.first}")


def wait_command(name: Name, as_json: AsJson = False) -> None:
    """Return when neither an update nor scaling runs on NAME: SageMaker takes no other update before.

    Exit code 1 where it ended badly: not InService, or InService with the old configuration after a failed update.
    """
    settled = wait(name, Account(), lambda text: say(f"{name}: {text}"))
    finish(asdict(settled), "nothing runs", as_json=as_json)
    if settled.status != "InService" or settled.failure:
        raise OperationError(f"endpoint {name} is {settled.status}: {settled.failure or 'no reason given'}")


def guard_command(
    name: Name,
    minutes: Annotated[int, typer.Option(min=0, max=180, help="How long CloudFormation watches the alarms.")] = 15,
    deploy: Annotated[bool, typer.Option("--deploy", help="Run the command instead of printing it.")] = False,
    rehearsal: Rehearsal = False,
) -> None:
    """Print the `cdk deploy` that takes an update of NAME back when one of its alarms rings, Inf1 included.

    CloudFormation keeps the alarms for later updates. They ring for what is asked alone: `smoke NAME --during-rollout`
    beside it. Refused before the first deployment, and while one of the alarms rings.
    """
    arguments = guarded_deploy(name, Account(), minutes)
    arguments += ["-c", "rehearsal=true"] if rehearsal else []
    if not deploy:
        typer.echo(shlex.join(["cdk", *arguments]))
        return
    cdk = shutil.which("cdk")
    if cdk is None:
        raise OperationError("there is no cdk on PATH. Activate the environment: . .venv/bin/activate")
    console.print(shlex.join(["cdk", *arguments]), markup=False, highlight=False, soft_wrap=True)
    code = subprocess.run([cdk, *arguments], check=False).returncode  # noqa: S603
    if code:
        raise OperationError(f"cdk ended with code {code}; what it said is above.")


COMMANDS = {"smoke": smoke_command, "wait": wait_command, "guard": guard_command}
