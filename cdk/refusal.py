"""Marks a stack as not deployable, with the problems and the command that helps."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Annotations, CfnRule, CfnRuleAssertion, CfnWaitConditionHandle, Fn, Stack


def refuse_deployment(stack: Stack, problems: Sequence[str]) -> None:
    """Refuse to deploy one stack; the app's other stacks deploy all the same.

    The error annotation stops the CDK CLI for this stack. The template's rule is the second line: CloudFormation
    itself rejects the template when the CLI ignores annotations.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/rules-section-structure.html
    """
    for problem in problems:
        Annotations.of(stack).add_error(problem)
    assertion = CfnRuleAssertion(
        assert_=Fn.condition_equals("deployable", "refused"), assert_description=" ".join(problems)
    )
    CfnRule(stack, "Deployable", assertions=[assertion])


def hold_place(stack: Stack, missing: str = "NoLock") -> None:
    """Give a stack that lacks what it is made of one harmless resource: the CDK CLI deletes a deployed, empty stack."""
    CfnWaitConditionHandle(stack, missing)
