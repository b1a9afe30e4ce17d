"""Tags of a stack and of everything in it that can carry tags."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Tags
from constructs import IConstruct

REHEARSAL_TAG = "rehearsal"


def add_tags(construct: IConstruct, tags: Mapping[str, str], *, rehearsal: bool) -> None:
    """Tag everything below a construct. rehearsal: add the tag that marks what must never reach AWS."""
    for key, value in sorted(tags.items()):
        Tags.of(construct).add(key, value)
    if rehearsal:
        Tags.of(construct).add(REHEARSAL_TAG, "true")
