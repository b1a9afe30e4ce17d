"""`buckets`: which input sizes to compile for, from a histogram of those that come."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from compile.cli.options import Json, Root, Verbose, err, log_to_stderr, out
from compile.errors import UsageError
from compile.frontend.project import endpoint

if TYPE_CHECKING:
    from compile.buckets.aspect import ShapePlan
    from compile.buckets.cost import Cost
    from compile.buckets.memory import Room
    from compile.buckets.planning import Plan
    from compile.buckets.sizes import Histogram, Size

Sizes = Annotated[Path, typer.Option("--sizes", help="The histogram: CSV, JSON, or a size a line.", show_default=False)]
Count = Annotated[int, typer.Option("--count", min=1, max=64, help="Buckets at most.")]
Multiple = Annotated[int, typer.Option(min=1, max=4096, help="Sides are multiples of this (14 for Depth Anything).")]
CostName = Annotated[str, typer.Option("--cost", help="elements (padded elements) or flops (a transformer's).")]
Hidden = Annotated[int | None, typer.Option(min=1, help="--cost flops: the transformer's width.", show_default=False)]
Patch = Annotated[
    int | None, typer.Option(min=1, help="--cost flops of pictures: side of a patch.", show_default=False)
]
ShorterSide = Annotated[
    int | None,
    typer.Option(min=1, help="Pictures are resized, not padded, to this shorter side.", show_default=False),
]
Memory = Annotated[
    str | None,
    typer.Option(help="Device memory for all buckets of one copy: 2GiB.", show_default="the cores of NAME's instance"),
]
Bytes = Annotated[str | None, typer.Option(metavar="BYTES", help="Without NAME: of one bucket, e.g. 99MB.")]
PlotPath = Annotated[Path | None, typer.Option("--plot", help="Where the picture goes (.png or .svg).")]
OptionalName = Annotated[
    str | None, typer.Argument(help="An endpoint whose weights and instance bound the number.", show_default=False)
]


def buckets_command(  # noqa: PLR0913, PLR0917  (a command line)
    sizes: Sizes,
    name: OptionalName = None,
    count: Count = 4,
    multiple_of: Multiple = 1,
    cost: CostName = "elements",
    hidden: Hidden = None,
    patch: Patch = None,
    shorter_side: ShorterSide = None,
    memory: Memory = None,
    weights: Bytes = None,
    activations: Bytes = None,
    plot: PlotPath = None,
    json_: Json = False,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Find the buckets that waste least: exactly for lengths, for pictures by a rule with a proven bound.

    Each bucket is a graph with its own copy of the weights, so more buckets waste less work and take more memory.
    Beside the choice stands AWS's rule, as many evenly spaced buckets. The snippet at the end goes into the spec.

    With --shorter-side pictures are not padded but resized, as Depth Anything does: then the buckets are the shapes
    that squeeze the pictures least.

    ```
    inferentia buckets --sizes lengths.txt --count 4 --multiple-of 32
    inferentia buckets invoices --sizes pictures.csv --multiple-of 16
    inferentia buckets depth --sizes photographs.csv --multiple-of 14 --shorter-side 518
    ```
    """
    log_to_stderr(verbose)
    from compile.buckets import aspect, planning  # noqa: PLC0415  (seconds of imports, --help need not wait)
    from compile.buckets.sizes import read, rounded_up  # noqa: PLC0415
    from inference_code.tasks.resize import ResizeRule  # noqa: PLC0415

    path = _picture_path(plot, root, sizes)
    model = _cost(cost, hidden, patch)
    found = read(sizes)
    _require_consistent(found, model, patch, shorter_side)
    rule = ResizeRule(shorter_side, multiple_of) if shorter_side else None
    largest = max((rule.size(*size) for size in found.counts), key=math.prod) if rule else found.largest
    room, dimension = _room(name, root, rounded_up(largest, multiple_of), count, (memory, weights, activations))
    most = min(count, room.most) if room else count
    planned = aspect.plan(found, most, rule) if rule else planning.plan(found, most, multiple_of, model)
    key = dimension or {1: "tokens", 2: "image"}[found.dimensions]
    snippet = f"compile:\n  buckets: [{', '.join(f'{{{key}: {_written(size)}}}' for size in planned.best.buckets)}]"
    picture = _drawn(found, planned, path)
    if json_:
        _print_json(planned, model, room, snippet, picture)
        return
    if isinstance(planned, aspect.ShapePlan):
        _show_shapes(found, planned)
    else:
        _show(found, planned, model)
    typer.echo(snippet)  # never wrapped: it is to be copied
    if room is not None:
        bounded = f"{room.most} of {count} buckets fit" if room.most < count else "The memory holds them"
        err.print(f"{bounded}: {room.reason}.", markup=False, highlight=False)
    drawn = f"Plot: {picture}." if picture else "No plot was drawn: matplotlib is not installed here."
    err.print(drawn, markup=False, highlight=False)


def _picture_path(plot: Path | None, root: Path, sizes: Path) -> Path:
    path = plot or root / "build" / "buckets" / f"{sizes.stem}.png"
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path}: {path.suffix or 'no suffix'} is no picture.", "Write a name in .png or .svg.")
    return path


def _require_consistent(found: Histogram, cost: Cost, patch: int | None, shorter_side: int | None) -> None:
    """Raises UsageError for options that the sizes do not go with."""
    if shorter_side is not None and cost.name != "elements":
        raise UsageError("--shorter-side counts how pictures are squeezed, not --cost.", "Leave out one of them.")
    if shorter_side is not None and found.dimensions == 1:
        raise UsageError("--shorter-side is for pictures; the sizes are lengths.", "Leave it out.")
    if cost.name == "flops" and (found.dimensions == 2) != (patch is not None):
        raise UsageError(
            "--cost flops counts a picture's patches and a text's tokens.",
            "Give --patch for pictures (14 for Depth Anything), and leave it out for lengths.",
        )


