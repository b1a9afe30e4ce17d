"""Carrying out what a template says: create, update, roll back and delete the resources of a stack.

Source: AWS CloudFormation User Guide, "Stack status codes" / "Understand CloudFormation stack creation events",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
and "Choose how to handle failures when provisioning resources",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html
Resources are made one after another; AWS makes independent ones at the same time.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..control.clock import now
from ..host import Host
from ..providers import TYPES, Context, Created, ProviderError, faults_of_properties, type_fault
from ..providers.schema import create_only
from .evaluate import Scope, check_rules
from .graph import creation_order, dependencies
from .plan import changed_properties, existing, needs_replacement
from .scope import evaluated_outputs, resource_properties, scope_of
from .store import Definition, Stack, StackResource, Store
from .template import TemplateError

log = logging.getLogger(__name__)
_MONITOR_SECONDS = 0.2


class OperationError(Exception):
    """A stack operation cannot continue; the text is the stack's reason."""


@dataclass(frozen=True)
class Undo:
    """How to take back one step of an update: the resource before it (None: it was new) and after it."""

    before: StackResource | None
    after: StackResource

    @property
    def made_new(self) -> bool:
        """Whether the step made a physical resource that the old stack does not have."""
        return self.before is None or self.before.physical_id != self.after.physical_id


