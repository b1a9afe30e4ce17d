"""`status`: the endpoints of the project, whether their locks fit, and what of them is deployed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Column, Table

import endpoint_spec as specs
from endpoint_spec.lock import LockError, check, left_over, lock_path, read_lock, removal

from ..account import Account
from ..errors import WrongUseError
from .common import AsJson, Rehearsal, Root, show

_STACKS = ("InferentiaEndpoint-", "InferentiaCompile-")


@dataclass(frozen=True)
class EndpointStatus:
    """One endpoint. lock: "fits", or what is wrong with it. deployed: SageMaker's status, or why it is not known.

    artifact: sha256 of the deployed model.tar.gz, "" where nothing is deployed; locked: that of the lock.
    """

    name: str
    lock: str
    locked: str
    deployed: str
    artifact: str


def status_command(
    root: Root = Path(),
    rehearsal: Rehearsal = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no AWS: specs and locks alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show each endpoint of the project: does its lock fit, is it deployed, and is that the lock's artifact?

    Exit code 0 also where something does not fit; `check` judges, this shows.
    """
    if not (root / "endpoints").is_dir():
        raise WrongUseError(f"{root.resolve()} holds no endpoints/ folder. Name the project with --root.")
    account = None if offline else Account()
    every = specs.load_all(root.resolve())
    found = [status(spec, account, rehearsal=rehearsal) for _, spec in sorted(every.items())]
    found += without_spec(root.resolve(), set(every), account, rehearsal=rehearsal)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    titles = ("endpoint", "lock", "deployed", "deployed artifact (sha256)")
    table = Table(*(Column(title, no_wrap=True) for title in titles), title_justify="left")
    for one in found:
        other = " (not the lock's)" if one.artifact and one.artifact != one.locked else ""
        table.add_row(one.name, one.lock, one.deployed, f"{one.artifact}{other}")
    show(table)


def without_spec(root: Path, names: set[str], account: Account | None, *, rehearsal: bool) -> Iterator[EndpointStatus]:
    """What has a lock or a stack, and no spec any more; `account` None asks no AWS."""
    stacks: dict[str, list[str]] = {name: [] for name in left_over(root, rehearsal)}
    for stack in _stacks(account) if account is not None else ():
        stacks.setdefault(stack.partition("-")[2], []).append(stack)
    for name in sorted(set(stacks) - names):
        deployed, artifact = ("not asked", "") if account is None else _deployed(name, account)
        yield EndpointStatus(name, f"no spec; remove it: {removal(name, root, stacks[name])}", "", deployed, artifact)


def _stacks(account: Account) -> list[str]:
    """The stacks of endpoints that are there; none where AWS cannot be asked, which the rows of the specs say."""
    try:
        pages = account.cloudformation.get_paginator("list_stacks").paginate()
        rows = [row for page in pages for row in page["StackSummaries"] if row["StackStatus"] != "DELETE_COMPLETE"]
    except (BotoCoreError, ClientError):
        return []
    return sorted(row["StackName"] for row in rows if row["StackName"].startswith(_STACKS))


def status(spec: specs.EndpointSpec, account: Account | None, *, rehearsal: bool) -> EndpointStatus:
    """The status of one endpoint; `account` None asks no AWS."""
    file = lock_path(spec, rehearsal)
    locked, problems = "", []
    try:
        lock = read_lock(file) if file.is_file() else None
        locked = lock.digests.artifact if lock else ""
        problems = check(spec, lock, rehearsal)
    except LockError as error:
        problems = [str(error)]
    deployed, artifact = ("not asked", "") if account is None else _deployed(spec.name, account)
    return EndpointStatus(spec.name, "\n".join(problems) or "fits", locked, deployed, artifact)


def _deployed(name: str, account: Account) -> tuple[str, str]:
    """SageMaker's status of an endpoint and the sha256 in its model's address (models/NAME/SHA256/model.tar.gz)."""
    sagemaker = account.sagemaker
    try:
        endpoint: Any = sagemaker.describe_endpoint(EndpointName=name)
        # While it is created or has failed it may have no configuration that is in use.
        config: Any = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        model: Any = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code == "ValidationException" and "Could not find" in message:
            return "no", ""
        return f"unknown: {code}", ""
    except BotoCoreError as error:
        return f"unknown: {error}", ""
    url = model["PrimaryContainer"].get("ModelDataUrl", "")
    return str(endpoint["EndpointStatus"]), url.rsplit("/", 2)[-2] if url.count("/") > 3 else ""


COMMANDS = {"status": status_command}
