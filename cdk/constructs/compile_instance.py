"""What a compile instance is started from: a launch template, and the role that it runs under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import Aws, Fn, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from endpoint_spec import jobs

from ..nag import acknowledge_any_resource, acknowledge_patterns
from ..permissions import allow, pass_role, role_of
from ..states.instance import ENDPOINT_TAG
from .job_files import JobFiles

USER_DATA = Path(__file__).parents[1] / "user_data" / "compile_instance.sh"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
LARGEST_USER_DATA = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The instance. image: an AMI id. root: the device it boots from. python: its interpreter. volume: in GB.

    minutes: after which it shuts itself down, whatever it does. sessions: Session Manager may open a shell on it.
    """

    instance_type: str
    image: str
    root: str
    python: str
    volume: int
    spot: bool
    minutes: int
    sessions: bool = False


def user_data(*, name: str, region: str, python: str, minutes: int) -> str:
    """The script with its words filled in. Raises ValueError for one that is left, and for more than EC2 takes."""
    words = {"NAME": name, "REGION": region, "PYTHON": python, "MINUTES": str(minutes)}
    text = USER_DATA.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    left = re.findall(r"@[A-Z]+@", text)
    if left or len(text.encode()) > LARGEST_USER_DATA:
        raise ValueError(f"{USER_DATA.name}: {left or len(text)} is left over, or more than {LARGEST_USER_DATA} bytes.")
    return text


class CompileInstance(Construct):
    """role, template: the instance's role; id and version of the launch template, version as it was deployed."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        files: JobFiles,
        machine: Machine,
        security_group: str,
        tags: Mapping[str, str],
    ) -> None:
        """tags: on every instance and disk, beside those that the run gives them."""
        super().__init__(scope, construct_id)
        # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-add-permissions-to-existing-profile.html
        channels = [f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")]
        answer_sessions = allow("AnswerSessions", ["ssm:UpdateInstanceInformation", *channels], "*")
        self.role = role_of(
            self,
            "ec2",
            f"Compiles endpoint {files.name}: reads and writes below {jobs.base_prefix(files.name)}",
            {"Job": [*files.for_job(), *([answer_sessions] if machine.sessions else [])]},
            source=None,  # EC2 hands a role to an instance of the role's own account, and names no source
        )
        acknowledge_patterns(self.role, files.job_patterns())
        if machine.sessions:
            acknowledge_any_resource(
                self.role,
                "Session Manager's agent opens channels that have no resource; the managed policy would allow more.",
            )
        profile = iam.CfnInstanceProfile(self, "Profile", roles=[self.role.role_name])
        data = self._data(files.name, machine, profile, security_group, {**tags, ENDPOINT_TAG: files.name})
        self.template = ec2.CfnLaunchTemplate(
            self,
            "Template",
            launch_template_data=data,
            version_description=f"Compile instances of endpoint {files.name}",
        )

    def _data(
        self,
        name: str,
        machine: Machine,
        profile: iam.CfnInstanceProfile,
        security_group: str,
        tags: Mapping[str, str],
    ) -> ec2.CfnLaunchTemplate.LaunchTemplateDataProperty:
        template = ec2.CfnLaunchTemplate
        script = user_data(name=name, region=Stack.of(self).region, python=machine.python, minutes=machine.minutes)
        spot = template.InstanceMarketOptionsProperty(
            market_type="spot",
            spot_options=template.SpotOptionsProperty(
                spot_instance_type="one-time", instance_interruption_behavior="terminate"
            ),
        )
        return template.LaunchTemplateDataProperty(
            image_id=machine.image,
            instance_type=machine.instance_type,
            instance_market_options=spot if machine.spot else None,
            # Its own shutdown ends the bill, so does the end of the script.
            instance_initiated_shutdown_behavior="terminate",
            iam_instance_profile=template.IamInstanceProfileProperty(arn=profile.attr_arn),
            security_group_ids=[security_group],
            block_device_mappings=[self._disk(machine)],
            metadata_options=template.MetadataOptionsProperty(
                http_tokens="required",  # IMDSv2
                http_put_response_hop_limit=1,
                instance_metadata_tags="enabled",  # the run's words
            ),
            tag_specifications=[
                template.TagSpecificationProperty(
                    resource_type=kind, tags=[{"key": key, "value": value} for key, value in sorted(tags.items())]
                )
                for kind in ("instance", "volume")
            ],
            user_data=Fn.base64(script),
        )

    @staticmethod
    def _disk(machine: Machine) -> ec2.CfnLaunchTemplate.BlockDeviceMappingProperty:
        # Under the account's own EBS key: a customer key would need grants for EC2 and, for spot capacity, for a role
        # of AWS's, without which an instance ends before it says why.
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html
        return ec2.CfnLaunchTemplate.BlockDeviceMappingProperty(
            device_name=machine.root,
            ebs=ec2.CfnLaunchTemplate.EbsProperty(
                encrypted=True, volume_size=machine.volume, volume_type="gp3", delete_on_termination=True
            ),
        )

    def may_start(self, subnets: list[str], security_group: str, machine: Machine) -> list[iam.PolicyStatement]:
        """What a role needs to start instances of this template, and no others."""
        stack = Stack.of(self)
        own = ec2_arn(self)
        template = f"{own}:launch-template/{self.template.ref}"
        spot = [f"{own}:spot-instances-request/*"] if machine.spot else []
        # What an instance consists of: as this template has it, not as a caller may wish.
        parts = [
            f"{own}:instance/*",
            f"{own}:volume/*",
            f"{own}:network-interface/*",
            f"{own}:security-group/{security_group}",
            f"arn:{Aws.PARTITION}:ec2:{stack.region}::image/{machine.image}",
            *(f"{own}:subnet/{subnet}" for subnet in subnets),
        ]
        return [
            allow("StartInstances", "ec2:RunInstances", parts, ArnEquals={"ec2:LaunchTemplate": template}),
            # The request for spare capacity knows no template; the instance that comes of it does.
            allow("UseTemplate", "ec2:RunInstances", [template, *spot]),
            # Tags are the words of a run: given when an instance is made, changed by nobody afterwards.
            allow("TagNewInstances", "ec2:CreateTags", parts[:2], StringEquals={"ec2:CreateAction": "RunInstances"}),
            pass_role("GiveRoleToInstances", self.role, "ec2"),
        ]


def ec2_arn(scope: Construct) -> str:
    """How the ARNs of everything of EC2's begin."""
    stack = Stack.of(scope)
    return f"arn:{Aws.PARTITION}:ec2:{stack.region}:{stack.account}"


def may_end(scope: Construct, name: str) -> list[iam.PolicyStatement]:
    """What a role needs to find instances, and to terminate those of an endpoint."""
    of_endpoint = {f"aws:ResourceTag/{ENDPOINT_TAG}": name}
    return [
        allow("FindInstances", "ec2:DescribeInstances", "*"),
        allow("EndInstances", "ec2:TerminateInstances", f"{ec2_arn(scope)}:instance/*", StringEquals=of_endpoint),
    ]
