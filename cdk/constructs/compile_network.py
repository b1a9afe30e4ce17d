"""A small network of its own for compile instances: nobody can come in, and only HTTPS goes out."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Fn, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from ..nag import acknowledge
from .job_files import WRITE

# Addresses are looked up by nobody: the network is joined to no other.
NETWORK = "10.181.0.0/24"
SUBNETS = ("10.181.0.0/26", "10.181.0.64/26", "10.181.0.128/26")


@dataclass(frozen=True, kw_only=True)
class ExistingNetwork:
    """Ids of subnets and of a security group that are there: they have to let HTTPS out to S3 and the registry."""

    subnets: list[str]
    security_group: str


class CompileNetwork(Construct):
    """subnets: ids of three public subnets, each in a zone of its own, because a zone may lack an instance type.

    security_group: its id; no inbound rule at all, outbound HTTPS alone.

    Public, because a private one costs a NAT gateway by the hour, also while nobody compiles. S3 is reached through a
    gateway endpoint, which is free and leads to one bucket; Session Manager over the internet. The network's default
    security group, which CloudFormation cannot close, is nobody's.
    """

    def __init__(self, scope: Construct, construct_id: str, *, endpoint_name: str, bucket: s3.IBucket) -> None:
        """bucket: the only one that is reached from here."""
        super().__init__(scope, construct_id)
        # No host names: nothing in it is ever reached by name.
        network = ec2.CfnVPC(self, "Network", cidr_block=NETWORK, enable_dns_support=True, enable_dns_hostnames=False)
        acknowledge(
            network,
            finding="AwsSolutions-VPC7",
            reason="Instances live here for one job each, accept no connection, and their work is logged with the job: "
            "flow logs would cost more than the network and show nothing that the run's log does not.",
        )
        routes = self._routes(network)
        self.subnets = [self._subnet(network, routes, number, block) for number, block in enumerate(SUBNETS)]
        self._reach_s3(network, routes, bucket)
        self.security_group = ec2.CfnSecurityGroup(
            self,
            "SecurityGroup",
            group_description=f"Compile instances of endpoint {endpoint_name}: nothing in, HTTPS out",
            vpc_id=network.ref,
            # Names and time come from the network's own services, which security groups do not stop.
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="tcp", from_port=443, to_port=443, cidr_ip="0.0.0.0/0", description="HTTPS"
                )
            ],
        ).attr_group_id

    def _routes(self, network: ec2.CfnVPC) -> ec2.CfnRouteTable:
        gateway = ec2.CfnInternetGateway(self, "Gateway")
        attached = ec2.CfnVPCGatewayAttachment(self, "Attachment", vpc_id=network.ref, internet_gateway_id=gateway.ref)
        table = ec2.CfnRouteTable(self, "Routes", vpc_id=network.ref)
        out = ec2.CfnRoute(
            self, "Out", route_table_id=table.ref, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.ref
        )
        out.add_resource_dependency(attached)
        return table

    def _subnet(self, network: ec2.CfnVPC, routes: ec2.CfnRouteTable, number: int, block: str) -> str:
        subnet = ec2.CfnSubnet(
            self,
            f"Subnet{number}",
            vpc_id=network.ref,
            cidr_block=block,
            availability_zone=Fn.select(number, Fn.get_azs()),
            map_public_ip_on_launch=True,
        )
        ec2.CfnSubnetRouteTableAssociation(self, f"Routes{number}", subnet_id=subnet.ref, route_table_id=routes.ref)
        return subnet.ref

    def _reach_s3(self, network: ec2.CfnVPC, routes: ec2.CfnRouteTable, bucket: s3.IBucket) -> None:
        """https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-s3.html, endpoint policies"""
        policy = iam.PolicyStatement(
            sid="ArtifactBucket",
            principals=[iam.AnyPrincipal()],
            actions=["s3:GetObject", "s3:ListBucket", *WRITE],
            resources=[bucket.bucket_arn, bucket.arn_for_objects("*")],
        )
        ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=network.ref,
            service_name=f"com.amazonaws.{Stack.of(self).region}.s3",
            route_table_ids=[routes.ref],
            vpc_endpoint_type="Gateway",
            policy_document=iam.PolicyDocument(statements=[policy]),
        )
