"""EC2 types: launch templates and the small network that instances are started in.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_EC2.html
CloudFormation deletes what needs a thing before the thing; what moto keeps of its own (the network's main route table,
its default security group and network ACL, an endpoint's routes) goes with the network, as on AWS.
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .resource import Context, Created, Properties, ResourceType, changed_tags, gone

_Described = Callable[[Context, str, Properties], Created]


def _tags(kind: str, properties: Properties) -> list[dict[str, Any]] | None:
    tags = properties.get("Tags")
    return [{"ResourceType": kind, "Tags": tags}] if tags else None


def _retag(context: Context, resource: str, old: Properties, new: Properties) -> None:
    to_set, to_remove = changed_tags(old.get("Tags"), new.get("Tags"))
    if to_set:
        context.call("ec2", "create_tags", Resources=[resource], Tags=to_set)
    if to_remove:
        removed = [{"Key": key} for key in to_remove]
        context.call("ec2", "delete_tags", Resources=[resource], Tags=removed)


# -- the network ----------------------------------------------------------------------------------------------------

_DNS = {"EnableDnsSupport": True, "EnableDnsHostnames": False}  # the defaults of AWS


def _vpc(context: Context, vpc: str, properties: Properties) -> Created:
    groups = context.call("ec2", "describe_security_groups", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    default = [group["GroupId"] for group in groups["SecurityGroups"] if group["GroupName"] == "default"]
    attributes = {"VpcId": vpc, "CidrBlock": properties.get("CidrBlock"), "DefaultSecurityGroup": default[0]}
    return Created(vpc, attributes)


def _set_dns(context: Context, vpc: str, properties: Properties) -> None:
    for name, default in _DNS.items():
        value = {"Value": properties.get(name, default)}
        context.call("ec2", "modify_vpc_attribute", VpcId=vpc, **{name: value})


def _create_vpc(context: Context, properties: Properties) -> Created:
    vpc = context.call(
        "ec2",
        "create_vpc",
        CidrBlock=properties["CidrBlock"],
        InstanceTenancy=properties.get("InstanceTenancy"),
        TagSpecifications=_tags("vpc", properties),
    )["Vpc"]["VpcId"]
    _set_dns(context, vpc, properties)
    return _vpc(context, vpc, properties)


def _update_vpc(context: Context, vpc: str, old: Properties, new: Properties) -> Created:
    _set_dns(context, vpc, new)
    _retag(context, vpc, old, new)
    return _vpc(context, vpc, new)


def _delete_vpc(context: Context, vpc: str, properties: Properties) -> None:
    """With the default security group, which goes with its network."""
    gone(context, "ec2", "delete_vpc", VpcId=vpc)


def _create_subnet(context: Context, properties: Properties) -> Created:
    subnet = context.call(
        "ec2",
        "create_subnet",
        VpcId=properties["VpcId"],
        CidrBlock=properties["CidrBlock"],
        AvailabilityZone=properties.get("AvailabilityZone"),
        TagSpecifications=_tags("subnet", properties),
    )["Subnet"]
    _set_public(context, subnet["SubnetId"], properties)
    return _subnet(context, subnet["SubnetId"], properties)


def _set_public(context: Context, subnet: str, properties: Properties) -> None:
    public = {"Value": properties.get("MapPublicIpOnLaunch", False)}
    context.call("ec2", "modify_subnet_attribute", SubnetId=subnet, MapPublicIpOnLaunch=public)


def _subnet(context: Context, subnet: str, properties: Properties) -> Created:
    found = context.call("ec2", "describe_subnets", SubnetIds=[subnet])["Subnets"][0]
    names = ("SubnetId", "VpcId", "AvailabilityZone", "CidrBlock")
    return Created(subnet, {name: found[name] for name in names})


def _update_subnet(context: Context, subnet: str, old: Properties, new: Properties) -> Created:
    _set_public(context, subnet, new)
    _retag(context, subnet, old, new)
    return _subnet(context, subnet, new)


def _delete_subnet(context: Context, subnet: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_subnet", SubnetId=subnet)


def _create_gateway(context: Context, properties: Properties) -> Created:
    made = context.call("ec2", "create_internet_gateway", TagSpecifications=_tags("internet-gateway", properties))
    gateway = made["InternetGateway"]["InternetGatewayId"]
    return Created(gateway, {"InternetGatewayId": gateway})


def _update_gateway(context: Context, gateway: str, old: Properties, new: Properties) -> Created:
    _retag(context, gateway, old, new)
    return Created(gateway, {"InternetGatewayId": gateway})


def _delete_gateway(context: Context, gateway: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_internet_gateway", InternetGatewayId=gateway)


def _attach(context: Context, properties: Properties) -> Created:
    vpc, gateway = properties["VpcId"], properties["InternetGatewayId"]
    context.call("ec2", "attach_internet_gateway", InternetGatewayId=gateway, VpcId=vpc)
    return Created(f"IGW|{vpc}", {"AttachmentType": "IGW"})


def _detach(context: Context, physical_id: str, properties: Properties) -> None:
    vpc, gateway = properties["VpcId"], properties["InternetGatewayId"]
    gone(context, "ec2", "detach_internet_gateway", InternetGatewayId=gateway, VpcId=vpc)


def _create_routes(context: Context, properties: Properties) -> Created:
    made = context.call(
        "ec2",
        "create_route_table",
        VpcId=properties["VpcId"],
        TagSpecifications=_tags("route-table", properties),
    )
    table = made["RouteTable"]["RouteTableId"]
    return Created(table, {"RouteTableId": table})


def _update_routes(context: Context, table: str, old: Properties, new: Properties) -> Created:
    _retag(context, table, old, new)
    return Created(table, {"RouteTableId": table})


def _delete_routes(context: Context, table: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_route_table", RouteTableId=table)


_ROUTE = ("DestinationCidrBlock", "GatewayId", "RouteTableId")


def _create_route(context: Context, properties: Properties) -> Created:
    context.call("ec2", "create_route", **{name: properties.get(name) for name in _ROUTE})
    return Created(f"{properties['RouteTableId']}|{properties['DestinationCidrBlock']}")


def _update_route(context: Context, physical_id: str, old: Properties, new: Properties) -> Created:
    context.call("ec2", "replace_route", **{name: new.get(name) for name in _ROUTE})
    return Created(physical_id)


def _delete_route(context: Context, physical_id: str, properties: Properties) -> None:
    block = properties["DestinationCidrBlock"]
    gone(context, "ec2", "delete_route", RouteTableId=properties["RouteTableId"], DestinationCidrBlock=block)


def _associate(context: Context, properties: Properties) -> Created:
    table, subnet = properties["RouteTableId"], properties["SubnetId"]
    made = context.call("ec2", "associate_route_table", RouteTableId=table, SubnetId=subnet)["AssociationId"]
    return Created(made, {"Id": made})


def _disassociate(context: Context, association: str, properties: Properties) -> None:
    gone(context, "ec2", "disassociate_route_table", AssociationId=association)


_ENDPOINT = ("VpcId", "ServiceName", "VpcEndpointType", "RouteTableIds")


def _create_endpoint(context: Context, properties: Properties) -> Created:
    given = {name: properties.get(name) for name in _ENDPOINT}
    tags = _tags("vpc-endpoint", properties)
    made = context.call("ec2", "create_vpc_endpoint", TagSpecifications=tags, **given)["VpcEndpoint"]["VpcEndpointId"]
    return Created(made, {"Id": made})


def _delete_endpoint(context: Context, endpoint: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_vpc_endpoints", VpcEndpointIds=[endpoint])


_FLOW_LOG = (
    "DeliverLogsPermissionArn",
    "LogDestination",
    "LogDestinationType",
    "LogFormat",
    "LogGroupName",
    "MaxAggregationInterval",
    "ResourceType",
    "TrafficType",
)


def _create_flow_log(context: Context, properties: Properties) -> Created:
    given = {name: properties.get(name) for name in _FLOW_LOG}
    tags = _tags("vpc-flow-log", properties)
    resources = [properties["ResourceId"]]
    made = context.call("ec2", "create_flow_logs", ResourceIds=resources, TagSpecifications=tags, **given)
    return Created(made["FlowLogIds"][0], {"Id": made["FlowLogIds"][0]})


def _delete_flow_log(context: Context, flow_log: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_flow_logs", FlowLogIds=[flow_log])


# -- security groups ------------------------------------------------------------------------------------------------

_EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def _permission(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule of CloudFormation as a permission of the API."""
    made: dict[str, Any] = {"IpProtocol": rule["IpProtocol"]}
    made |= {name: rule[name] for name in ("FromPort", "ToPort") if name in rule}
    said = {"Description": rule["Description"]} if "Description" in rule else {}
    if "CidrIp" in rule:
        made["IpRanges"] = [{"CidrIp": rule["CidrIp"], **said}]
    if "CidrIpv6" in rule:
        made["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **said}]
    for name in ("DestinationSecurityGroupId", "SourceSecurityGroupId"):
        if name in rule:
            made["UserIdGroupPairs"] = [{"GroupId": rule[name], **said}]
    for name in ("DestinationPrefixListId", "SourcePrefixListId"):
        if name in rule:
            made["PrefixListIds"] = [{"PrefixListId": rule[name], **said}]
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
    group = context.call(
        "ec2",
        "create_security_group",
        GroupName=properties.get("GroupName") or context.name(255),
        Description=properties["GroupDescription"],
        VpcId=properties.get("VpcId"),
        TagSpecifications=_tags("security-group", properties),
    )["GroupId"]
    _set_rules(context, group, {}, properties)
    return Created(group, {"GroupId": group, "Id": group, "VpcId": properties.get("VpcId", "")})


def _update_group(context: Context, group: str, old: Properties, new: Properties) -> Created:
    _set_rules(context, group, old, new)
    _retag(context, group, old, new)
    return Created(group, {"GroupId": group, "Id": group, "VpcId": new.get("VpcId", "")})


def _delete_group(context: Context, group: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_security_group", GroupId=group)


# -- launch templates -----------------------------------------------------------------------------------------------


def _template(template: str, latest: int) -> Created:
    numbers = {"DefaultVersionNumber": "1", "LatestVersionNumber": str(latest)}
    return Created(template, {"LaunchTemplateId": template, **numbers})


def _create_template(context: Context, properties: Properties) -> Created:
    made = context.call(
        "ec2",
        "create_launch_template",
        LaunchTemplateName=properties.get("LaunchTemplateName") or context.name(128),
        LaunchTemplateData=properties["LaunchTemplateData"],
        VersionDescription=properties.get("VersionDescription"),
        TagSpecifications=properties.get("TagSpecifications"),
    )["LaunchTemplate"]
    return _template(made["LaunchTemplateId"], 1)


def _update_template(context: Context, template: str, old: Properties, new: Properties) -> Created:
    """A new version; the default version stays the first."""
    made = context.call(
        "ec2",
        "create_launch_template_version",
        LaunchTemplateId=template,
        LaunchTemplateData=new["LaunchTemplateData"],
        VersionDescription=new.get("VersionDescription"),
    )["LaunchTemplateVersion"]
    return _template(template, made["VersionNumber"])


def _delete_template(context: Context, template: str, properties: Properties) -> None:
    gone(context, "ec2", "delete_launch_template", LaunchTemplateId=template)


TYPES = [
    ResourceType(
        "AWS::EC2::VPC",
        frozenset({"CidrBlock", "InstanceTenancy", "Tags", *_DNS}),
        _create_vpc,
        _delete_vpc,
        _update_vpc,
        replace=frozenset({"InstanceTenancy"}),
    ),
    ResourceType(
        "AWS::EC2::Subnet",
        frozenset({"AvailabilityZone", "CidrBlock", "MapPublicIpOnLaunch", "Tags", "VpcId"}),
        _create_subnet,
        _delete_subnet,
        _update_subnet,
    ),
    ResourceType("AWS::EC2::InternetGateway", frozenset({"Tags"}), _create_gateway, _delete_gateway, _update_gateway),
    ResourceType(
        "AWS::EC2::VPCGatewayAttachment",
        frozenset({"InternetGatewayId", "VpcId"}),
        _attach,
        _detach,
        replace=frozenset({"InternetGatewayId", "VpcId"}),
    ),
    ResourceType("AWS::EC2::RouteTable", frozenset({"Tags", "VpcId"}), _create_routes, _delete_routes, _update_routes),
    ResourceType("AWS::EC2::Route", frozenset(_ROUTE), _create_route, _delete_route, _update_route),
    ResourceType(
        "AWS::EC2::SubnetRouteTableAssociation",
        frozenset({"RouteTableId", "SubnetId"}),
        _associate,
        _disassociate,
        replace=frozenset({"RouteTableId", "SubnetId"}),
    ),
    ResourceType(
        "AWS::EC2::VPCEndpoint",
        frozenset({"Tags", *_ENDPOINT}),
        _create_endpoint,
        _delete_endpoint,
        replace=frozenset({"Tags", *_ENDPOINT}),
    ),
    ResourceType(
        "AWS::EC2::FlowLog",
        frozenset({"ResourceId", "Tags", *_FLOW_LOG}),
        _create_flow_log,
        _delete_flow_log,
        replace=frozenset({"ResourceId", "Tags", *_FLOW_LOG}),
    ),
    ResourceType(
        "AWS::EC2::SecurityGroup",
        frozenset({"GroupDescription", "GroupName", "SecurityGroupEgress", "SecurityGroupIngress", "Tags", "VpcId"}),
        _create_group,
        _delete_group,
        _update_group,
    ),
    ResourceType(
        "AWS::EC2::LaunchTemplate",
        frozenset({"LaunchTemplateData", "LaunchTemplateName", "TagSpecifications", "VersionDescription"}),
        _create_template,
        _delete_template,
        _update_template,
        replace=frozenset({"TagSpecifications"}),
    ),
]
