"""What `verify --per-module` and `verify --precision` try: the graphs of an endpoint or of a built-in family, with
their weights and inputs, without an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile import models
from compile.definition import GraphVariant, Inputs, ModelDefinition, checked_inputs
from compile.errors import UsageError
from compile.frontend import loading, weights
from compile.frontend.project import endpoint, family
from compile.ir.flat_module import FlatModule, flat_module, signature
from compile.lowering.config import ALL, Rewriting, made, of_spec
from endpoint_spec.endpoint import Accept, Compile

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

FORMS = "Give an endpoint's name, or family:variant of a built-in family."


@dataclass(frozen=True)
class VerifiedVariant:
    """One graph to try. `outputs` names the tensors of `module`'s flat tuple; `accept` is what the spec asks for.

    target, rewriting: how it is lowered and what of it is compiled.
    """

    name: str
    module: FlatModule
    example: Inputs
    references: Sequence[Inputs]
    outputs: tuple[str, ...]
    task: str
    settings: Mapping[str, Any]
    accept: Accept
    target: str = "inf1"
    rewriting: Rewriting = ALL


def trials(what: str, root: Path, rewrites: Path | None = None) -> list[VerifiedVariant]:
    """Every graph of an endpoint (NAME) or of a family with random weights (family:variant), at its first bucket.

    rewrites: a file of a user's own, beside those of the endpoint's spec.
    Raises UsageError when WHAT names nothing, CompileError when the model or its weights cannot be made.
    """
    name, colon, variant = what.partition(":")
    if not colon:
        spec = endpoint(what, root)
        rewriting = of_spec(spec, rewrites)
        definition = loading.definition(spec)
        weights.fill(spec, definition)
        return _of_definition(what, definition, spec, rewriting)
    if name not in models.families():
        raise UsageError(f"There is no family {name!r}. Families: {', '.join(models.families())}.", FORMS)
    definition = family(name, variant)
    own = made([rewrites], root) if rewrites else ALL
    return _of_definition(what, definition, None, own)


def _of_definition(
    name: str, definition: ModelDefinition, spec: EndpointSpec | None, rewriting: Rewriting
) -> list[VerifiedVariant]:
    (bucket, *_), (batch, *_) = definition.sizes(spec.compile if spec else Compile())
    found = []
    for role, graph in definition.graphs.items():
        variant = GraphVariant(role, bucket, batch)
        example, references = checked_inputs(graph, role, bucket, batch)
        flat = flat_module(graph.module, example)
        found.append(
            VerifiedVariant(
                name=f"{name} {variant}",
                module=flat,
                example=example,
                references=references,
                outputs=tuple(output.name for output in signature(flat, example).outputs),
                task=definition.task,
                settings=definition.task_settings,
                accept=spec.compile.accept if spec else Accept(),
                target=spec.compile.target if spec else "inf1",
                rewriting=rewriting,
            )
        )
    return found
