"""EC2 types: launch templates and the small network that instances are started in.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_EC2.html
CloudFormation deletes what needs a thing before the thing; what moto keeps of its own (the network's main route table,
its default security group and network ACL, an endpoint's routes) goes with the network, as on AWS.
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .resource import Context, Created, Properties, ResourceType, Tagging, deleting, document, gone, names, picked

_TAGGING = Tagging(
    "ec2",
    lambda made: {"Resources": [made.physical_id]},
    calls=("create_tags", "delete_tags"),
    members=("Tags", "Tags"),
    keyed=lambda keys: [{"Key": key} for key in keys],
)


def _make(context: Context, operation: str, kind: str, properties: Properties, given: Iterable[str]) -> dict[str, Any]:
    """One creating call with these of the properties, and with the tags for that kind of resource."""
    tags = properties.get("Tags")
    specifications = [{"ResourceType": kind, "Tags": tags}] if tags else None
    return context.call("ec2", operation, TagSpecifications=specifications, **picked(properties, given))


# -- the network ----------------------------------------------------------------------------------------------------

_DNS = {"EnableDnsSupport": True, "EnableDnsHostnames": False}  # the defaults of AWS


def _set_dns(context: Context, vpc: str, old: Properties, new: Properties) -> None:
    for name, default in _DNS.items():
        context.call("ec2", "modify_vpc_attribute", VpcId=vpc, **{name: {"Value": new.get(name, default)}})


def _create_vpc(context: Context, properties: Properties) -> Created:
    vpc = _make(context, "create_vpc", "vpc", properties, ("CidrBlock", "InstanceTenancy"))["Vpc"]["VpcId"]
    _set_dns(context, vpc, {}, properties)
    groups = context.call("ec2", "describe_security_groups", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    default = [group["GroupId"] for group in groups["SecurityGroups"] if group["GroupName"] == "default"]
    attributes = {"VpcId": vpc, "CidrBlock": properties["CidrBlock"], "DefaultSecurityGroup": default[0]}
    return Created(vpc, attributes)


def _create_subnet(context: Context, properties: Properties) -> Created:
    given = ("VpcId", "CidrBlock", "AvailabilityZone")
    subnet = _make(context, "create_subnet", "subnet", properties, given)["Subnet"]
    _set_public(context, subnet["SubnetId"], {}, properties)
    return Created(subnet["SubnetId"], picked(subnet, ("SubnetId", *given)))


def _set_public(context: Context, subnet: str, old: Properties, new: Properties) -> None:
    public = {"Value": new.get("MapPublicIpOnLaunch", False)}
    context.call("ec2", "modify_subnet_attribute", SubnetId=subnet, MapPublicIpOnLaunch=public)


def _create_gateway(context: Context, properties: Properties) -> Created:
    made = _make(context, "create_internet_gateway", "internet-gateway", properties, ())["InternetGateway"]
    return Created(made["InternetGatewayId"], picked(made, ["InternetGatewayId"]))


def _attach(context: Context, properties: Properties) -> Created:
    context.call("ec2", "attach_internet_gateway", **properties)
    return Created(f"IGW|{properties['VpcId']}", {"AttachmentType": "IGW"})


def _detach(context: Context, physical_id: str, properties: Properties) -> None:
    gone(context, "ec2", "detach_internet_gateway", **properties)


def _create_routes(context: Context, properties: Properties) -> Created:
    made = _make(context, "create_route_table", "route-table", properties, ["VpcId"])["RouteTable"]
    return Created(made["RouteTableId"], picked(made, ["RouteTableId"]))


def _create_route(context: Context, properties: Properties) -> Created:
    context.call("ec2", "create_route", **properties)
    return Created(f"{properties['RouteTableId']}|{properties['DestinationCidrBlock']}")


def _change_route(context: Context, physical_id: str, old: Properties, new: Properties) -> None:
    context.call("ec2", "replace_route", **new)


def _delete_route(context: Context, physical_id: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_route", **picked(properties, ("RouteTableId", "DestinationCidrBlock")))


def _associate(context: Context, properties: Properties) -> Created:
    made = context.call("ec2", "associate_route_table", **properties)["AssociationId"]
    return Created(made, {"Id": made})


_ENDPOINT = names("PolicyDocument RouteTableIds ServiceName VpcEndpointType VpcId")


def _create_endpoint(context: Context, properties: Properties) -> Created:
    asked = {**properties, "PolicyDocument": document(properties.get("PolicyDocument"))}
    made = _make(context, "create_vpc_endpoint", "vpc-endpoint", asked, _ENDPOINT)["VpcEndpoint"]["VpcEndpointId"]
    return Created(made, {"Id": made})


_FLOW_LOG = names(
    "DeliverLogsPermissionArn LogDestination LogDestinationType LogFormat LogGroupName MaxAggregationInterval "
    "ResourceType TrafficType"
)


def _create_flow_log(context: Context, properties: Properties) -> Created:
    asked = {**properties, "ResourceIds": [properties["ResourceId"]]}
    made = _make(context, "create_flow_logs", "vpc-flow-log", asked, [*_FLOW_LOG, "ResourceIds"])["FlowLogIds"][0]
    return Created(made, {"Id": made})


# -- security groups ------------------------------------------------------------------------------------------------

_EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
# the peer of a rule in CloudFormation: the list of a permission that it stands in, and its name there
_PEERS = {
    "CidrIp": ("IpRanges", "CidrIp"),
    "CidrIpv6": ("Ipv6Ranges", "CidrIpv6"),
    "DestinationSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    "SourceSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    "DestinationPrefixListId": ("PrefixListIds", "PrefixListId"),
    "SourcePrefixListId": ("PrefixListIds", "PrefixListId"),
}


def _permission(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule of CloudFormation as a permission of the API."""
    made = picked(rule, ("IpProtocol", "FromPort", "ToPort"))
    for name in picked(rule, _PEERS):
        peers, member = _PEERS[name]
        made[peers] = [{member: rule[name], **picked(rule, ["Description"])}]
    return made


