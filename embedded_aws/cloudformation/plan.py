"""What a new template would change in a stack: the content of a change set.

Source: AWS CloudFormation User Guide, "Update behaviors of stack resources",
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-update-behaviors.html
and API reference, "ResourceChange",
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ResourceChange.html
"""

from __future__ import annotations

from typing import Any

from ..clients import Clients
from ..providers import TYPES, Context, Created
from ..providers.schema import create_only, schema, tag_property
from .evaluate import check_rules
from .graph import creation_order, dependencies
from .scope import AFTER_APPLY, evaluated_outputs, resource_properties, scope_of
from .store import Definition, Stack, StackResource, Store
from .template import TemplateError

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_ATTRIBUTES = ("Metadata", "DeletionPolicy", "UpdateReplacePolicy")


def changed_properties(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names of top-level properties that differ."""
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def needs_replacement(resource_type: str, changed: list[str], region: str) -> bool:
    """Whether a change of these properties makes a new physical resource."""
    row = TYPES.get(resource_type)
    if row is None:
        return False
    return bool(changed) and (row.fixed or bool({*changed} & (row.replace | create_only(resource_type, region))))


def planned_changes(store: Store, clients: Clients, stack: Stack, definition: Definition) -> list[dict[str, Any]]:
    """The changes of a change set, in the order of creation; raises TemplateError when the template cannot work."""
    unknown: set[str] = set(definition.template["Resources"]) - set(stack.resources)
    scope, _, _ = scope_of(store, clients, stack, definition, stack.resources, unknown)
    check_rules(scope)
    active = scope.active()
    changes = []
    for logical_id in creation_order(dependencies(definition.template, active)):
        entry = definition.template["Resources"][logical_id]
        present = stack.resources.get(logical_id)
        if present is None:
            context = Context(clients, store.account, store.region, store.partition, stack.name, logical_id)
            found = existing(store, context, definition, entry)
            changes.append(_change("Import" if found else "Add", logical_id, entry["Type"]))
            continue
        change = _modification(scope, present, definition, store.region)
        if change is not None:
            changes.append(change)
            if change["ResourceChange"]["Replacement"] == "True":
                unknown.add(logical_id)
    for logical_id, resource in stack.resources.items():
        if logical_id not in active:
            changes.append(_change("Remove", logical_id, resource.type, resource.physical_id))
    return changes


def existing(store: Store, context: Context, definition: Definition, entry: dict[str, Any]) -> Created | None:
    """The resource that a change set with ImportExistingResources takes over in place of creating an entry's.

    Its name has to be written out, its DeletionPolicy to retain it, and no stack may have it.
    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-automatically.html
    """
    row, kept = TYPES.get(entry["Type"]), entry.get("DeletionPolicy") in {"Retain", "RetainExceptOnCreate"}
    if not definition.settings.get("ImportExistingResources") or row is None or row.find is None or not kept:
        return None
    (pointer,) = (schema(entry["Type"], store.region) or {})["primaryIdentifier"]
    name = (entry.get("Properties") or {}).get(pointer.rsplit("/", 1)[-1])
    resources = [one for stack in store.living() for one in stack.resources.values()]
    owned = {(one.type, one.physical_id) for one in resources if not one.status.startswith("DELETE")}
    return row.find(context, name) if isinstance(name, str) and (entry["Type"], name) not in owned else None


def has_changes(store: Store, clients: Clients, stack: Stack, definition: Definition, changes: list[Any]) -> bool:
    """Whether there is anything to do: changed resources, outputs or stack tags."""
    if changes or definition.tags != stack.definition.tags:
        return True
    scope, _, _ = scope_of(store, clients, stack, definition, stack.resources)
    return evaluated_outputs(scope) != stack.outputs


def _modification(scope: Any, present: StackResource, definition: Definition, region: str) -> dict[str, Any] | None:
    entry = definition.template["Resources"][present.logical_id]
    if entry["Type"] != present.type:
        raise TemplateError(
            f"Update of resource type is not permitted. The new template modifies resource type of the following "
            f"resources: [{present.logical_id}]"
        )
    new = resource_properties(scope, present.logical_id, definition.tags, region)
    changed = changed_properties(present.properties, new)
    attributes = [key for key in _ATTRIBUTES if entry.get(key) != present.definition.get(key)]
    if not changed and not attributes:
        return None
    replace = needs_replacement(present.type, changed, region)
    change = _change("Modify", present.logical_id, present.type, present.physical_id)
    tags = tag_property(present.type, region)
    scopes = {"Tags" if key == tags else "Properties" for key in changed} | set(attributes)
    change["ResourceChange"]["Scope"] = sorted(scopes)
    change["ResourceChange"]["Replacement"] = "True" if replace else "False"
    change["ResourceChange"]["Details"] = [_detail(present.type, key, new, region) for key in changed]
    return change


def _detail(resource_type: str, key: str, new: dict[str, Any], region: str) -> dict[str, Any]:
    always = needs_replacement(resource_type, [key], region)
    target = {"Attribute": "Properties", "Name": key, "RequiresRecreation": "Always" if always else "Never"}
    dynamic = AFTER_APPLY in str(new.get(key))
    return {
        "Target": target,
        "Evaluation": "Dynamic" if dynamic else "Static",
        "ChangeSource": "ResourceReference" if dynamic else "DirectModification",
    }


def _change(action: str, logical_id: str, kind: str, physical_id: str | None = None) -> dict[str, Any]:
    change: dict[str, Any] = {
        "Action": action,
        "LogicalResourceId": logical_id,
        "ResourceType": kind,
        "Scope": [],
        "Details": [],
    }
    if physical_id is not None:
        change["PhysicalResourceId"] = physical_id
    return {"Type": "Resource", "ResourceChange": change}
