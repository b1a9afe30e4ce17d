"""EC2 instances that run, in front of moto's: RunInstances with launch templates, their end, their console.

Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

import base64
import re
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response
from moto.ec2.utils import convert_tag_spec, parse_user_data

from ..context import WithContext
from ..control.clock import now
from ..ec2.instances import Instances
from ..ec2.machine import BY_USER, Machine
from ..ec2.metadata import tag_key_fault
from ..errors import AwsError

AMI = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
TEMPLATE = frozenset({
    "BlockDeviceMappings", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions", "InstanceType", "MetadataOptions", "SecurityGroupIds", "TagSpecifications", "UserData",
})  # fmt: skip
REQUEST = TEMPLATE | {"ClientToken", "LaunchTemplate", "MaxCount", "MinCount", "SubnetId"}


class Ec2(WithContext, EC2Response):
    """One request to EC2."""

    @property
    def runs(self) -> Instances:
        """The machines of this server."""
        return self.context.instances

    # -- launch templates -----------------------------------------------------------------------------------------

    def create_launch_template(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplate.html"""
        self._check_template()
        return super().create_launch_template()

    def create_launch_template_version(self) -> ActionResult:
        """With its user data as moto's own instances expect it, which moto forgets for versions."""
        self._check_template()
        answer = super().create_launch_template_version()
        given = self._get_param("LaunchTemplateId"), self._get_param("LaunchTemplateName")
        backend = self.ec2_backend
        template = backend.get_launch_template(given[0]) if given[0] else backend.get_launch_template_by_name(given[1])
        data = template.latest_version().data
        data["UserData"] = parse_user_data(data.get("UserData"))
        return answer

    def _check_template(self) -> None:
        unknown = sorted(set(self._get_param("LaunchTemplateData", {})) - TEMPLATE)
        if unknown:
            raise _unsupported(f"{', '.join(unknown)} of a launch template")

    # -- start ----------------------------------------------------------------------------------------------------

    def run_instances(self) -> ActionResult:
        """The launch template's settings, and over them the request's; the same ClientToken starts nothing twice."""
        request = {name: value for name, value in self.params.items() if value is not None}
        with self.runs.lock:
            token = request.get("ClientToken")
            known = self.runs.started.get((self.region, str(token))) if token else None
            if known is not None:
                if known[0] != repr(request):
                    raise AwsError(
                        "IdempotentParameterMismatch", f"the client token {token} was used with other parameters"
                    )
                return ActionResult(known[1])
            reservation = self._launched(request)
            if token:
                self.runs.started[self.region, str(token)] = (repr(request), reservation)
        return ActionResult(reservation)

    def _launched(self, request: dict[str, Any]) -> Any:
        unknown = sorted(set(request) - REQUEST - {"Action", "Version"})
        if unknown:
            raise _unsupported(f"{', '.join(unknown)} of RunInstances")
        if (int(request["MinCount"]), int(request["MaxCount"])) != (1, 1):
            raise _unsupported("MinCount and MaxCount other than 1")
        template = request.get("LaunchTemplate")
        settings = dict(self.ec2_backend._get_template_from_args(template).data) if template else {}
        tags = [*(settings.get("TagSpecifications") or []), *(request.get("TagSpecifications") or [])]
        data = {**settings, **request, "TagSpecifications": tags}
        if "UserData" in request:
            data["UserData"] = parse_user_data(request["UserData"])
        self._check(data)
        reservation = self._start(data)
        instance = reservation.instances[0]
        machine = self.runs.machines[instance.id] = Machine(self.host, instance, data)
        machine.boot()
        return reservation

    def _check(self, data: dict[str, Any]) -> None:
        image = str(data.get("ImageId") or "")
        if not image:
            raise AwsError("MissingParameter", "The request must contain the parameter ImageId")
        if not AMI.fullmatch(image):
            raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{image}"')
        if (data.get("MetadataOptions") or {}).get("InstanceMetadataTags") == "enabled":
            for key in convert_tag_spec(data["TagSpecifications"]).get("instance", {}):
                fault = tag_key_fault(key)
                if fault:
                    raise AwsError("InvalidParameterValue", fault)
        profile = data.get("IamInstanceProfile") or {}
        name = profile.get("Name") or str(profile.get("Arn", "")).rsplit("/", 1)[-1]
        if name:
            iam = self.host.clients.client("iam", "us-east-1")
            try:
                iam.get_instance_profile(InstanceProfileName=name)
            except iam.exceptions.NoSuchEntityException:
                raise AwsError(
                    "InvalidParameterValue", f"Value ({name}) for parameter iamInstanceProfile.name is invalid. "
                    "Invalid IAM Instance Profile name",
                ) from None  # fmt: skip

    def _start(self, data: dict[str, Any]) -> Any:
        """moto's instance; it takes little from a launch template by itself."""
        market = (data.get("InstanceMarketOptions") or {}).get("MarketType")
        return self.ec2_backend.run_instances(
            data["ImageId"],
            1,
            data.get("UserData"),
            [],
            instance_type=data.get("InstanceType", "m1.small"),
            is_instance_type_default="InstanceType" not in data,
            region_name=self.region,
            subnet_id=data.get("SubnetId"),
            security_group_ids=list(data.get("SecurityGroupIds") or []),
            nics=[],
            tags=convert_tag_spec(data["TagSpecifications"]),
            instance_market_options=market or {},
            instance_initiated_shutdown_behavior=data.get("InstanceInitiatedShutdownBehavior"),
            launch_template=data.get("LaunchTemplate") or {},
            metadata_options=data.get("MetadataOptions") or {},
            associate_public_ip=None,
            client_token=data.get("ClientToken"),
        )

    # -- end ------------------------------------------------------------------------------------------------------

    def terminate_instances(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html"""
        rows = []
        for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
            before = {"Code": instance.state_code, "Name": instance.state}
            machine = self.runs.machines.get(instance.id)
            if machine is None:
                self.ec2_backend.terminate_instances([instance.id])
            else:
                machine.end(BY_USER)
            after = {"Code": instance.state_code, "Name": instance.state}
            rows.append({"InstanceId": instance.id, "CurrentState": after, "PreviousState": before})
        return ActionResult({"TerminatingInstances": rows})

    def stop_instances(self) -> ActionResult:
        """An instance that runs user data is not started again here, so it is not stopped either."""
        raise _unsupported("StopInstances")

    def start_instances(self) -> ActionResult:
        """An instance runs its user data once, at its launch."""
        raise _unsupported("StartInstances")

    def get_console_output(self) -> ActionResult:
        """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html"""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        machine = self.runs.machines.get(instance.id)
        text = machine.console() if machine is not None else ""
        output = base64.b64encode(text.encode()).decode()
        return ActionResult({"InstanceId": instance.id, "Output": output, "Timestamp": now()})


def _unsupported(what: str) -> AwsError:
    return AwsError("UnsupportedOperation", f"the embedded AWS does not honour {what}")
