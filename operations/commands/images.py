"""`image`: the container images of your own registry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

import endpoint_spec as specs
from endpoint_spec import built_images, derive

from ..account import Account
from ..errors import OperationError
from ..images import State, build, mirror, own_image, state
from .common import AsJson, Name, Root, finish, print_json, say, show

app = typer.Typer(
    no_args_is_help=True,
    help="Build the container images of the native server in your account, without Docker; keep their bases; see which "
    "there are.",
)


@app.command("build")
def build_command(name: Name, root: Root = Path(), as_json: AsJson = False) -> None:
    """Build the image that NAME runs, by the CodeBuild project of stack InferentiaImages, and follow it.

    Writes the image's digest and its base's to endpoints/images.lock.json, and beside it a CycloneDX list of what the
    image adds to its base: commit both. Every endpoint of the same target and SDK release runs it from its next
    deployment on. The base comes from your own registry (see mirror), and the packages from the artifact bucket (see
    wheels --image --keep), where they are kept there.
    """
    spec = specs.find(name, root.resolve())
    built = build(spec, Account(), say)
    listed = built_images.sbom_file(own_image(spec))
    finish({**built.model_dump(), "sbom": listed}, "built", as_json=as_json)


@app.command("mirror")
def mirror_command(
    name: Annotated[str | None, typer.Argument(help="One endpoint. Default: all that run such an image.")] = None,
    root: Root = Path(),
    as_json: AsJson = False,
) -> None:
    """Copy the bases of the images that were built into your own registry, by digest, in the same CodeBuild project.

    AWS withdraws old images. The next image build takes what is kept; a base that is there is not copied again.
    """
    account, kept, folder = Account(), dict[str, object](), root.resolve()
    for spec in [specs.find(name, folder)] if name else specs.load_all(folder).values():
        if name or derive.container_image(spec).registry == "own":
            key = built_images.key(own_image(spec))
            kept[key] = kept.get(key) or mirror(spec, account, say)
    finish(kept, "mirrored", as_json=as_json)


@app.command("status")
def status_command(root: Root = Path(), as_json: AsJson = False) -> None:
    """Show each image that the endpoints run: what is pinned, whether it is in the registry, and where its base is."""
    account, rows = Account(), dict[str, State]()
    for spec in specs.load_all(root.resolve()).values():
        image = derive.container_image(spec)
        if image.registry == "own" and built_images.key(image) not in rows:
            rows[built_images.key(image)] = state(spec, account)
    if as_json:
        print_json({name: asdict(row) | {"built": row.built and row.built.model_dump()} for name, row in rows.items()})
    else:
        table = Table(*(Column(title, no_wrap=True) for title in ("image", "digest", "base", "state")))
        for name, row in rows.items():
            found = f"{row.problem}. {row.remedy}" if row.problem else row.note or "[green]ok[/]"
            table.add_row(name, row.built.digest if row.built else "", "mirrored" if row.mirrored else "AWS's", found)
        show(table)
    wrong = [name for name, row in rows.items() if row.problem]
    if wrong:
        raise OperationError(f"{len(wrong)} of {len(rows)} images cannot be deployed as they are.")
