"""The stacks of one account and region: what CloudFormation remembers."""

from __future__ import annotations

import re
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..control.clock import now
from ..errors import ValidationError
from .template import Template

# https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html, StackName
_NAME, _NAME_LENGTH = re.compile(r"[a-zA-Z][-a-zA-Z0-9]*"), 128
STACK_TYPE = "AWS::CloudFormation::Stack"


@dataclass
class StackResource:
    """One resource of a stack as it stands: resolved properties, physical id and the attributes for Fn::GetAtt."""

    logical_id: str
    type: str
    physical_id: str
    properties: dict[str, Any]
    attributes: dict[str, Any]
    definition: dict[str, Any]  # its entry in the template
    needs: set[str]
    status: str = "CREATE_COMPLETE"
    reason: str | None = None
    timestamp: datetime = field(default_factory=now)
    imported: bool = False  # by the operation that runs: rolling it back leaves the resource there

    @property
    def retained_on_delete(self) -> bool:
        """DeletionPolicy, https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html"""
        return self.definition.get("DeletionPolicy", "Delete") in {"Retain", "RetainExceptOnCreate"}

    @property
    def retained_on_replace(self) -> bool:
        """UpdateReplacePolicy, https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-updatereplacepolicy.html"""
        return self.definition.get("UpdateReplacePolicy", "Delete") in {"Retain"}


@dataclass(frozen=True)
class Definition:
    """What a stack is, or shall become: a template with its parameters and tags."""

    body: str = ""
    template: Template = field(default_factory=dict)
    raw_parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # Capabilities, RoleARN, OnFailure ... as given

    def shown_tags(self) -> list[dict[str, str]]:
        """The tags as answers have them."""
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


@dataclass
class ChangeSet:
    """A change set and what it was made from."""

    name: str
    id: str
    kind: str  # CREATE or UPDATE
    definition: Definition
    status: str = "CREATE_COMPLETE"
    reason: str | None = None
    execution_status: str = "AVAILABLE"
    changes: list[dict[str, Any]] = field(default_factory=list)
    created: datetime = field(default_factory=now)


@dataclass
class Stack:
    """One stack, alive or deleted."""

    name: str
    id: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str | None = None
    definition: Definition = field(default_factory=Definition)
    token: str | None = None  # ClientRequestToken of the last operation
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, StackResource] = field(default_factory=dict)
    leftovers: list[StackResource] = field(default_factory=list)  # replaced by an update that was not rolled back
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    change_sets: dict[str, ChangeSet] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    termination_protection: bool = False
    created: datetime = field(default_factory=now)
    updated: datetime | None = None
    deleted: datetime | None = None
    change_set_id: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def in_progress(self) -> bool:
        """Whether an operation runs; REVIEW_IN_PROGRESS only waits for a change set to be executed."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    @property
    def exports(self) -> dict[str, str]:
        """Export name to value."""
        return {
            output["ExportName"]: output["OutputValue"] for output in self.outputs.values() if "ExportName" in output
        }

    def event(self, logical_id: str, kind: str, physical_id: str, status: str, reason: str | None = None) -> None:
        """Record one event: DescribeStackEvents shows them, newest first.

        Times are at least a millisecond apart, since clients sort the events by their milliseconds.
        """
        moment = now()
        if self.events:
            moment = max(moment, self.events[-1]["Timestamp"] + timedelta(milliseconds=1))
        self.events.append(
            {
                "StackId": self.id,
                "EventId": f"{logical_id}-{uuid.uuid4()}",
                "StackName": self.name,
                "LogicalResourceId": logical_id,
                "PhysicalResourceId": physical_id,
                "ResourceType": kind,
                "Timestamp": moment,
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
                "ClientRequestToken": self.token,
            }
        )

    def enter(self, status: str, reason: str | None = None) -> None:
        """Change the stack's own status, with its event."""
        self.status, self.reason = status, reason
        self.event(self.name, STACK_TYPE, self.id, status, reason)


class Store:
    """Every stack of one account and region."""

    def __init__(self, account: str, region: str, partition: str) -> None:
        self.account, self.region, self.partition = account, region, partition
        self.lock = threading.RLock()
        self.stacks: list[Stack] = []

    def find(self, name_or_id: str) -> Stack | None:
        """The living stack of that name, or the stack of that id, deleted or not."""
        for stack in reversed(self.stacks):
            if stack.id == name_or_id or (stack.name == name_or_id and stack.status != "DELETE_COMPLETE"):
                return stack
        return None

    def add(self, name: str) -> Stack:
        """A new stack under review. Raises ValidationError for a name that no stack can have."""
        if len(name) > _NAME_LENGTH or not _NAME.fullmatch(name):
            raise ValidationError(
                f"1 validation error detected: Value {name[:_NAME_LENGTH]!r} at 'stackName' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: "
                f"{_NAME.pattern}, of at most {_NAME_LENGTH} characters"
            )
        stack_id = f"arn:{self.partition}:cloudformation:{self.region}:{self.account}:stack/{name}/{uuid.uuid4()}"
        stack = Stack(name=name, id=stack_id)
        self.stacks.append(stack)
        return stack

    def living(self) -> list[Stack]:
        """Stacks that are not deleted."""
        return [stack for stack in self.stacks if stack.status != "DELETE_COMPLETE"]

    def export(self, name: str) -> tuple[Stack, str] | None:
        """The stack that exports `name`, and the value."""
        for stack in self.living():
            if name in stack.exports:
                return stack, stack.exports[name]
        return None

    def importers(self, name: str) -> list[Stack]:
        """The living stacks that import `name`."""
        return [stack for stack in self.living() if name in stack.imports]
