"""`build --plan`: the matrix of graphs as a table, and whether it fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from compile.cli.options import err, out

if TYPE_CHECKING:
    from compile.analysis.capacity import Capacity
    from compile.analysis.decoding_cost import DecodingPlan
    from endpoint_spec import EndpointSpec


def decoding_table(weighed: Sequence[DecodingPlan]) -> Table:
    """Cached step and whole prefix beside each other, and which costs less."""
    title = "One step of decoding: cached, or the whole prefix anew (predicted)"
    table = Table("graph", "cached step", "whole prefix", "costs less", title=title, title_justify="left")
    for one in weighed:
        table.add_row(one.variant, str(one.cached), str(one.prefix), one.verdict)
    return table


def show_capacity(spec: EndpointSpec, found: Capacity, weighed: Sequence[DecodingPlan], json_: bool) -> None:
    """Tables on stdout (a third for a model that decodes), the levers on stderr; or everything as JSON."""
    from compile.analysis.capacity import shown  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    if json_:
        both = {**found.to_json(), "decoding": [one.to_json() for one in weighed]}
        typer.echo(json.dumps({"name": spec.name, "instance_type": spec.serve.instance_type, **both}, indent=2))
        return
    variants = Table("graph", "weights", "activations", "GFLOP", title=f"{spec.name}: graphs (predicted)")
    for variant in found.variants:
        variants.add_row(
            variant.variant, shown(variant.weights), shown(variant.activations), f"{variant.flops / 1e9:.2f}"
        )
    out.print(variants)
    demands = Table("resource", "needed", "there", "", "because", title=f"{spec.serve.instance_type} (predicted)")
    for demand in found.demands:
        mark = "[green]✓[/green]" if demand.fits else "[red]does not fit[/red]"
        demands.add_row(demand.resource, shown(demand.needed), shown(demand.available), mark, demand.reason)
    out.print(demands)
    if weighed:
        out.print(decoding_table(weighed))
    for demand in found.demands:
        if not demand.fits:
            err.print(f"{demand.resource}: levers: {demand.levers}.", markup=False, highlight=False)
