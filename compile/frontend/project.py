"""What a command names: the project, an endpoint of it, or a built-in family."""

from __future__ import annotations

from pathlib import Path

import torch

import endpoint_spec as specs
from compile import models
from compile.definition import ModelDefinition
from compile.errors import UsageError


def project(root: Path) -> Path:
    """The absolute project root. Raises UsageError when there is no endpoints/ in it."""
    if not (root / "endpoints").is_dir():
        raise UsageError(
            f"There is no folder endpoints/ in {root.resolve()}.",
            "Run this from the project's root, or name it with --root.",
        )
    return root.resolve()


def endpoint(name: str, root: Path) -> specs.EndpointSpec:
    """The spec of an endpoint. Raises UsageError when there is none of that name, SpecErrors when it is faulty."""
    try:
        return specs.find(name, project(root))
    except specs.ProjectError as error:
        (missing,) = error.errors
        raise UsageError(f"{missing.file} {missing.problem}.", missing.remedy) from None


def family(name: str, variant: str) -> ModelDefinition:
    """A built-in family, with random weights of seed 0. Raises UsageError where it has no such variant."""
    known = models.families()[name].variants
    if variant not in known:
        raise UsageError(
            f"{variant!r} is not a variant of {name}. Variants: {', '.join(known)}.", f"Write {name}:VARIANT."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        definition = models.families()[name].build(variant, {})
    if definition.initialise is not None:
        definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    return definition
