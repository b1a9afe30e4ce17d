"""The scope of a stack's template: parameters, the stack's own resources, exports of others, SSM parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from ..clients import Clients
from ..providers.schema import tag_property, tags_are_a_map
from .evaluate import Scope
from .parameters import resolved_values
from .store import Definition, Stack, StackResource, Store
from .template import TemplateError

# How a change set shows a value that is known only after the deployment, see "View change set",
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets-view.html
AFTER_APPLY = "{{changeSet:KNOWN_AFTER_APPLY}}"


def read_ssm(clients: Clients, region: str) -> Callable[[str], str]:
    """A reader of SSM parameters, NAME or NAME:VERSION."""

    def read(name: str) -> str:
        try:
            return str(clients.client("ssm", region).get_parameter(Name=name)["Parameter"]["Value"])
        except ClientError as error:
            raise TemplateError(
                f"Unable to fetch parameters [{name}] from parameter store for this account."
            ) from error

    return read


def scope_of(
    store: Store,
    clients: Clients,
    stack: Stack,
    definition: Definition,
    resources: Mapping[str, StackResource],
    unknown: set[str] | None = None,
) -> tuple[Scope, dict[str, Any], set[str]]:
    """The scope, the resolved parameters, and the set that collects the names of imported exports.

    Resources in `unknown` (planning) answer with AFTER_APPLY; others must stand in `resources`.
    """
    ssm = read_ssm(clients, store.region)
    parameters = resolved_values(definition.template, definition.raw_parameters, ssm)
    imports: set[str] = set()

    def resource(logical_id: str) -> StackResource:
        if logical_id not in resources:
            raise TemplateError(f"Template error: resource {logical_id} is not created (its condition is false)")
        return resources[logical_id]

    def ref(logical_id: str) -> Any:
        return AFTER_APPLY if unknown and logical_id in unknown else resource(logical_id).physical_id

    def get_att(logical_id: str, attribute: str) -> Any:
        if unknown and logical_id in unknown:
            return AFTER_APPLY
        found = resource(logical_id)
        if attribute not in found.attributes:
            raise TemplateError(
                f"Template error: resource {logical_id} does not support attribute type {attribute} in Fn::GetAtt"
            )
        return found.attributes[attribute]

    def import_value(name: str) -> str:
        exported = store.export(name)
        if exported is None:
            raise TemplateError(f"No export named {name} found.")
        imports.add(name)
        return exported[1]

    def zones(region: str) -> list[str]:
        rows = clients.client("ec2", region).describe_availability_zones()["AvailabilityZones"]
        return sorted(str(row["ZoneName"]) for row in rows)

    pseudo = {
        "AWS::AccountId": store.account,
        "AWS::Region": store.region,
        "AWS::Partition": store.partition,
        "AWS::StackName": stack.name,
        "AWS::StackId": stack.id,
        "AWS::URLSuffix": "amazonaws.com",
        "AWS::NotificationARNs": [],
    }
    scope = Scope(definition.template, pseudo, parameters, ref, get_att, import_value, ssm, zones)
    return scope, parameters, imports


def resource_properties(scope: Scope, logical_id: str, tags: Mapping[str, str], region: str) -> dict[str, Any]:
    """A resource's resolved properties with the stack's tags added where the type can be tagged.

    Source: "Resource tag" (stack-level tags reach the resources),
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-resource-tags.html
    """
    resource = scope.template["Resources"][logical_id]
    properties: dict[str, Any] = scope.resolve(resource.get("Properties") or {})
    name = tag_property(resource["Type"], region)
    if name is None or not tags:
        return properties
    if tags_are_a_map(resource["Type"], region):
        return {**properties, name: {**tags, **properties.get(name, {})}}
    own = properties.get(name, [])
    taken = {tag["Key"] for tag in own}
    added = [{"Key": key, "Value": value} for key, value in tags.items() if key not in taken]
    return {**properties, name: [*own, *added]}


def evaluated_outputs(scope: Scope) -> dict[str, dict[str, str]]:
    """The outputs as DescribeStacks shows them; an output whose condition is false is left out."""
    outputs = {}
    for name, output in (scope.template.get("Outputs") or {}).items():
        if "Condition" in output and not scope.condition(output["Condition"]):
            continue
        value = scope.resolve(output["Value"])
        if isinstance(value, (list, dict)):
            raise TemplateError(f"Template format error: The Value field of Output {name} must evaluate to a string")
        row = {"OutputKey": name, "OutputValue": "" if value is None else str(value)}
        if "Description" in output:
            row["Description"] = output["Description"]
        if "Export" in output:
            row["ExportName"] = str(scope.resolve(output["Export"]["Name"]))
        outputs[name] = row
    return outputs
