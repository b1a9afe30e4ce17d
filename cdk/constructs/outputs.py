"""Stack outputs under names that other tools rely on."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import CfnOutput, Stack


def add_outputs(stack: Stack, outputs: Mapping[str, tuple[str, str]]) -> None:
    """Add outputs to a stack. outputs: exact output name -> (value, description)."""
    for name, (value, description) in outputs.items():
        CfnOutput(stack, name, value=value, description=description)