def _set_rules(context: Context, group: str, old: Properties, new: Properties) -> None:
    """Inbound and outbound rules; a group without outbound rules of its own may reach everything."""
    for key, kind in (("SecurityGroupIngress", "ingress"), ("SecurityGroupEgress", "egress")):
        before = [_permission(rule) for rule in old.get(key) or []]
        after = [_permission(rule) for rule in new.get(key) or []]
        if kind == "egress":
            before, after = before or [_EVERYTHING], after or [_EVERYTHING]
        removed = [rule for rule in before if rule not in after]
        added = [rule for rule in after if rule not in before]
        if removed:
            context.call("ec2", f"revoke_security_group_{kind}", GroupId=group, IpPermissions=removed)
        if added:
            context.call("ec2", f"authorize_security_group_{kind}", GroupId=group, IpPermissions=added)


def _create_group(context: Context, properties: Properties) -> Created:
    asked = {"GroupName": context.name(255), **properties, "Description": properties["GroupDescription"]}
    given = ("GroupName", "Description", "VpcId")
    group = _make(context, "create_security_group", "security-group", asked, given)["GroupId"]
    _set_rules(context, group, {}, properties)
    return Created(group, {"GroupId": group, "Id": group, "VpcId": properties.get("VpcId", "")})


# -- launch templates -----------------------------------------------------------------------------------------------


def _template(template: str, latest: int) -> Created:
    numbers = {"DefaultVersionNumber": "1", "LatestVersionNumber": str(latest)}
    return Created(template, {"LaunchTemplateId": template, **numbers})


def _create_template(context: Context, properties: Properties) -> Created:
    asked = {"LaunchTemplateName": context.name(128), **properties}
    made = context.call("ec2", "create_launch_template", **asked)["LaunchTemplate"]
    return _template(made["LaunchTemplateId"], 1)


def _change_template(context: Context, template: str, old: Properties, new: Properties) -> Created:
    """A new version; the default version stays the first."""
    asked = picked(new, ("LaunchTemplateData", "VersionDescription"))
    made = context.call("ec2", "create_launch_template_version", LaunchTemplateId=template, **asked)
    return _template(template, made["LaunchTemplateVersion"]["VersionNumber"])


TYPES = [
    ResourceType(
        "AWS::EC2::VPC",
        names("CidrBlock InstanceTenancy Tags") | set(_DNS),
        _create_vpc,
        deleting("ec2", "delete_vpc", "VpcId"),  # with the default security group, which goes with its network
        _set_dns,
        _TAGGING,
        replace=names("InstanceTenancy"),
    ),
    ResourceType(
        "AWS::EC2::Subnet",
        names("AvailabilityZone CidrBlock MapPublicIpOnLaunch Tags VpcId"),
        _create_subnet,
        deleting("ec2", "delete_subnet", "SubnetId"),
        _set_public,
        _TAGGING,
    ),
    ResourceType(
        "AWS::EC2::InternetGateway",
        names("Tags"),
        _create_gateway,
        deleting("ec2", "delete_internet_gateway", "InternetGatewayId"),
        tagging=_TAGGING,
    ),
    ResourceType("AWS::EC2::VPCGatewayAttachment", names("InternetGatewayId VpcId"), _attach, _detach),
    ResourceType(
        "AWS::EC2::RouteTable",
        names("Tags VpcId"),
        _create_routes,
        deleting("ec2", "delete_route_table", "RouteTableId"),
        tagging=_TAGGING,
    ),
    ResourceType(
        "AWS::EC2::Route",
        names("DestinationCidrBlock GatewayId RouteTableId"),
        _create_route,
        _delete_route,
        _change_route,
    ),
    ResourceType(
        "AWS::EC2::SubnetRouteTableAssociation",
        names("RouteTableId SubnetId"),
        _associate,
        deleting("ec2", "disassociate_route_table", "AssociationId"),
    ),
    ResourceType(
        "AWS::EC2::VPCEndpoint",
        _ENDPOINT | {"Tags"},
        _create_endpoint,
        deleting("ec2", "delete_vpc_endpoints", "VpcEndpointIds", lambda endpoint: [endpoint]),
    ),
    ResourceType(
        "AWS::EC2::FlowLog",
        _FLOW_LOG | {"ResourceId", "Tags"},
        _create_flow_log,
        deleting("ec2", "delete_flow_logs", "FlowLogIds", lambda flow_log: [flow_log]),
    ),
    ResourceType(
        "AWS::EC2::SecurityGroup",
        names("GroupDescription GroupName SecurityGroupEgress SecurityGroupIngress Tags VpcId"),
        _create_group,
        deleting("ec2", "delete_security_group", "GroupId"),
        _set_rules,
        _TAGGING,
    ),
    ResourceType(
        "AWS::EC2::LaunchTemplate",
        names("LaunchTemplateData LaunchTemplateName TagSpecifications VersionDescription"),
        _create_template,
        deleting("ec2", "delete_launch_template", "LaunchTemplateId"),
        _change_template,
        replace=names("TagSpecifications"),
    ),
]
