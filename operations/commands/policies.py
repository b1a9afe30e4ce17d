"""`policies`: what to allow those who publish, deploy, submit and invoke, and a pipeline that does it all."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from .. import policies
from ..errors import WrongUseError
from .common import AsJson, print_json, say


def policies_command(
    account: Annotated[str, typer.Option(help="The account's number.")],
    region: Annotated[str, typer.Option(envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], help="The region.")],
    name: Annotated[str, typer.Argument(help="One endpoint. Default: all.")] = "*",
    role: Annotated[str, typer.Option(help=f"One of {', '.join(policies.ROLES)}. Default: each.")] = "",
    qualifier: Annotated[str, typer.Option(help="Of `cdk bootstrap`, where you gave it one.")] = "hnb659fds",
    as_json: AsJson = False,
) -> None:
    """Print minimal IAM policies, each for one who publishes, deploys, submits or invokes, or for a pipeline.

    They are for people and pipelines; the stacks' own roles are in the stacks. Nothing is asked of AWS.
    """
    if not re.fullmatch(r"\d{12}", account):
        raise WrongUseError(f"--account {account} is no account's number. Write its 12 digits.")
    if role and role not in policies.ROLES:
        raise WrongUseError(f"--role {role} is not known: use one of {', '.join(policies.ROLES)}.")
    place = policies.Place(account, region, name, qualifier)
    found = {one: policies.document(one, place) for one in ([role] if role else policies.ROLES)}
    if as_json:
        print_json(found[role] if role else found)
        return
    for one, policy in found.items():
        say(f"{one}: {(policies.ROLES[one].__doc__ or '').splitlines()[0]}")
        print_json(policy)


COMMANDS = {"policies": policies_command}
