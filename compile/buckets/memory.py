"""How many buckets fit: every bucket is a graph with its own copy of the weights (see compile/analysis/capacity.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from compile.analysis.capacity import VariantSize, capacity, shown, size
from compile.analysis.variant import analyzed
from compile.buckets.sizes import Size
from compile.definition import GraphVariant
from compile.errors import CompileError, UsageError
from compile.frontend import loading
from compile.lowering.config import of_spec
from compile.progress import Silent

if TYPE_CHECKING:
    from compile.definition import ModelDefinition
    from endpoint_spec import EndpointSpec

_BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|[kKMGT]i?B)")
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "kiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DISK = "disk of this machine"  # where it is compiled, not where it runs


@dataclass(frozen=True)
class Room:
    """most: buckets that fit. reason: what decides; predicted, where it comes from a traced graph."""

    most: int
    reason: str
    weights: int
    activations: int


def parsed(option: str, text: str) -> int:
    """Bytes of a text such as 2GiB or 99MB. Raises UsageError."""
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"{option} {text!r} is not a size of memory.", f"Write a number and a unit, such as {option} 2GiB."
        )
    return int(Decimal(found[1]) * {**_UNITS, **_BINARY}[found[2]])


def by_bytes(memory: int, weights: int, activations: int) -> Room:
    """How many copies of the weights fit beside the largest bucket's activations. Raises CompileError for none."""
    most = (memory - activations) // weights if memory > activations else 0
    reason = f"{shown(memory)} hold {most} x {shown(weights)} of weights beside {shown(activations)} of activations"
    if most < 1:
        raise CompileError(
            f"Not even one bucket fits: {shown(weights)} of weights and {shown(activations)} of activations need more "
            f"than {shown(memory)}.",
            "Give more --memory (a pipeline's cores share their memory), or a smaller model or largest size.",
        )
    return Room(most, reason, weights, activations)


def by_spec(spec: EndpointSpec, largest: Size, memory: int | None, wanted: int) -> tuple[Room, str]:
    """The room on the spec's instance, from the traced graph of the largest bucket; and the dimension's name.

    Every bucket counts with the largest one's activations. memory: instead of the instance's cores. Raises
    CompileError when the model cannot be made for this size, or when not even one bucket fits.
    """
    definition = loading.definition(spec)
    name = dimension(definition, len(largest))
    bucket = {name: largest[0] if len(largest) == 1 else list(largest)}
    target, rewriting, accepted = spec.compile.target, of_spec(spec), spec.compile.accept.findings
    variants = [
        size(analyzed(GraphVariant(role, bucket, batch), graph, target, rewriting, accepted, Silent()), spec)
        for role, graph in definition.graphs.items()
        for batch in definition.sizes(spec.compile)[1]
    ]
    weights = sum(variant.weights for variant in variants)
    activations = max(variant.activations for variant in variants)
    if memory is not None:
        return by_bytes(memory, weights, activations), name
    most = 0
    while most < wanted and not _short(spec, variants, most + 1):
        most += 1
    short = _short(spec, variants, most + 1)
    if most < 1:
        raise CompileError(f"Not even one bucket of {bucket} fits {spec.serve.instance_type}:\n  " + "\n  ".join(short))
    reason = f"all {most} fit {spec.serve.instance_type}" if most == wanted else f"one more: {'; '.join(short)}"
    return Room(most, reason, weights, activations), name


def _short(spec: EndpointSpec, variants: Sequence[VariantSize], count: int) -> list[str]:
    """The resources of the instance that `count` buckets of these variants do not fit."""
    return [
        f"{demand.resource} needs {shown(demand.needed)} (predicted), there are {shown(demand.available)}"
        for demand in capacity(spec, list(variants) * count, spec.root).demands
        if demand.resource != _DISK and not demand.fits
    ]


def dimension(definition: ModelDefinition, sides: int) -> str:
    """The name of the model's one dimension with `sides` numbers. Raises CompileError when it has none or several."""
    bucket = definition.buckets[0]
    names = [name for name, size in bucket.items() if (1 if isinstance(size, int) else len(size)) == sides]
    if len(names) != 1 or len(bucket) != 1:
        kinds = {1: "lengths", 2: "pictures"}
        raise CompileError(
            f"The sizes are {kinds[sides]}, and a bucket of this model is {dict(bucket)}.",
            "Plan without NAME, with --memory, --weights and --activations.",
        )
    return names[0]
