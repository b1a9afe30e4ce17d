"""Model, endpoint configuration and endpoint: the three SageMaker resources that serve one artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from endpoint_spec.endpoint import Serve

VARIANT_NAME = "main"
# The spec's serve.metrics: instance by instance, and what GET /metrics of the container has (port 8080, the native
# server's). Both are written out, since the second is true where it is left out.
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_MetricsConfig.html
METRICS = {"none": (False, False), "standard": (True, False), "detailed": (True, True)}
# They are kept at an update unless listed here; a changed capture or weight would never arrive, nor the count of a
# fixed fleet. https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_VariantProperty.html
NOT_RETAINED = ("DataCaptureConfig", "DesiredWeight")
COUNT = "DesiredInstanceCount"


@dataclass(frozen=True, kw_only=True)
class Container:
    """What runs: the image's address, the S3 address of model.tar.gz and the worker's environment."""

    image_uri: str
    model_data_url: str
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Where it runs: instance type, instances at the start, the key of their disks, and both time limits of a start in
    seconds.

    fixed: initial_instances is what it has from each update on; otherwise it keeps what scaling reached.
    ami_version: the host's machine image by the name that the API has for it, None where it has none for the chip.
    SageMaker allows 60 to 3600 seconds for each
    (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html).
    """

    instance_type: str
    ami_version: str | None
    initial_instances: int
    volume_key: kms.IKey
    fixed: bool
    model_download_timeout: int
    startup_timeout: int


class ModelEndpoint(Construct):
    """Only the endpoint and its variant have names of our own, and they never change.

    A model or a configuration with a name could not be replaced, and both are replaced at every change: their names
    are left to CloudFormation. The endpoint keeps the number of instances that scaling reached when it is updated.
    Where scaling begins or ends the configuration is another one even if nothing in it changed: "To update an endpoint,
    you must create a new EndpointConfig" (API_UpdateEndpoint).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint_name: str,
        role: iam.IRole,
        container: Container,
        capacity: Capacity,
        deployment_config: sagemaker.CfnEndpoint.DeploymentConfigProperty | None = None,
        serve: Serve,
    ) -> None:
        """serve: the spec's section, of which network isolation and metrics are taken.

        deployment_config: default SageMaker's all-at-once update.
        """
        super().__init__(scope, construct_id)
        self.model = self._model(role, container, serve.network_isolation)
        self.config = sagemaker.CfnEndpointConfig(
            self,
            "FixedConfig" if capacity.fixed else "Config",
            production_variants=[self._variant(capacity)],
            # No type of the table has disks of its own, which encrypt themselves and take no key.
            # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
            kms_key_id=capacity.volume_key.key_arn,
            metrics_config=sagemaker.CfnEndpointConfig.MetricsConfigProperty(
                enable_enhanced_metrics=METRICS[serve.metrics][0],
                enable_detailed_observability=METRICS[serve.metrics][1],
            ),
        )
        not_retained = [*NOT_RETAINED, COUNT] if capacity.fixed else NOT_RETAINED
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            deployment_config=deployment_config,
            retain_all_variant_properties=True,
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type=name) for name in not_retained
            ],
        )

    def _model(self, role: iam.IRole, container: Container, network_isolation: bool) -> sagemaker.CfnModel:
        return sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            enable_network_isolation=True if network_isolation else None,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=container.image_uri,
                model_data_url=container.model_data_url,
                environment=dict(sorted(container.environment.items())),
            ),
        )

    def _variant(self, capacity: Capacity) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=VARIANT_NAME,
            model_name=self.model.attr_model_name,
            instance_type=capacity.instance_type,
            inference_ami_version=capacity.ami_version,
            initial_instance_count=capacity.initial_instances,
            initial_variant_weight=1,
            # Random where it is left out. https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariantRoutingConfig.html
            routing_config=sagemaker.CfnEndpointConfig.RoutingConfigProperty(
                routing_strategy="LEAST_OUTSTANDING_REQUESTS"
            ),
            model_data_download_timeout_in_seconds=capacity.model_download_timeout,
            container_startup_health_check_timeout_in_seconds=capacity.startup_timeout,
        )
