"""CloudFormation's operations on change sets."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from ...cloudformation.parameters import shown_values
from ...cloudformation.plan import NO_CHANGES, has_changes, planned_changes
from ...cloudformation.store import ChangeSet, Stack
from ...cloudformation.template import TemplateError
from ...errors import AwsError, ValidationError
from .request import ANSWER_WITHIN_SECONDS, ChangeSetNotFoundError, StackRequest


class ChangeSets(StackRequest):
    """Create, describe, delete, execute."""

    def create_change_set(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateChangeSet.html

        ImportExistingResources, which `cdk bootstrap` always sends, takes over the log groups that are there already
        (engine.Operation); what else exists fails the stack, with the service's own words.
        """
        kind = self.params.get("ChangeSetType") or "UPDATE"
        for key in ("ResourcesToImport", "DeploymentMode"):
            if self.params.get(key):
                raise ValidationError(f"the embedded AWS does not honour {key} of CreateChangeSet")
        with self.store.lock:
            stack = self._stack_for_change_set(kind)
            definition = self._definition(stack if kind == "UPDATE" else None)
            name = self.params["ChangeSetName"]
            if name in stack.change_sets:
                raise AwsError("AlreadyExistsException", f"ChangeSet {name} already exists")
            where = f"arn:{self.partition}:cloudformation:{self.region}:{self.current_account}"
            change_set = ChangeSet(name, f"{where}:changeSet/{name}/{uuid.uuid4()}", kind, definition)
            stack.change_sets[name] = change_set
            self._plan(stack, change_set)
        return ActionResult({"Id": change_set.id, "StackId": stack.id})

    def _stack_for_change_set(self, kind: str) -> Stack:
        name = self.params["StackName"]
        stack = self.store.find(name)
        if kind == "CREATE":
            if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                raise ValidationError(f"Stack [{name}] already exists and cannot be created again with the changeSet")
            if stack is None:
                stack = self.store.add(name)
                stack.enter("REVIEW_IN_PROGRESS", "User Initiated")
            return stack
        if stack is None:
            raise ValidationError(f"Stack [{name}] does not exist")
        self._refuse_busy(stack)
        return stack

    def _plan(self, stack: Stack, change_set: ChangeSet) -> None:
        definition = change_set.definition
        try:
            change_set.changes = planned_changes(self.store, self.host.clients, stack, definition)
            if change_set.kind == "UPDATE" and not has_changes(
                self.store, self.host.clients, stack, definition, change_set.changes
            ):
                raise TemplateError(NO_CHANGES)
        except TemplateError as error:
            change_set.status, change_set.reason = "FAILED", str(error)
            change_set.execution_status = "UNAVAILABLE"

    def describe_change_set(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeChangeSet.html"""
        stack, change_set = self._change_set()
        definition = change_set.definition
        return ActionResult(
            {
                **self._change_set_summary(stack, change_set),
                "Changes": change_set.changes,
                "RollbackConfiguration": definition.settings.get("RollbackConfiguration") or {},
                "ImportExistingResources": bool(definition.settings.get("ImportExistingResources")),
                "Parameters": shown_values(definition.template, definition.raw_parameters, {}),
                "Capabilities": definition.settings.get("Capabilities", []),
                "Tags": definition.shown_tags(),
            }
        )

    def list_change_sets(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListChangeSets.html"""
        stack = self._stack(self.params["StackName"])
        rows = [self._change_set_summary(stack, change_set) for change_set in list(stack.change_sets.values())]
        return ActionResult({"Summaries": rows})

    def delete_change_set(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DeleteChangeSet.html"""
        try:
            stack, change_set = self._change_set()
        except ChangeSetNotFoundError:
            return EmptyResult()
        del stack.change_sets[change_set.name]
        return EmptyResult()

    def execute_change_set(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html"""
        with self.store.lock:
            stack, change_set = self._change_set()
            if change_set.execution_status != "AVAILABLE":
                raise AwsError(
                    "InvalidChangeSetStatus",
                    f"ChangeSet [{change_set.id}] cannot be executed in its current status of [{change_set.status}]",
                )
            self._refuse_busy(stack)
            definition = replace(change_set.definition, settings={**change_set.definition.settings, **self._settings()})
            # an executed change set takes the others of its stack with it
            stack.change_sets = {}
            stack.change_set_id = change_set.id
            self._start(stack, change_set.kind, definition)
        stack.done.wait(ANSWER_WITHIN_SECONDS)
        return EmptyResult()

    def _change_set_summary(self, stack: Stack, change_set: ChangeSet) -> dict[str, Any]:
        return {
            "StackId": stack.id,
            "StackName": stack.name,
            "ChangeSetId": change_set.id,
            "ChangeSetName": change_set.name,
            "Status": change_set.status,
            "StatusReason": change_set.reason,
            "ExecutionStatus": change_set.execution_status,
            "CreationTime": change_set.created,
            "Description": change_set.definition.settings.get("Description"),
        }
