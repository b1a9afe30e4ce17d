"""Acknowledged findings of cdk-nag: each names one finding at one construct, and why it is meant."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, *, finding: str, reason: str) -> None:
    """Accept one AwsSolutions finding at one construct.

    finding: the rule's id, with its detail in brackets where it has one ("AwsSolutions-IAM5[Resource::*]").
    reason: why this is right here, in a sentence.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=finding, reason=reason))
