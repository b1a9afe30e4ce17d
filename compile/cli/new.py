"""`new` and `list`: which models there are, and a spec for one of them."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import endpoint_spec as specs
from compile.cli.options import Json, Root, err, out
from compile.errors import CompileError, UsageError
from compile.frontend.project import project

_DEFAULT = """\
name: {name}
model: {{family: depth_anything_v2, variant: vits, weights: "random:0"}}
"""
_FROM_ENTRY = """\
name: {name}
model:
  entry: {entry}
  weights: "random:0"
"""

From = Annotated[
    str | None,
    typer.Option("--from", help="A spec of zoo/ to copy, or path.py:function of your own model.", show_default=False),
]


def new(
    name: Annotated[str, typer.Argument(help="Name of the endpoint to create.", show_default=False)],
    source: From = None,
    root: Root = Path(),
) -> None:
    """Write endpoints/NAME.yaml: from a spec of zoo/, for your own path.py:function, or a small example."""
    base = project(root)
    path = base / "endpoints" / f"{name}.yaml"
    if path.exists():
        raise UsageError(f"endpoints/{name}.yaml exists already.", "Choose another name, or edit that file.")
    _write_checked(_text(name, source, base), path, base)
    err.print(f"Wrote endpoints/{name}.yaml. Next: inferentia build {name} --rehearse", highlight=False)


def _text(name: str, source: str | None, root: Path) -> str:
    if source is None:
        return _DEFAULT.format(name=name)
    if ".py:" in source:
        from compile.frontend.loading import entry_function  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

        entry_function(source, root)
        return _FROM_ENTRY.format(name=name, entry=source)
    candidates = [root / source, root / f"{source}.yaml"]
    found = next((c for c in candidates if c.is_file() and c.suffix == ".yaml"), None)
    if found is None:
        zoo = ", ".join(f"zoo/{p.stem}" for p in sorted((root / "zoo").glob("*.yaml"))) or "none"
        raise UsageError(f"--from {source}: there is no such spec. Specs to copy: {zoo}.", "Or give path.py:function.")
    text, times = re.subn(r"^name:.*$", f"name: {name}", found.read_text(encoding="utf-8"), count=1, flags=re.M)
    if not times:
        raise UsageError(f"--from {source}: the file has no line 'name: ...' to replace.")
    return text


def _write_checked(text: str, path: Path, root: Path) -> None:
    """Writes the spec only if it is valid."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        try:
            specs.load(draft, root=root)
        except specs.SpecErrors as errors:
            # The draft is gone when this is read: say what is wrong, not where it was.
            faults = "; ".join(f"{e.key}: {e.value} {e.problem}. {e.remedy}" for e in errors.errors)
            raise CompileError(f"endpoints/{path.name} was not written: {faults}") from None
        draft.replace(path)


def list_models(json_: Json = False) -> None:
    """Families, their variants, and the task that each serves."""
    from compile.models import families  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    rows: list[dict[str, Any]] = [
        {"family": f.name, "variants": list(f.variants), "task": f.task, "source": f.source}
        for f in families().values()
    ]
    if json_:
        typer.echo(json.dumps({"families": rows}, indent=2))
        return
    table = Table("family", "variants", "task", "source", title="Built-in families", title_justify="left")
    for row in rows:
        table.add_row(row["family"], ", ".join(row["variants"]), row["task"], row["source"])
    out.print(table)
    err.print("Your own model: inferentia new NAME --from path.py:function", highlight=False)


COMMANDS = {"new": new, "list": list_models}
