"""`image`: the container images of your own registry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer
from rich.table import Column, Table

import endpoint_spec as specs
from endpoint_spec import built_images, derive

from ..account import Account
from ..errors import OperationError
from ..images import State, build, state
from .common import AsJson, Name, Root, finish, print_json, say, show

app = typer.Typer(
    no_args_is_help=True,
    help="Build the container image of the native server in your account, without Docker; see which there are.",
)


@app.command("build")
def build_command(name: Name, root: Root = Path(), as_json: AsJson = False) -> None:
    """Build the image that NAME runs, by the CodeBuild project of stack InferentiaImages, and follow it.

    Writes the image's digest and its base's to endpoints/images.lock.json: commit it. Every endpoint of the same target
    and SDK release runs it from its next deployment on.
    """
    built = build(specs.find(name, root.resolve()), Account(), say)
    finish(built.model_dump(), "built", as_json=as_json)


@app.command("status")
def status_command(root: Root = Path(), as_json: AsJson = False) -> None:
    """Show each image that the endpoints run: what is pinned, and whether it is in the registry."""
    account, rows = Account(), dict[str, State]()
    for spec in specs.load_all(root.resolve()).values():
        image = derive.container_image(spec)
        if image.registry == "own" and built_images.key(image) not in rows:
            rows[built_images.key(image)] = state(spec, account)
    if as_json:
        print_json({name: asdict(row) | {"built": row.built and row.built.model_dump()} for name, row in rows.items()})
    else:
        table = Table(*(Column(title, no_wrap=True) for title in ("image", "digest", "state")))
        for name, row in rows.items():
            found = f"{row.problem}. {row.remedy}" if row.problem else row.note or "[green]ok[/]"
            table.add_row(name, row.built.digest if row.built else "", found)
        show(table)
    wrong = [name for name, row in rows.items() if row.problem]
    if wrong:
        raise OperationError(f"{len(wrong)} of {len(rows)} images cannot be deployed as they are.")
