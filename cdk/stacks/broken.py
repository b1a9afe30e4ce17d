"""What stands for an endpoint whose spec cannot be read, so that the other endpoints deploy all the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import Stack
from constructs import Construct

from endpoint_spec.endpoint import NAME
from endpoint_spec.errors import SpecErrors

from ..deployment import Deployment
from ..refusal import hold_place, refuse_deployment


@dataclass(frozen=True)
class Broken:
    """An endpoint by the name of its file, its faults, and what of its stacks its text still tells."""

    name: str
    problems: Sequence[str]
    compiled_here: bool
    shares: bool


def broken(faulty: Mapping[Path, SpecErrors], known: Sequence[str]) -> list[Broken]:
    """The endpoints of faulty files. known: the names of endpoints that are right.

    Raises SpecErrors for a file of which no stack can be named: no name, or that of another file.
    """
    nameless = [found for path, found in faulty.items() if path.stem in known or not NAME.fullmatch(path.stem)]
    if nameless:
        raise SpecErrors([error for found in nameless for error in found.errors])
    result = []
    for path, found in faulty.items():
        text = path.read_text(encoding="utf-8", errors="replace")
        compiled = re.search(r"^job\s*:", text, re.MULTILINE) is not None
        shares = re.search(r"\bshared\s*:\s*true\b", text) is not None
        result.append(Broken(path.stem, [str(error) for error in found.errors], compiled, shares))
    return result


class BrokenStack(Stack):
    """Carries the faults as error annotations: deploying it is refused, and what is deployed stays as it is."""

    def __init__(self, scope: Construct, construct_id: str, *, problems: Sequence[str], deployment: Deployment) -> None:
        super().__init__(scope, construct_id, stack_name=construct_id, env=deployment.environment)
        refuse_deployment(self, problems)
        hold_place(self, "NoSpec")
