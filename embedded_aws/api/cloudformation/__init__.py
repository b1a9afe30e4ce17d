"""CloudFormation's operations for clients, in place of moto's.

Source: AWS CloudFormation API Reference, https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/Welcome.html
An operation that is not here answers that the embedded AWS does not have it.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from embedded_aws.cloudformation.engine import Operation
from embedded_aws.cloudformation.parameters import given_values, resolved_values, shown_values
from embedded_aws.cloudformation.plan import NO_CHANGES, has_changes, planned_changes
from embedded_aws.cloudformation.scope import Definition, read_ssm
from embedded_aws.cloudformation.store import ChangeSet, Stack, Store
from embedded_aws.cloudformation.template import TemplateError, parse
from embedded_aws.context import WithContext
from embedded_aws.control.clock import now
from embedded_aws.errors import AwsError, ValidationError
from embedded_aws.providers import type_fault

# An answer within this time spares the CDK CLI its polling interval of five seconds.
ANSWER_WITHIN_SECONDS = 10.0
_SETTINGS = (
    "Capabilities",
    "RoleARN",
    "ClientRequestToken",
    "DisableRollback",
    "OnFailure",
    "Description",
)
# What a request may ask for and nothing here would do
_UNHONOURED = (
    "NotificationARNs",
    "TimeoutInMinutes",
    "RollbackConfiguration",
    "StackPolicyBody",
    "StackPolicyURL",
    "ResourceTypes",
)
_NAMED_IAM = {
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
}


class ChangeSetNotFoundError(AwsError):
    """No such change set."""

    code = "ChangeSetNotFound"


class CloudFormation(WithContext, BaseResponse):
    """One request; moto parses it and serializes the answer by botocore's model."""

    def __init__(self) -> None:
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    @property
    def store(self) -> Store:
        """The stacks of the request's account and region."""
        return self.context.stacks.store(self.current_account, self.region, self.partition)

    # -- stacks ---------------------------------------------------------------------------------------------------

    def create_stack(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html"""
        name = self.params["StackName"]
        with self.store.lock:
            if self.store.find(name):
                raise AwsError("AlreadyExistsException", f"Stack [{name}] already exists")
            definition = self._definition(None)
            stack = self.store.add(name)
            stack.termination_protection = bool(self.params.get("EnableTerminationProtection"))
            self._start(stack, definition, lambda operation: operation.create(definition), "CREATE_IN_PROGRESS")
        self._wait(stack)
        return ActionResult({"StackId": stack.id})

    def update_stack(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_UpdateStack.html"""
        with self.store.lock:
            stack = self._stack(self.params["StackName"])
            self._refuse_busy(stack)
            definition = self._definition(stack)
            try:
                changes = planned_changes(self.store, self.host.clients, stack, definition)
                if not has_changes(self.store, self.host.clients, stack, definition, changes):
                    raise ValidationError("No updates are to be performed.")
            except TemplateError as error:
                raise ValidationError(str(error)) from error
            self._start(stack, definition, lambda operation: operation.update(definition), "UPDATE_IN_PROGRESS")
        self._wait(stack)
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
            keep = set(self.params.get("RetainResources") or [])
            stack.settings["ClientRequestToken"] = self.params.get("ClientRequestToken")
            self._start(stack, None, lambda operation: operation.delete(keep), "DELETE_IN_PROGRESS")
        self._wait(stack)
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
            body = self._change_set()[1].body
        else:
            body = self._stack(self.params["StackName"]).body
        return ActionResult({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})

    def get_template_summary(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_GetTemplateSummary.html"""
        if self.params.get("StackName"):
            template = self._stack(self.params["StackName"]).template
        else:
            template = self._parsed(self._body(None))
        return ActionResult(_template_summary(template))

    def validate_template(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ValidateTemplate.html"""
        return ActionResult(_template_summary(self._parsed(self._body(None))))

    # -- resources and events -------------------------------------------------------------------------------------

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

    # -- change sets ----------------------------------------------------------------------------------------------

    def create_change_set(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateChangeSet.html

        ImportExistingResources, which `cdk bootstrap` always sends, imports nothing: a resource that exists already
        fails the stack, with the service's own words.
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
            change_set = ChangeSet(
                name=name,
                id=f"{where}:changeSet/{name}/{uuid.uuid4()}",
                kind=kind,
                body=definition.body,
                template=definition.template,
                raw_parameters=definition.raw_parameters,
                tags=definition.tags,
                request=definition.settings,
            )
            stack.change_sets[name] = change_set
            self._plan(stack, change_set, definition)
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

    def _plan(self, stack: Stack, change_set: ChangeSet, definition: Definition) -> None:
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
        return ActionResult(
            {
                **self._change_set_summary(stack, change_set),
                "Changes": change_set.changes,
                "Parameters": shown_values(change_set.template, change_set.raw_parameters, {}),
                "Capabilities": change_set.request.get("Capabilities", []),
                "Tags": [{"Key": key, "Value": value} for key, value in change_set.tags.items()],
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
            settings = {**change_set.request}
            settings.update({key: self.params[key] for key in _SETTINGS if self.params.get(key) is not None})
            definition = Definition(
                change_set.body, change_set.template, change_set.raw_parameters, change_set.tags, settings
            )
            # an executed change set takes the others of its stack with it
            stack.change_sets = {}
            stack.change_set_id = change_set.id
            if change_set.kind == "CREATE":
                self._start(stack, definition, lambda operation: operation.create(definition), "CREATE_IN_PROGRESS")
            else:
                self._start(stack, definition, lambda operation: operation.update(definition), "UPDATE_IN_PROGRESS")
        self._wait(stack)
        return EmptyResult()

    # -- helpers --------------------------------------------------------------------------------------------------

    def _start(
        self, stack: Stack, definition: Definition | None, run: Callable[[Operation], None], status: str
    ) -> None:
        if definition is not None:
            stack.settings["ClientRequestToken"] = definition.settings.get("ClientRequestToken")
        if status == "UPDATE_IN_PROGRESS":
            stack.updated = now()
        stack.enter(status, "User Initiated")
        stack.done.clear()
        operation = Operation(self.store, self.host.clients, stack)

        def body() -> None:
            try:
                run(operation)
            except BaseException as error:
                stack.enter(status.replace("IN_PROGRESS", "FAILED"), f"internal error: {error!r}")
                raise
            finally:
                stack.done.set()

        threading.Thread(target=body, name=f"cloudformation {stack.name}", daemon=True).start()

    def _wait(self, stack: Stack) -> None:
        stack.done.wait(ANSWER_WITHIN_SECONDS)

    def _stack(self, name: str) -> Stack:
        stack = self.store.find(name)
        if stack is None:
            raise ValidationError(f"Stack with id {name} does not exist")
        return stack

    def _refuse_busy(self, stack: Stack) -> None:
        stuck = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED"}
        if stack.in_progress or stack.status in stuck:
            raise ValidationError(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")

    def _change_set(self) -> tuple[Stack, ChangeSet]:
        wanted = self.params["ChangeSetName"]
        given = self.params.get("StackName")
        stacks = [self._stack(given)] if given else self.store.living()
        for stack in stacks:
            for change_set in list(stack.change_sets.values()):
                if wanted in (change_set.name, change_set.id):
                    return stack, change_set
        raise ChangeSetNotFoundError(f"ChangeSet [{wanted}] does not exist")

    def _definition(self, stack: Stack | None) -> Definition:
        """What the request asks for; raises ValidationError when it cannot be."""
        refused = [key for key in _UNHONOURED if self.params.get(key)]
        if refused:
            raise ValidationError(f"the embedded AWS does not honour {', '.join(refused)}")
        body = self._body(stack)
        template = self._parsed(body)
        try:
            raw = given_values(
                template, self.params.get("Parameters") or [], stack.raw_parameters if stack is not None else {}
            )
            resolved_values(template, raw, read_ssm(self.host.clients, self.region))
        except TemplateError as error:
            raise ValidationError(str(error)) from error
        self._check_capabilities(template)
        tags = {tag["Key"]: tag["Value"] for tag in self.params.get("Tags") or []}
        if stack is not None and self.params.get("Tags") is None:
            tags = stack.tags
        settings = {key: self.params[key] for key in _SETTINGS if self.params.get(key) is not None}
        if self.params.get("OnStackFailure"):
            settings["OnFailure"] = self.params["OnStackFailure"]
        return Definition(body, template, raw, tags, settings)

    def _parsed(self, body: str) -> dict[str, Any]:
        try:
            template = parse(body)
        except TemplateError as error:
            raise ValidationError(str(error)) from error
        faults = [type_fault(item["Type"], self.region) for item in template["Resources"].values()]
        unknown = sorted({fault for fault in faults if fault})
        if unknown:
            raise ValidationError("Template format error: " + "; ".join(unknown))
        return template

    def _check_capabilities(self, template: dict[str, Any]) -> None:
        """https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html, Capabilities"""
        given = set(self.params.get("Capabilities") or [])
        needed = set()
        for item in template["Resources"].values():
            if item["Type"].startswith("AWS::IAM::"):
                named = _NAMED_IAM.get(item["Type"], "") in (item.get("Properties") or {})
                needed.add("CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM")
        if "CAPABILITY_NAMED_IAM" in given:
            given.add("CAPABILITY_IAM")
        missing = sorted(needed - given)
        if missing:
            raise AwsError("InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(missing)}]")

    def _body(self, stack: Stack | None) -> str:
        if self.params.get("UsePreviousTemplate"):
            if stack is None:
                raise ValidationError("UsePreviousTemplate needs a stack that exists")
            return stack.body
        if self.params.get("TemplateBody"):
            return str(self.params["TemplateBody"])
        url = self.params.get("TemplateURL")
        if not url:
            raise ValidationError("Either Template URL or Template Body must be specified.")
        bucket, key = bucket_and_key(url)
        s3 = self.host.clients.client("s3", self.region)
        try:
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()  # type: ignore[no-any-return]
        except s3.exceptions.ClientError as error:
            raise ValidationError(f"S3 error: {error.response['Error'].get('Message')} ({url})") from error

    def _described(self, stack: Stack) -> dict[str, Any]:
        described = self._summary(stack)
        described.update(
            {
                "Parameters": shown_values(stack.template, stack.raw_parameters, stack.parameters),
                "Outputs": list(stack.outputs.values()),
                "Capabilities": stack.settings.get("Capabilities", []),
                "RoleARN": stack.settings.get("RoleARN"),
                "DisableRollback": bool(stack.settings.get("DisableRollback")),
                "EnableTerminationProtection": stack.termination_protection,
                "ChangeSetId": stack.change_set_id,
                "Description": stack.template.get("Description"),
                "Tags": [{"Key": key, "Value": value} for key, value in stack.tags.items()],
            }
        )
        return described

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

    def _resource(self, stack: Stack, resource: Any) -> dict[str, Any]:
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
            "Description": change_set.request.get("Description"),
        }


def bucket_and_key(url: str) -> tuple[str, str]:
    """The bucket and key of an S3 URL, path style or virtual-hosted style.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    parts = urlsplit(url)
    host, path = parts.hostname or "", unquote(parts.path.lstrip("/"))
    hosted = re.fullmatch(r"(.+)\.s3[.-][a-z0-9.-]*amazonaws\.com|(.+)\.s3\.localhost", host)
    if hosted:
        return hosted.group(1) or hosted.group(2), path
    bucket, _, key = path.partition("/")
    return bucket, key


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
