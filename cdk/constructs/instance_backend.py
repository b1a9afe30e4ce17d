"""Compiling on EC2 instances: their network and launch template, and what the state machines may do with instances."""

from __future__ import annotations

from collections.abc import Mapping

from constructs import Construct

from endpoint_spec import jobs

from ..states.instance import InstanceMachine, instance_states, stop_states
from ..states.job import JobContext
from ..states.run import Workflow
from .backend import ComputeBackend
from .compile_instance import CompileInstance, Machine, ec2_arn, may_end
from .compile_network import CompileNetwork, ExistingNetwork
from .job_files import JobFiles


class InstanceBackend(Construct):
    """backend: what a compile stack takes from here."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        context: JobContext,
        machine: Machine,
        files: JobFiles,
        tags: Mapping[str, str],
        network: ExistingNetwork | None,
    ) -> None:
        """network: one that is there; by default the stack makes one."""
        super().__init__(scope, construct_id)
        network = network or self._network(files)
        instance = CompileInstance(
            self, "Instance", files=files, machine=machine, security_group=network.security_group, tags=tags
        )
        started = InstanceMachine(
            template=instance.template.ref,
            version=instance.template.attr_latest_version_number,
            subnets=network.subnets,
        )
        runs = jobs.runs_prefix(files.name)
        self.backend = ComputeBackend(
            workflow=Workflow(job=instance_states(context, started), data={"subnets": started.subnet_of_try()}),
            stop=stop_states(context, "All stopped"),
            run_statements=[
                *instance.may_start(network.subnets, network.security_group, machine),
                *may_end(self, files.name)[:1],
                # An instance says at its end, in a file of its run, how it went.
                files.read(runs),
                files.use_key(),
            ],
            stop_statements=may_end(self, files.name),
            log_group=None,
            run_any_resource="DescribeInstances takes none either.",
            run_patterns={
                **files.patterns(runs),
                **{
                    f"{ec2_arn(self)}:{kind}/*": "No id before it is made; a condition asks for this template."
                    for kind in (
                        "instance",
                        "network-interface",
                        "volume",
                        *(["spot-instances-request"] if machine.spot else []),
                    )
                },
            },
            stop_patterns={
                f"{ec2_arn(self)}:instance/*": "No template knows their ids; a condition asks for this endpoint's tag."
            },
            stop_any_resource="DescribeInstances takes none either.",
        )

    def _network(self, files: JobFiles) -> ExistingNetwork:
        made = CompileNetwork(self, "Network", endpoint_name=files.name, bucket=files.bucket)
        return ExistingNetwork(subnets=made.subnets, security_group=made.security_group)
