"""CloudFormation's operations on the resources, events, exports and imports of stacks."""

from __future__ import annotations

import json
from typing import Any

from moto.core.responses import ActionResult

from ...cloudformation.store import Stack, StackResource
from ...errors import ValidationError
from .request import StackRequest


class Resources(StackRequest):
    """All of them only read."""

    def describe_stack_events(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackEvents.html"""
        stack = self._stack(self.params["StackName"])
        return ActionResult({"StackEvents": list(reversed(stack.events))})

    def describe_events(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeEvents.html

        No validation runs before a deployment, so a change set has no events.
        """
        if self.params.get("ChangeSetName"):
            return ActionResult({"OperationEvents": []})
        stack = self._stack(self.params["StackName"])
        only_failed = (self.params.get("Filters") or {}).get("FailedEvents")
        events = [
            {**event, "EventType": "STACK_EVENT"}
            for event in reversed(stack.events)
            if not only_failed or event["ResourceStatus"].endswith("_FAILED")
        ]
        return ActionResult({"OperationEvents": events})

    def describe_stack_resource(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackResource.html"""
        stack, logical_id = self._stack(self.params["StackName"]), self.params["LogicalResourceId"]
        if logical_id not in stack.resources:
            raise ValidationError(f"Resource {logical_id} does not exist for stack {stack.name}")
        resource = stack.resources[logical_id]
        detail = self._resource(stack, resource)
        detail["LastUpdatedTimestamp"] = resource.timestamp
        detail["Metadata"] = json.dumps(resource.definition.get("Metadata", {}))
        return ActionResult({"StackResourceDetail": detail})

    def describe_stack_resources(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackResources.html"""
        physical_id, logical_id = self.params.get("PhysicalResourceId"), self.params.get("LogicalResourceId")
        if self.params.get("StackName"):
            stacks = [self._stack(self.params["StackName"])]
        else:
            stacks = [
                stack
                for stack in self.store.living()
                if any(item.physical_id == physical_id for item in list(stack.resources.values()))
            ]
            if not stacks:
                raise ValidationError(f"Stack for {physical_id} does not exist")
        rows = [
            self._resource(stack, resource)
            for stack in stacks
            for resource in list(stack.resources.values())
            if not logical_id or resource.logical_id == logical_id
        ]
        return ActionResult({"StackResources": rows})

    def list_stack_resources(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListStackResources.html"""
        stack = self._stack(self.params["StackName"])
        rows = [
            {**self._resource(stack, resource), "LastUpdatedTimestamp": resource.timestamp}
            for resource in list(stack.resources.values())
        ]
        return ActionResult({"StackResourceSummaries": rows})

    def list_exports(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListExports.html"""
        exports = [
            {"ExportingStackId": stack.id, "Name": name, "Value": value}
            for stack in self.store.living()
            for name, value in stack.exports.items()
        ]
        return ActionResult({"Exports": exports})

    def list_imports(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListImports.html"""
        name = self.params["ExportName"]
        users = [stack.name for stack in self.store.importers(name)]
        if not users:
            raise ValidationError(f"Export '{name}' is not imported by any stack.")
        return ActionResult({"Imports": users})

    def _resource(self, stack: Stack, resource: StackResource) -> dict[str, Any]:
        return {
            "StackName": stack.name,
            "StackId": stack.id,
            "LogicalResourceId": resource.logical_id,
            "PhysicalResourceId": resource.physical_id,
            "ResourceType": resource.type,
            "Timestamp": resource.timestamp,
            "ResourceStatus": resource.status,
            "ResourceStatusReason": resource.reason,
            "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
        }