class Operation:
    """One create, update or delete of one stack. Runs in a thread of its own; `stack.done` is set at its end."""

    def __init__(self, store: Store, host: Host, stack: Stack) -> None:
        self.store, self.clients, self.clock, self.stack = store, host.clients, host.clock, stack
        self.undo: list[Undo] = []

    # -- create ---------------------------------------------------------------------------------------------------

    def create(self, definition: Definition) -> None:
        """CREATE_COMPLETE, or after a failure ROLLBACK_COMPLETE (CREATE_FAILED with DisableRollback)."""
        stack = self.stack
        try:
            self._deploy(definition, "CREATE")
            stack.definition = definition
            stack.enter("CREATE_COMPLETE")
        except OperationError as failure:
            stack.definition = definition
            if definition.settings.get("DisableRollback") or definition.settings.get("OnFailure") == "DO_NOTHING":
                stack.enter("CREATE_FAILED", str(failure))
                return
            stack.enter("ROLLBACK_IN_PROGRESS", f"{failure} Rollback requested by user.")
            failed = self._delete_all(rollback=True)
            stack.enter("ROLLBACK_FAILED" if failed else "ROLLBACK_COMPLETE", _failed_to("delete", failed))
            if not failed and definition.settings.get("OnFailure") == "DELETE":
                stack.enter("DELETE_COMPLETE")

    # -- update ---------------------------------------------------------------------------------------------------

    def update(self, definition: Definition) -> None:
        """UPDATE_COMPLETE, or after a failure UPDATE_ROLLBACK_COMPLETE with the old resources in place."""
        stack = self.stack
        before = dict(stack.resources)
        try:
            active = self._deploy(definition, "UPDATE")
        except OperationError as failure:
            if definition.settings.get("DisableRollback"):
                stack.leftovers += self._replaced()
                stack.enter("UPDATE_FAILED", str(failure))
                return
            self._roll_back(before, str(failure))
            return
        removed = [resource for name, resource in before.items() if name not in active]
        replaced = [*stack.leftovers, *self._replaced()]
        stack.leftovers = []
        for resource in removed:
            del stack.resources[resource.logical_id]
        stack.definition = definition
        stack.enter("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        self._clean_up(before, removed, replaced)
        stack.enter("UPDATE_COMPLETE")

    def _replaced(self) -> list[StackResource]:
        """The physical resources whose place another one has taken."""
        return [undo.before for undo in self.undo if undo.before is not None and undo.made_new]

    def _clean_up(
        self, before: dict[str, StackResource], removed: list[StackResource], replaced: list[StackResource]
    ) -> None:
        """Delete what the new template no longer has, what needs others first; a failure here fails nothing."""
        order = creation_order({name: resource.needs & set(before) for name, resource in before.items()})
        place = {name: index for index, name in enumerate(order)}
        for resource in sorted([*removed, *replaced], key=lambda item: place.get(item.logical_id, 0), reverse=True):
            kept = resource.retained_on_delete if resource in removed else resource.retained_on_replace
            if kept:
                self._event(resource, "DELETE_SKIPPED")
            else:
                self._delete_one(resource)

    def _roll_back(self, before: dict[str, StackResource], reason: str) -> None:
        stack = self.stack
        stack.enter("UPDATE_ROLLBACK_IN_PROGRESS", reason)
        failed = [undo.after.logical_id for undo in reversed(self.undo) if not self._restore(undo)]
        if failed:
            stack.enter("UPDATE_ROLLBACK_FAILED", _failed_to("update", failed))
            return
        stack.enter("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        for undo in reversed(self.undo):
            if undo.made_new:
                if undo.after.imported or undo.after.definition.get("DeletionPolicy") == "Retain":
                    self._event(undo.after, "DELETE_SKIPPED")
                else:
                    self._delete_one(undo.after)
        stack.resources = dict(before)
        stack.enter("UPDATE_ROLLBACK_COMPLETE")

    def _restore(self, undo: Undo) -> bool:
        """Bring one resource back to what it was; new ones are only deleted, later. Returns whether it worked."""
        if undo.before is None:
            return True
        if not undo.made_new and undo.before.properties != undo.after.properties:
            self._event(undo.before, "UPDATE_IN_PROGRESS")
            try:
                present = Created(undo.before.physical_id, undo.before.attributes)
                TYPES[undo.before.type].update(
                    self._context(undo.before.logical_id), present, undo.after.properties, undo.before.properties
                )
            except Exception as error:
                self._event(undo.before, "UPDATE_FAILED", _reason(error))
                return False
        self.stack.resources[undo.before.logical_id] = undo.before
        self._event(undo.before, "UPDATE_COMPLETE")
        return True

    # -- what create and update share -----------------------------------------------------------------------------

    def _deploy(self, definition: Definition, verb: str) -> list[str]:
        """Bring every resource to its new state, evaluate the outputs; returns the active logical ids."""
        try:
            scope, parameters, imports = scope_of(
                self.store, self.clients, self.stack, definition, self.stack.resources
            )
            check_rules(scope)
            self._check_triggers(definition)
            active = scope.active()
            needs = dependencies(definition.template, active)
            for logical_id in creation_order(needs):
                self._settle(scope, definition, logical_id, needs[logical_id])
                self._check_triggers(definition)
            outputs = evaluated_outputs(scope)
            self._check_exports(outputs)
            self._monitor(definition)
        except TemplateError as error:
            raise OperationError(str(error)) from error
        except _ResourceError as error:
            raise OperationError(_failed_to(verb.lower(), [str(error)]) or "") from error
        self.stack.outputs, self.stack.parameters, self.stack.imports = outputs, parameters, imports
        return active

    def _check_triggers(self, definition: Definition) -> None:
        """Raises OperationError while an alarm that triggers a rollback is missing, or in the state ALARM.

        Looked at after each resource, and while the stack is monitored; AWS does not say what an alarm does that rang
        before: here it ends the operation.
        Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-rollback-triggers.html
        """
        arns = [row["Arn"] for row in _rollback(definition).get("RollbackTriggers") or []]
        if not arns:
            return
        names, kinds = [arn.rsplit(":alarm:", 1)[-1] for arn in arns], ["MetricAlarm", "CompositeAlarm"]
        client = self.clients.client("cloudwatch", self.store.region)
        found = client.describe_alarms(AlarmNames=names, AlarmTypes=kinds)
        states = {row["AlarmArn"]: row["StateValue"] for row in found["MetricAlarms"] + found["CompositeAlarms"]}
        for arn in arns:
            if arn not in states:
                raise OperationError(f"The rollback trigger {arn} does not exist.")
            if states[arn] == "ALARM":
                raise OperationError(f"The rollback trigger {arn} is in the state ALARM.")

    def _monitor(self, definition: Definition) -> None:
        """Wait for MonitoringTimeInMinutes, as fast as waits pass here; raises OperationError as soon as one rings."""
        end = time.monotonic() + self.clock.wait(60.0 * (_rollback(definition).get("MonitoringTimeInMinutes") or 0))
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _MONITOR_SECONDS))
            self._check_triggers(definition)

    def _settle(self, scope: Scope, definition: Definition, logical_id: str, needs: set[str]) -> None:
        """Create, update, replace or leave one resource. Raises _ResourceError after its event was written."""
        entry = definition.template["Resources"][logical_id]
        present = self.stack.resources.get(logical_id)
        verb = "CREATE" if present is None else "UPDATE"
        draft = StackResource(logical_id, entry["Type"], "", {}, {}, entry, needs)
        if present is not None:
            draft.physical_id = present.physical_id
        try:
            draft.properties = resource_properties(scope, logical_id, definition.tags, self.store.region)
            self._check(draft, present)
            made = present if present is not None and present.status != "CREATE_FAILED" else None
            if made is not None and not changed_properties(made.properties, draft.properties):
                self.stack.resources[logical_id] = replace(made, definition=entry, needs=needs)
                return
            self._event(draft, f"{verb}_IN_PROGRESS")
            self._provide(definition, draft, present)
        except Exception as error:
            if not isinstance(error, (TemplateError, ProviderError, ClientError, BotoCoreError)):
                log.exception("%s %s", verb, logical_id)
            self._event(draft, f"{verb}_FAILED", _reason(error))
            self.stack.resources.setdefault(logical_id, draft)
            raise _ResourceError(logical_id) from error
        self.stack.resources[logical_id] = draft
        self._event(draft, f"{'IMPORT' if draft.imported else verb}_COMPLETE")

    def _check(self, draft: StackResource, present: StackResource | None) -> None:
        fault = type_fault(draft.type, self.store.region)
        if fault:
            raise ProviderError(fault)
        if present is not None and present.type != draft.type:
            raise ProviderError("Update of resource type is not permitted.")
        faults = faults_of_properties(draft.type, draft.properties, self.store.region)
        if faults:
            raise ProviderError("Properties validation failed: " + "; ".join(faults))

    def _provide(self, definition: Definition, draft: StackResource, present: StackResource | None) -> None:
        context, row = self._context(draft.logical_id), TYPES[draft.type]
        if present is None or present.status == "CREATE_FAILED":
            found = existing(self.store, context, definition, draft.definition)
            draft.imported = found is not None
            self._made(draft, None, found or row.create(context, draft.properties))
            return
        changed = changed_properties(present.properties, draft.properties)
        if needs_replacement(draft.type, changed, self.store.region):
            self._refuse_named(draft, present)
            reason = "Requested update requires the creation of a new physical resource; hence creating one."
            self._event(draft, "UPDATE_IN_PROGRESS", reason)
            made = row.create(context, draft.properties)
        else:
            # noted before the call: an update that fails half-way must be taken back too
            self.undo.append(Undo(present, replace(draft, attributes=present.attributes)))
            before = Created(present.physical_id, present.attributes)
            made = row.update(context, before, present.properties, draft.properties)
            self.undo.pop()
        self._made(draft, present, made)

    def _made(self, draft: StackResource, before: StackResource | None, made: Any) -> None:
        draft.physical_id, draft.attributes = made.physical_id, dict(made.attributes)
        self.undo.append(Undo(before, draft))

    def _refuse_named(self, draft: StackResource, present: StackResource) -> None:
        """Source: "Name type", https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-name.html"""
        short = draft.type.rsplit("::", 1)[-1]
        for name in ({f"{short}Name", "Name"} & set(draft.properties)) & create_only(draft.type, self.store.region):
            if draft.properties[name] == present.properties.get(name):
                raise ProviderError(
                    "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
                    f"Rename {draft.properties[name]} and update the stack again."
                )

    def _check_exports(self, outputs: dict[str, dict[str, str]]) -> None:
        """An export name belongs to one stack; one in use can neither go nor change.

        Source: "Get exported outputs from a deployed CloudFormation stack",
        https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-exports.html
        """
        new = {row["ExportName"]: row["OutputValue"] for row in outputs.values() if "ExportName" in row}
        for name in new:
            owner = self.store.export(name)
            if owner is not None and owner[0] is not self.stack:
                raise TemplateError(f"Export with name {name} is already exported by stack {owner[0].name}.")
        for name, value in self.stack.exports.items():
            users = [user.name for user in self.store.importers(name) if user is not self.stack]
            if users and new.get(name) != value:
                verb = "deleted" if name not in new else "updated"
                raise TemplateError(f"Export {name} cannot be {verb} as it is in use by {' and '.join(users)}")

    # -- delete ---------------------------------------------------------------------------------------------------

    def delete(self, keep: set[str]) -> None:
        """DELETE_COMPLETE, or DELETE_FAILED naming what stays; `keep` are RetainResources."""
        stack = self.stack
        failed = self._delete_all(keep=keep)
        failed += [resource.logical_id for resource in stack.leftovers if not self._delete_one(resource)]
        if failed:
            stack.enter("DELETE_FAILED", _failed_to("delete", failed))
            return
        stack.outputs, stack.imports = {}, set()
        stack.deleted = now()
        stack.enter("DELETE_COMPLETE")

    def _delete_all(self, *, rollback: bool = False, keep: set[str] | None = None) -> list[str]:
        """Delete every resource after those that need it; returns the logical ids that could not be deleted."""
        resources = {name: item for name, item in self.stack.resources.items() if item.status != "DELETE_COMPLETE"}
        order = creation_order({name: item.needs & set(resources) for name, item in resources.items()})
        failed: list[str] = []
        for logical_id in reversed(order):
            resource = resources[logical_id]
            policy = resource.definition.get("DeletionPolicy", "Delete")
            kept = {"Retain"} if rollback and not resource.imported else {"Retain", "RetainExceptOnCreate"}
            never_made = not resource.physical_id
            if never_made:
                resource.status = "DELETE_COMPLETE"
            elif policy in kept or logical_id in (keep or set()):
                self._event(resource, "DELETE_SKIPPED")
            elif any(logical_id in resources[name].needs for name in failed) or not self._delete_one(resource):
                failed.append(logical_id)
        return failed

    def _delete_one(self, resource: StackResource) -> bool:
        """Delete one physical resource unless another logical one of the stack is the same thing by now."""
        for other in self.stack.resources.values():
            if other is not resource and (other.type, other.physical_id) == (resource.type, resource.physical_id):
                return True
        self._event(resource, "DELETE_IN_PROGRESS")
        try:
            TYPES[resource.type].delete(self._context(resource.logical_id), resource.physical_id, resource.properties)
        except Exception as error:
            self._event(resource, "DELETE_FAILED", _reason(error))
            return False
        self._event(resource, "DELETE_COMPLETE")
        return True

    # -- helpers --------------------------------------------------------------------------------------------------

    def _context(self, logical_id: str) -> Context:
        store = self.store
        return Context(self.clients, store.account, store.region, store.partition, self.stack.name, logical_id)

    def _event(self, resource: StackResource, status: str, reason: str | None = None) -> None:
        resource.status, resource.reason, resource.timestamp = status, reason, now()
        self.stack.event(resource.logical_id, resource.type, resource.physical_id, status, reason)


class _ResourceError(Exception):
    """The logical id of a resource that failed; its event holds the reason."""


def _rollback(definition: Definition) -> dict[str, Any]:
    return definition.settings.get("RollbackConfiguration") or {}


def _failed_to(verb: str, logical_ids: list[str]) -> str | None:
    return f"The following resource(s) failed to {verb}: [{', '.join(logical_ids)}]." if logical_ids else None


def _reason(error: Exception) -> str:
    """The event's reason: the service's message with its code."""
    if isinstance(error, ClientError):
        details = error.response["Error"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        where = f"Operation: {error.operation_name}, Status Code: {status}, Code: {details.get('Code')}"
        return f"{details.get('Message')} ({where})"
    return str(error) or type(error).__name__
