"""`publish`, `fetch-weights` and `empty-bucket`: what lies in S3."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn

import endpoint_spec as specs

from .. import empty_bucket as emptying
from .. import locked as locking
from ..account import Account
from ..errors import WrongUseError
from ..fetch_weights import fetch_weights
from ..publish import publish
from .common import UPLOADED, AsJson, Name, Rehearsal, Root, console, finish


def publish_command(name: Name, root: Root = Path(), rehearsal: Rehearsal = False, as_json: AsJson = False) -> None:
    """Upload NAME's artifact to the artifact bucket under its digest (nothing to do where it is there already).

    The bucket is the one of the deployed stack InferentiaArtifacts. A rehearsal only goes to the embedded AWS.
    `submit` and `attach` publish what they build; nothing is left to do then.
    """
    locked = locking.load(name, root.resolve(), rehearsal=rehearsal)
    with Progress(TextColumn("publishing {task.description}"), *UPLOADED, console=console, transient=True) as progress:
        bar = progress.add_task(name, total=locked.lock.artifact.bytes)
        result = publish(locked, Account(), lambda sent: progress.advance(bar, sent))
    finish(asdict(result), "published" if result.uploaded else "already published", as_json=as_json)


def fetch_weights_command(name: Name, root: Root = Path(), as_json: AsJson = False) -> None:
    """Download NAME's s3: weights to build/weights/, checked against the spec's sha256, for a build to find."""
    spec = specs.find(name, root.resolve())
    path = fetch_weights(spec, Account())
    finish({"name": name, "weights": str(path.relative_to(spec.root))}, "fetched", as_json=as_json)


def empty_bucket_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Delete every version of every artifact, so that "cdk destroy InferentiaArtifacts" can remove the bucket."""
    account = Account()
    bucket = account.artifact_bucket
    rows = list(emptying.versions(account, bucket))
    console.print(f"s3://{bucket}: {len(rows)} versions, {sum(size for *_, size in rows) / 1e6:.1f} MB")
    if rows and not yes:
        if not sys.stdin.isatty():
            raise WrongUseError("this deletes artifacts that locks may name; say --yes to mean it.")
        typer.confirm("Delete them all? Endpoints that scale out or restart need their artifact", abort=True, err=True)
    finish({"bucket": bucket, "deleted": emptying.empty(account, bucket, rows)}, "emptied", as_json=as_json)


COMMANDS = {"publish": publish_command, "fetch-weights": fetch_weights_command, "empty-bucket": empty_bucket_command}
