"""One stack an endpoint that is compiled on AWS: everything that a compile run needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from constructs import Construct

from endpoint_spec import EndpointSpec, derive, platforms
from endpoint_spec.endpoint import Job

from ..constructs.backend import ComputeBackend
from ..constructs.compile_instance import Machine
from ..constructs.compile_network import ExistingNetwork
from ..constructs.compile_runs import CompileRuns
from ..constructs.encryption_key import EncryptionKey
from ..constructs.instance_backend import InstanceBackend
from ..constructs.job_files import JobFiles
from ..constructs.labels import REHEARSAL_TAG
from ..constructs.log_group import EncryptedLogGroup, run_log_group
from ..constructs.notification_topic import NotificationTopic
from ..constructs.outputs import add_outputs
from ..constructs.processing_backend import ProcessingBackend
from ..deployment import Deployment
from ..refusal import hold_place
from ..states.job import JobContext
from ..states.run import poll_seconds
from .artifacts import ArtifactsStack
from .of_spec import SpecStack
from .shared import SharedStack

WHERE = {"processing": "in SageMaker Processing jobs", "ec2": "on EC2 instances"}


def stack_name(endpoint_name: str) -> str:
    """The stack's name and id, on which operations rely."""
    return f"InferentiaCompile-{endpoint_name}"


class CompileStack(SpecStack):
    """Two state machines, their roles, log and topic; for EC2 also launch template and network. Needs no lock.

    Without the machine image that EC2 needs deploying it is refused.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        spec: EndpointSpec,
        job: Job,
        artifacts: ArtifactsStack,
        deployment: Deployment,
        shared: SharedStack | None = None,
    ) -> None:
        """job: the spec's job section."""
        cost = derive.job_cost_text(spec)
        problems = _problems(spec, job, deployment)
        super().__init__(
            scope,
            construct_id,
            spec=spec,
            description=f"Compiles Inferentia endpoint {spec.name} {WHERE[job.where]}; {cost}",
            problems=problems,
            artifacts=artifacts,
            deployment=deployment,
        )
        if problems:
            hold_place(self, "Refused")
        else:
            self._compose(spec, job, artifacts, deployment, cost, shared)

    def _compose(
        self,
        spec: EndpointSpec,
        job: Job,
        artifacts: ArtifactsStack,
        deployment: Deployment,
        cost: str,
        shared: SharedStack | None,
    ) -> None:
        group = run_log_group(spec.name)
        key = (
            shared.key
            if shared
            else EncryptionKey(
                self,
                "Encryption",
                description=f"Encrypts the logs and messages of compile runs of endpoint {spec.name}",
                log_groups=[group],
            ).key
        )
        logs = EncryptedLogGroup(self, "Logs", name=group, encryption_key=key).log_group
        topic = NotificationTopic(
            self,
            "Notification",
            display_name=f"Compile runs of endpoint {spec.name}",
            encryption_key=key,
            notify=spec.alarms.notify or (),
            shared=shared.topic if shared else None,
        )
        files = JobFiles(self, name=spec.name, bucket=artifacts.bucket, key=artifacts.key)
        seconds = job.time_limit // timedelta(seconds=1)
        tags = {**spec.tags, **({REHEARSAL_TAG: "true"} if deployment.rehearsal else {})}
        context = JobContext(
            partition=self.partition,
            bucket=artifacts.bucket.bucket_name,
            name=spec.name,
            kms_key=artifacts.key.key_arn,
            poll=poll_seconds(seconds, job.max_parallel),
            limit=seconds,
            tags=tags,
        )
        machine = _machine(spec, job, deployment) if job.where == "ec2" else None
        backend: ComputeBackend
        if machine is None:
            backend = ProcessingBackend(
                self,
                "Jobs",
                context=context,
                job=job,
                image=derive.container_image(spec, "torchserve"),
                files=files,
            ).backend
        else:
            backend = InstanceBackend(
                self, "Jobs", context=context, machine=machine, files=files, tags=tags, network=_network(job)
            ).backend
        runs = CompileRuns(
            self,
            "Runs",
            context=context,
            backend=backend,
            files=files,
            topic=topic,
            log_group=logs,
            bounds=(seconds, job.max_parallel),
        )
        add_outputs(
            self,
            {
                "StateMachineArn": (runs.run.arn, "What `operations submit` starts"),
                "JobLogGroup": (backend.log_group or logs.log_group_name, "Log group of the jobs, or of their runs"),
                "Where": (job.where, "Where the jobs run"),
                "TimeLimitSeconds": (str(seconds), "After which a run is ended"),
                "CostLimit": (cost, "What a run costs at most"),
                # operations adds it to the keys of the compile cache, so that another image compiles anew.
                **({"MachineImage": (machine.image, "The image that instances start from")} if machine else {}),
            },
        )


def _network(job: Job) -> ExistingNetwork | None:
    if job.subnets is None or job.security_group is None:
        return None
    return ExistingNetwork(subnets=list(job.subnets), security_group=job.security_group)


def _machine(spec: EndpointSpec, job: Job, deployment: Deployment) -> Machine:
    image = platforms.machine_image(derive.container_image(spec, "torchserve").torch)
    return Machine(
        instance_type=str(job.instance_type),
        image=str(deployment.machine_image(spec.compile.target)),
        root=image.root,
        # On the embedded AWS no image boots: the script runs with the Python that is there.
        python="python3" if deployment.rehearsal else image.python,
        volume=job.volume,
        spot=job.spot,
        sessions=job.session_manager,
        minutes=math.ceil(job.time_limit / timedelta(minutes=1)),
    )


def _problems(spec: EndpointSpec, job: Job, deployment: Deployment) -> Sequence[str]:
    """Why the stack cannot be deployed, each with what to do."""
    if job.where != "ec2" or deployment.machine_image(spec.compile.target) is not None:
        return ()
    image = platforms.machine_image(derive.container_image(spec, "torchserve").torch)
    return [
        f"Endpoint {spec.name}: job.where is ec2, and no machine image was given. Find the id of {image.name} in "
        f"your region ({image.find}), then deploy with `-c compile_ami=ami-...` or write it as compile_ami into "
        "cdk.context.json. Why none is chosen by itself: endpoint_spec/data/machine_images.yaml."
    ]