def _cost(name: str, hidden: int | None, patch: int | None) -> Cost:
    from compile.buckets import cost  # noqa: PLC0415

    if name == "flops":
        if hidden is None:
            raise UsageError("--cost flops needs --hidden.", "Give the transformer's width, e.g. --hidden 768.")
        return cost.flops(hidden, patch)
    if name != "elements":
        raise UsageError(f"--cost {name!r} is unknown.", "Write elements or flops.")
    if hidden is not None or patch is not None:
        raise UsageError("--hidden and --patch belong to --cost flops.", "Add --cost flops, or leave them out.")
    return cost.elements()


def _room(
    name: str | None, root: Path, largest: Size, count: int, given: tuple[str | None, str | None, str | None]
) -> tuple[Room | None, str | None]:
    """How many buckets fit, and the name of the model's dimension; None where there is no bound."""
    from compile.buckets import memory as room  # noqa: PLC0415

    sizes = [
        room.parsed(option, text) if text else None
        for option, text in zip(("--memory", "--weights", "--activations"), given, strict=True)
    ]
    memory, weights, activations = sizes
    if name is not None:
        if weights is not None or activations is not None:
            raise UsageError(f"--weights and --activations follow from {name}.", "Leave them out, or leave out NAME.")
        return room.by_spec(endpoint(name, root), largest, memory, count)
    if memory is None and weights is None and activations is None:
        return None, None
    if memory is None or weights is None:
        raise UsageError(
            "A bound on memory needs --memory and --weights.",
            "Give both (and --activations), or NAME of a spec that they follow from.",
        )
    if weights < 1:
        raise UsageError("--weights is nothing.", "Give the bytes of one copy of the model, e.g. --weights 99MB.")
    return room.by_bytes(memory, weights, activations or 0), None


def _drawn(found: Histogram, planned: Plan | ShapePlan, path: Path) -> Path | None:
    """Where the plot went; None without matplotlib."""
    from compile.buckets.plot import plot  # noqa: PLC0415
    from compile.profiling.results import can_plot  # noqa: PLC0415

    if not can_plot():
        return None
    plot(found, planned, path)
    return path


def _written(size: Size) -> str:
    return str(size[0]) if len(size) == 1 else str(list(size))


def _print_json(planned: Plan | ShapePlan, cost: Cost, room: Room | None, snippet: str, picture: Path | None) -> None:
    from compile.buckets.aspect import ShapePlan  # noqa: PLC0415

    counted = {"name": cost.name, "statement": cost.statement}
    if isinstance(planned, ShapePlan):
        counted = {"name": "squeeze", "statement": "|log(aspect ratio of the picture / of its bucket)|"}
    data = {
        **planned.to_json(),
        "cost": counted,
        "memory": asdict(room) if room else None,
        "yaml": snippet,
        "plot": str(picture) if picture else None,
    }
    typer.echo(json.dumps(data, indent=2))


def _show(found: Histogram, planned: Plan, cost: Cost) -> None:
    from compile.buckets.planning import EVEN_RULE  # noqa: PLC0415

    kind = "exact" if planned.bound == 1 else f"at least {planned.bound:.1%} of the best possible saving"
    table = Table("bucket", "items", "share", "wasted", title=_title(found, planned, kind), title_justify="left")
    for load in planned.best.loads:
        table.add_row(_written(load.bucket), str(load.items), f"{load.items / found.items:.1%}", f"{load.waste:.1%}")
    out.print(table)
    beside = Table("rule", "buckets", "wasted", "work")
    for name, rule in (("chosen", planned.best), ("evenly spaced", planned.even), ("one bucket", planned.one)):
        listed = " ".join(_written(bucket) for bucket in rule.buckets)
        beside.add_row(name, listed, f"{rule.waste:.1%}", f"{rule.served / planned.one.served:.1%}")
    out.print(beside)
    err.print(f"Counted: {cost.statement}. Evenly spaced: {EVEN_RULE}.", markup=False, highlight=False)


def _show_shapes(found: Histogram, planned: ShapePlan) -> None:
    title = _title(found, planned, "exact")
    table = Table("bucket", "pictures", "share", "squeezed by", "at most", title=title, title_justify="left")
    for load in planned.best.loads:
        share = f"{load.items / found.items:.1%}"
        table.add_row(_written(load.bucket), str(load.items), share, f"{load.mean:.1%}", f"{load.most:.1%}")
    out.print(table)
    beside = Table("rule", "buckets", "squeezed by", "at most")
    for name, rule in (("chosen", planned.best), ("evenly spaced", planned.even), ("one bucket", planned.one)):
        listed = " ".join(_written(bucket) for bucket in rule.buckets)
        beside.add_row(name, listed, f"{rule.mean:.1%}", f"{rule.most:.1%}")
    out.print(beside)
    err.print(
        "Squeezed by: how much longer one side becomes against the other. Evenly spaced: in the logarithm of the "
        "aspect ratio.",
        markup=False,
        highlight=False,
    )


def _title(found: Histogram, planned: Plan | ShapePlan, kind: str) -> str:
    return f"{found.items} items, {len(found.counts)} sizes: {len(planned.best.buckets)} bucket(s), {kind}"


COMMANDS = {"buckets": buckets_command}
