"""`cache`: the captured and compiled graphs that this machine keeps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from compile.cli.options import Json, Root, err, out
from compile.frontend.project import project

Empty = Annotated[bool, typer.Option("--empty", help="Remove all of it. The next build captures and compiles anew.")]


def cache_command(empty: Empty = False, json_: Json = False, root: Root = Path()) -> None:
    """List the captured and compiled graphs in build/cache, used last first; or remove them.

    A graph has a key over everything that decides how it comes out, so what is there never has to be removed for a
    build to be right. Beyond 20 GB the graphs that were not used for longest go by themselves.
    """
    from compile.pipeline.cache import of_project  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    cache = of_project(project(root), lambda line: err.print(line, markup=False))
    kept = cache.kept()
    freed = cache.empty() if empty else 0
    if json_:
        variants = [{**asdict(variant), "used": variant.used.isoformat(timespec="seconds")} for variant in kept]
        typer.echo(json.dumps({"variants": variants, "freed_bytes": freed}, indent=2))
        return
    if empty:
        out.print(f"Removed {len(kept)} graphs, {freed / 1e6:.1f} MB.", highlight=False)
        return
    table = Table(
        "graph", "key", "MB", "used", title=f"{len(kept)} graphs, {sum(variant.bytes for variant in kept) / 1e6:.1f} MB"
    )
    for variant in kept:
        table.add_row(variant.kind, variant.key, f"{variant.bytes / 1e6:.1f}", f"{variant.used:%Y-%m-%d %H:%M} UTC")
    out.print(table)


COMMANDS = {"cache": cache_command}
