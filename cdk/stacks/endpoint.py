"""One stack an endpoint: everything that serves it, scales it and watches it."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk.aws_kms import Key
from aws_cdk.aws_logs import ILogGroup
from constructs import Construct

from endpoint_spec import EndpointSpec, built_images, derive, platforms
from endpoint_spec.lock import Lock

from ..constructs.alarms import EndpointAlarms
from ..constructs.autoscaling import EndpointScaling
from ..constructs.dashboard import EndpointDashboard
from ..constructs.encryption_key import EncryptionKey
from ..constructs.endpoint_role import EndpointRole, Reports
from ..constructs.log_group import endpoint_log_group, endpoint_logs
from ..constructs.metrics import EndpointMetrics
from ..constructs.model_endpoint import VARIANT_NAME, Capacity, Container, ModelEndpoint
from ..constructs.notification_topic import NotificationTopic
from ..constructs.outputs import add_outputs
from ..constructs.registry_image import RegistryImage
from ..constructs.rollout import deployment_config
from ..deployment import Deployment
from ..refusal import hold_place
from .artifacts import ArtifactsStack
from .of_spec import SpecStack
from .shared import SharedStack


def stack_name(endpoint_name: str) -> str:
    """The stack's name and id, on which operations rely."""
    return f"InferentiaEndpoint-{endpoint_name}"


class EndpointStack(SpecStack):
    """Serves one artifact, the one that the lock names.

    With problems (a lock that is missing, stale or not allowed here; an image that was not built) the stack carries
    them as error annotations and deploying it is refused. It still contains what its lock describes, so that `cdk diff
    --ignore-errors` shows what would change; without a readable lock it contains a placeholder.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        spec: EndpointSpec,
        lock: Lock | None,
        problems: Sequence[str],
        artifacts: ArtifactsStack,
        deployment: Deployment,
        shared: SharedStack | None = None,
    ) -> None:
        image, built, unbuilt = derive.container_image(spec), None, list[str]()
        if not deployment.rehearsal:  # which runs the server in the project's own Python
            where = deployment.account, deployment.region
            built, unbuilt = built_images.find(spec.root, image, spec.name, *where)
        super().__init__(
            scope,
            construct_id,
            spec=spec,
            description=f"Inferentia endpoint {spec.name}, with its scaling, alarms and dashboard",
            problems=[*problems, *unbuilt],
            artifacts=artifacts,
            deployment=deployment,
        )
        if lock is None:
            hold_place(self)
        else:
            registry_image = RegistryImage(self, "Image", image=image, built=built)
            self._compose(spec, lock, artifacts, shared, registry_image)

    def _compose(
        self,
        spec: EndpointSpec,
        lock: Lock,
        artifacts: ArtifactsStack,
        shared: SharedStack | None,
        image: RegistryImage,
    ) -> None:
        native = spec.serve.server == "native"
        metrics = EndpointMetrics(endpoint_name=spec.name, variant_name=VARIANT_NAME, of_handler=native)
        key = shared.key if shared else self._own_key(spec)
        logs = endpoint_logs(self, "Logs", spec=spec, encryption_key=key)
        alarms = EndpointAlarms(self, "Alarms", metrics=metrics, alarms=spec.alarms)
        topic = NotificationTopic(
            self,
            "Notification",
            display_name=f"Alarms of endpoint {spec.name}",
            encryption_key=key,
            notify=spec.alarms.notify or (),
            shared=shared.topic if shared else None,
        )
        if shared is None:
            topic.admit(alarms=f"{stack_name(spec.name)}-*", rules="InferentiaEndpoint-*")
        topic.notified_by(alarms.all)
        serving = self._serve(spec, lock, artifacts, logs, alarms, key, image)
        target_value = derive.target_value(spec, lock)
        if not spec.scale.fixed:  # SageMaker refuses another instance type while the variant is a scalable target
            EndpointScaling(
                self,
                "Scaling",
                endpoint=serving.endpoint,
                variant_name=VARIANT_NAME,
                scale=spec.scale,
                target_value=target_value,
                topics=topic.arns,
                runbook=spec.alarms.runbook,
            )
        dashboard = EndpointDashboard(
            self, "Watch", metrics=metrics, alarms=alarms, scale=spec.scale, target_value=target_value
        )
        add_outputs(
            self,
            {
                "EndpointName": (serving.endpoint.attr_endpoint_name, "Name for InvokeEndpoint"),
                "ArtifactKey": (lock.artifact.key, "S3 key of the model that is deployed"),
                "AlarmTopicArn": (topic.topic.topic_arn, "Topic that the alarms publish to"),
                "LatencyAlarmName": (alarms.latency.alarm_name, "Alarm: p99 of the model's latency"),
                "ErrorAlarmName": (alarms.error_rate.alarm_name, "Alarm: share of failed requests"),
                "DashboardName": (dashboard.dashboard.dashboard_name, "CloudWatch dashboard of the endpoint"),
                "LogGroupName": (logs.log_group_name, "Log group of the containers"),
            },
        )

    def _own_key(self, spec: EndpointSpec) -> Key:
        return EncryptionKey(
            self,
            "Encryption",
            description=f"Encrypts the alarm messages, logs and disks of endpoint {spec.name}",
            log_groups=[endpoint_log_group(spec.name)],
            for_alarms=f"{stack_name(spec.name)}-*",
            keep=spec.logs.keep,
        ).key

    def _serve(
        self,
        spec: EndpointSpec,
        lock: Lock,
        artifacts: ArtifactsStack,
        logs: ILogGroup,
        alarms: EndpointAlarms,
        volume_key: Key,
        image: RegistryImage,
    ) -> ModelEndpoint:
        rollout = deployment_config(
            strategy=spec.rollout.strategy,
            guardrails=platforms.platform(spec.serve.instance_type).features.guardrails,
            alarms=[alarms.latency, alarms.error_rate],
        )
        namespace = derive.neuron_monitor_namespace(spec)
        role = EndpointRole(
            self,
            "Permissions",
            bucket=artifacts.bucket,
            artifact_key=lock.artifact.key,
            encryption_key=artifacts.key,
            repository_arn=image.repository_arn,
            reports=Reports(
                log_group=logs,
                alarms=[alarms.latency, alarms.error_rate] if rollout is not None else (),
                namespaces=[namespace] if namespace else [],
            ),
        )
        environment = derive.worker_environment(spec, lock) | derive.neuron_monitor_environment(spec, self.region)
        return ModelEndpoint(
            self,
            "Serving",
            endpoint_name=spec.name,
            role=role.role,
            container=Container(
                image_uri=image.uri,
                model_data_url=artifacts.bucket.s3_url_for_object(lock.artifact.key),
                environment=environment,
            ),
            capacity=Capacity(
                instance_type=spec.serve.instance_type,
                ami_version=platforms.host(spec.compile.target).ami_version,
                initial_instances=derive.instances(spec),
                volume_key=volume_key,
                fixed=spec.scale.fixed,
                model_download_timeout=derive.model_download_timeout(lock),
                startup_timeout=derive.startup_timeout(lock),
            ),
            deployment_config=rollout,
            serve=spec.serve,
        )
