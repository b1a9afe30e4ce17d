"""What every CloudFormation operation has: the stacks, the definition that it asks for, the start of its work."""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import unquote, urlsplit

from moto.core.responses import BaseResponse

from ...cloudformation.engine import Operation
from ...cloudformation.graph import creation_order, dependencies
from ...cloudformation.parameters import given_values, resolved_values
from ...cloudformation.scope import read_ssm
from ...cloudformation.store import ChangeSet, Definition, Stack, Store
from ...cloudformation.template import parse
from ...context import WithContext
from ...control.clock import now
from ...errors import AwsError, ValidationError
from ...providers import type_fault

# An answer within this time spares the CDK CLI its polling interval of five seconds.
ANSWER_WITHIN_SECONDS = 10.0
SETTINGS = (
    "Capabilities", "RoleARN", "ClientRequestToken", "DisableRollback", "OnFailure", "Description",
    "ImportExistingResources",
)  # fmt: skip
# What a request may ask for and nothing here would do
_UNHONOURED = ("NotificationARNs", "TimeoutInMinutes", "StackPolicyBody", "StackPolicyURL", "ResourceTypes")
_MOST_TRIGGERS, _MOST_MINUTES = 5, 180
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


class StackRequest(WithContext, BaseResponse):
    """One request; moto parses it and serializes the answer by botocore's model."""

    def __init__(self) -> None:
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    @property
    def store(self) -> Store:
        """The stacks of the request's account and region."""
        return self.context.stacks.setdefault(self.region, Store(self.current_account, self.region, self.partition))

    def _start(self, stack: Stack, verb: str, definition: Definition) -> None:
        """Begin an operation in the background: CREATE, UPDATE or DELETE."""
        stack.token = self.params.get("ClientRequestToken") or definition.settings.get("ClientRequestToken")
        if verb == "UPDATE":
            stack.updated = now()
        stack.enter(f"{verb}_IN_PROGRESS", "User Initiated")
        stack.done.clear()
        operation = Operation(self.store, self.host, stack)
        keep = set(self.params.get("RetainResources") or [])

        def body() -> None:
            try:
                if verb == "DELETE":
                    operation.delete(keep)
                else:
                    (operation.create if verb == "CREATE" else operation.update)(definition)
            except BaseException as error:
                stack.enter(f"{verb}_FAILED", f"internal error: {error!r}")
                raise
            finally:
                stack.done.set()

        threading.Thread(target=body, name=f"cloudformation {stack.name}", daemon=True).start()

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
        before = stack.definition if stack is not None else Definition()
        raw = given_values(template, self.params.get("Parameters") or [], before.raw_parameters)
        resolved_values(template, raw, read_ssm(self.host.clients, self.region))
        self._check_capabilities(template)
        tags = {tag["Key"]: tag["Value"] for tag in self.params.get("Tags") or []}
        if self.params.get("Tags") is None:
            tags = before.tags
        settings = {**self._settings(), "RollbackConfiguration": self._rollback(before)}
        if self.params.get("OnStackFailure"):
            settings["OnFailure"] = self.params["OnStackFailure"]
        return Definition(body, template, raw, tags, settings)

    def _rollback(self, before: Definition) -> dict[str, Any]:
        """The rollback triggers: those of the request, or the ones that were saved for the stack.

        Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_RollbackConfiguration.html
        """
        saved: dict[str, Any] = before.settings.get("RollbackConfiguration") or {}
        found = {**saved, **(self.params.get("RollbackConfiguration") or {})}
        if len(found.get("RollbackTriggers") or []) > _MOST_TRIGGERS:
            raise ValidationError(f"RollbackConfiguration takes {_MOST_TRIGGERS} triggers at most")
        if not 0 <= (found.get("MonitoringTimeInMinutes") or 0) <= _MOST_MINUTES:
            raise ValidationError(f"MonitoringTimeInMinutes must be between 0 and {_MOST_MINUTES}")
        return found

    def _settings(self) -> dict[str, Any]:
        return {key: self.params[key] for key in SETTINGS if self.params.get(key) is not None}

    def _parsed(self, body: str) -> dict[str, Any]:
        template = parse(body)
        faults = [type_fault(item["Type"], self.region) for item in template["Resources"].values()]
        unknown = sorted({fault for fault in faults if fault})
        if unknown:
            raise ValidationError("Template format error: " + "; ".join(unknown))
        creation_order(dependencies(template, template["Resources"]))
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
            return stack.definition.body
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
