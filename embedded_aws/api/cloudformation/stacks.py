"""CloudFormation's operations on stacks and templates."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from ...cloudformation.parameters import shown_values
from ...cloudformation.plan import has_changes, planned_changes
from ...cloudformation.store import Definition, Stack
from ...errors import AwsError, ValidationError
from .request import ANSWER_WITHIN_SECONDS, StackRequest


class Stacks(StackRequest):
    """Create, update, delete, describe."""

    def create_stack(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html"""
        name = self.params["StackName"]
        with self.store.lock:
            if self.store.find(name):
                raise AwsError("AlreadyExistsException", f"Stack [{name}] already exists")
            definition = self._definition(None)
            stack = self.store.add(name)
            stack.termination_protection = bool(self.params.get("EnableTerminationProtection"))
            self._start(stack, "CREATE", definition)
        stack.done.wait(ANSWER_WITHIN_SECONDS)
        return ActionResult({"StackId": stack.id})

    def update_stack(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_UpdateStack.html"""
        with self.store.lock:
            stack = self._stack(self.params["StackName"])
            self._refuse_busy(stack)
            definition = self._definition(stack)
            changes = planned_changes(self.store, self.host.clients, stack, definition)
            if not has_changes(self.store, self.host.clients, stack, definition, changes):
                raise ValidationError("No updates are to be performed.")
            self._start(stack, "UPDATE", definition)
        stack.done.wait(ANSWER_WITHIN_SECONDS)
        return ActionResult({"StackId": stack.id})

    def delete_stack(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DeleteStack.html"""
        with self.store.lock:
            stack = self.store.find(self.params["StackName"])
            if stack is None or stack.status == "DELETE_COMPLETE":
                return EmptyResult()
            if stack.termination_protection:
                raise ValidationError(f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
            if stack.in_progress and stack.status != "DELETE_IN_PROGRESS":
                self._refuse_busy(stack)
            if self._exports_in_use(stack):
                return EmptyResult()
            self._start(stack, "DELETE", Definition())
        stack.done.wait(ANSWER_WITHIN_SECONDS)
        return EmptyResult()

    def _exports_in_use(self, stack: Stack) -> bool:
        """A stack whose export is in use keeps its status and gets the reason, with an event.

        Source: "Get exported outputs from a deployed CloudFormation stack",
        https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-exports.html
        """
        for name in stack.exports:
            users = [user.name for user in self.store.importers(name) if user is not stack]
            if users:
                reason = f"Export {name} cannot be deleted as it is in use by {' and '.join(users)}"
                stack.enter(stack.status, reason)
                return True
        return False

    def describe_stacks(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html"""
        name = self.params.get("StackName")
        stacks = [self._stack(name)] if name else self.store.living()
        return ActionResult({"Stacks": [self._described(stack) for stack in stacks]})

    def list_stacks(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListStacks.html"""
        wanted = self.params.get("StackStatusFilter")
        stacks = [stack for stack in reversed(self.store.stacks) if not wanted or stack.status in wanted]
        return ActionResult({"StackSummaries": [self._summary(stack) for stack in stacks]})

    def update_termination_protection(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_UpdateTerminationProtection.html"""
        stack = self._stack(self.params["StackName"])
        stack.termination_protection = bool(self.params["EnableTerminationProtection"])
        return ActionResult({"StackId": stack.id})

    def get_template(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_GetTemplate.html"""
        if self.params.get("ChangeSetName"):
            body = self._change_set()[1].definition.body
        else:
            body = self._stack(self.params["StackName"]).definition.body
        return ActionResult({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})

    def get_template_summary(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_GetTemplateSummary.html"""
        if self.params.get("StackName"):
            template = self._stack(self.params["StackName"]).definition.template
        else:
            template = self._parsed(self._body(None))
        return ActionResult(_template_summary(template))

    def validate_template(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ValidateTemplate.html"""
        return ActionResult(_template_summary(self._parsed(self._body(None))))

    def _described(self, stack: Stack) -> dict[str, Any]:
        definition = stack.definition
        settings = definition.settings
        return {
            **self._summary(stack),
            "Parameters": shown_values(definition.template, definition.raw_parameters, stack.parameters),
            "Outputs": list(stack.outputs.values()),
            "Capabilities": settings.get("Capabilities", []),
            "RoleARN": settings.get("RoleARN"),
            "DisableRollback": bool(settings.get("DisableRollback")),
            "RollbackConfiguration": settings.get("RollbackConfiguration") or {},
            "EnableTerminationProtection": stack.termination_protection,
            "ChangeSetId": stack.change_set_id,
            "Description": definition.template.get("Description"),
            "Tags": definition.shown_tags(),
        }

    def _summary(self, stack: Stack) -> dict[str, Any]:
        return {
            "StackId": stack.id,
            "StackName": stack.name,
            "CreationTime": stack.created,
            "LastUpdatedTime": stack.updated,
            "DeletionTime": stack.deleted,
            "StackStatus": stack.status,
            "StackStatusReason": stack.reason,
            "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
        }


def _template_summary(template: dict[str, Any]) -> dict[str, Any]:
    parameters = []
    for name, declaration in (template.get("Parameters") or {}).items():
        default = declaration.get("Default")
        parameters.append(
            {
                "ParameterKey": name,
                "DefaultValue": None if default is None else str(default),
                "ParameterType": declaration.get("Type", "String"),
                "NoEcho": str(declaration.get("NoEcho", "false")).lower() == "true",
                "Description": declaration.get("Description"),
            }
        )
    types = sorted({item["Type"] for item in template["Resources"].values()})
    needs_iam = any(kind.startswith("AWS::IAM::") for kind in types)
    return {
        "Parameters": parameters,
        "Description": template.get("Description"),
        "ResourceTypes": types,
        "Capabilities": ["CAPABILITY_NAMED_IAM"] if needs_iam else [],
    }
