"""SageMaker's hosting operations in place of moto's.

What Create... is given is kept whole and comes back from Describe..., so that nothing of a template is lost.
Source: SageMaker API Reference, https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from ...control.clock import now
from ...hosting.endpoint import Endpoint, Variant
from .request import RequestError, SageMakerRequest

INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")

# The one machine image with a Neuron driver that the API names, "Inferentia2 and Trainium":
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html
NEURON_AMI, NEURON_TYPES = "al2-ami-sagemaker-inference-neuron-2", ("ml.inf2.", "ml.trn1.", "ml.trn1n.", "ml.trn2.")


class Hosting(SageMakerRequest):
    """Models, configurations and endpoints."""

    def create_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html"""
        with self.hosted.lock:
            return _keep(self, self.hosted.models, "model", "Model")

    def describe_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeModel.html"""
        return ActionResult(self.find(self.hosted.models, "model", self.params["ModelName"]))

    def list_models(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListModels.html"""
        return ActionResult({"Models": _named(list(self.hosted.models.values()), "ModelName", self.params)})

    def delete_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteModel.html"""
        model = self.find(self.hosted.models, "model", self.params["ModelName"])
        del self.hosted.models[model["ModelName"]]
        return EmptyResult()

    def create_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html"""
        hosted = self.hosted
        with hosted.lock:
            faults = config_faults(self.params)
            if faults:
                raise RequestError("; ".join(faults))
            for variant in self.params["ProductionVariants"]:
                self.find(hosted.models, "model", variant["ModelName"])
            return _keep(self, hosted.configs, "endpoint-config", "EndpointConfig")

    def describe_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpointConfig.html"""
        return ActionResult(_config(self))

    def list_endpoint_configs(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpointConfigs.html"""
        rows = _named(list(self.hosted.configs.values()), "EndpointConfigName", self.params)
        return ActionResult({"EndpointConfigs": rows})

    def delete_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpointConfig.html"""
        del self.hosted.configs[_config(self)["EndpointConfigName"]]
        return EmptyResult()

    def create_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html"""
        hosted = self.hosted
        with hosted.lock:
            name = self.new_name("EndpointName", "endpoint", hosted.endpoints)
            config = _config(self)
            variants = _variants(self, config)
            arn = self.arn("endpoint", name)
            endpoint = Endpoint(self.host, self.region, name, arn, config, list(self.params.get("Tags") or []))
            endpoint.deployment = self.params.get("DeploymentConfig")
            hosted.endpoints[name] = endpoint
        endpoint.create(variants)
        return ActionResult({"EndpointArn": arn})

    def update_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html"""
        endpoint = _endpoint(self)
        scaled = _scaled_variants(self, endpoint.name)
        with endpoint.lock:
            if endpoint.status not in {"InService", "Failed"}:
                raise RequestError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            config = _config(self)
            _keep_types(endpoint, config, scaled)
            if config is endpoint.config and endpoint.status == "InService":
                raise RequestError(
                    f'Cannot update endpoint "{endpoint.arn}" with the endpoint configuration that it has already.'
                )
            variants = _variants(self, config)
            if self.params.get("RetainAllVariantProperties"):
                excluded = {
                    item["VariantPropertyType"] for item in self.params.get("ExcludeRetainedVariantProperties") or []
                }
                retain(endpoint.variants, variants, excluded)
            if not self.params.get("RetainDeploymentConfig"):
                endpoint.deployment = self.params.get("DeploymentConfig")
            endpoint.update(config, variants)
        return ActionResult({"EndpointArn": endpoint.arn})

    def update_endpoint_weights_and_capacities(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html"""
        endpoint = _endpoint(self)
        if endpoint.status != "InService":
            raise RequestError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        wanted = self.params["DesiredWeightsAndCapacities"]
        names = [item["VariantName"] for item in wanted]
        unknown = sorted(set(names) - set(endpoint.variants))
        if unknown or len(set(names)) != len(names):
            raise RequestError(
                f"The variant name(s) {', '.join(unknown or names)} must be distinct and present in endpoint "
                f'configuration "{endpoint.config["EndpointConfigName"]}".'
            )
        endpoint.change(wanted)
        return ActionResult({"EndpointArn": endpoint.arn})

    def describe_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html"""
        return ActionResult(_endpoint(self).described())

    def list_endpoints(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html"""
        wanted = self.params.get("StatusEquals")
        rows = [endpoint.listed() for endpoint in list(self.hosted.endpoints.values())]
        rows = [row for row in rows if wanted in (None, row["EndpointStatus"])]
        return ActionResult({"Endpoints": _named(rows, "EndpointName", self.params)})

    def delete_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpoint.html"""
        endpoint = _endpoint(self)
        endpoint.delete()
        self.hosted.endpoints.pop(endpoint.name, None)
        return EmptyResult()


def _keep(request: SageMakerRequest, table: dict[str, Any], kind: str, called: str) -> ActionResult:
    """Keep what a request creates under its name."""
    name = request.new_name(f"{called}Name", kind, table)
    arn = request.arn(kind, name)
    table[name] = {**request.params, f"{called}Arn": arn, "CreationTime": now()}
    return ActionResult({f"{called}Arn": arn})


def _config(request: SageMakerRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.find(
        request.hosted.configs, "endpoint-config", request.params["EndpointConfigName"]
    )
    return found


def _scaled_variants(request: SageMakerRequest, endpoint: str) -> set[str]:
    """Names of the variants that are registered for automatic scaling."""
    client = request.host.clients.client("application-autoscaling", request.region)
    targets = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    resources = (target["ResourceId"].split("/") for target in targets)
    return {parts[3] for parts in resources if parts[1] == endpoint}


def _endpoint(request: SageMakerRequest) -> Endpoint:
    found: Endpoint = request.find(request.hosted.endpoints, "endpoint", request.params["EndpointName"])
    return found


def _variants(request: SageMakerRequest, config: dict[str, Any]) -> list[Variant]:
    """The variants of a configuration with their models; raises when a model is gone or cannot run here."""
    variants = []
    for item in config["ProductionVariants"]:
        model = request.find(request.hosted.models, "model", item["ModelName"])
        faults = model_faults(model)
        if faults:
            raise RequestError("; ".join(faults))
        weight, count = item.get("InitialVariantWeight", 1.0), item.get("InitialInstanceCount", 1)
        variants.append(Variant(item, model, weight, count))
    return variants


def _keep_types(endpoint: Endpoint, config: dict[str, Any], scaled: set[str]) -> None:
    """Refuse another instance type for a variant that is registered for automatic scaling.

    "If the update would change the instance type for any model that is a target for automatic scaling, the update
    fails", https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html (the wording is ours).
    """
    for wanted in config["ProductionVariants"]:
        name, new = wanted["VariantName"], wanted.get("InstanceType")
        if name not in scaled or name not in endpoint.variants:
            continue
        old = endpoint.variants[name].configuration.get("InstanceType")
        if new != old:
            raise RequestError(
                f"The variant {name} of endpoint {endpoint.name} is registered for automatic scaling: its instance "
                f"type cannot change from {old} to {new}. Deregister the scalable target first."
            )


def retain(old: dict[str, Variant], new: list[Variant], excluded: set[str]) -> None:
    """RetainAllVariantProperties without the excluded ones: counts and weights of variants of the same name stay.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
    """
    for variant in new:
        if variant.name in old:
            if "DesiredInstanceCount" not in excluded:
                variant.count = old[variant.name].count
            if "DesiredWeight" not in excluded:
                variant.weight = old[variant.name].weight


def config_faults(config: dict[str, Any]) -> list[str]:
    """What of a configuration cannot be hosted here, or not at all."""
    faults = []
    for key in ("AsyncInferenceConfig", "ShadowProductionVariants", "ExplainerConfig"):
        if config.get(key):
            faults.append(f"the embedded AWS does not honour {key} of an endpoint configuration")
    if (config.get("DataCaptureConfig") or {}).get("EnableCapture"):
        faults.append("the embedded AWS captures no data: DataCaptureConfig.EnableCapture must be false")
    names = [variant["VariantName"] for variant in config["ProductionVariants"]]
    if len(set(names)) != len(names):
        faults.append(f"variant names must be distinct: {', '.join(names)}")
    for variant in config["ProductionVariants"]:
        faults += _variant_faults(variant)
    return faults


def _variant_faults(variant: dict[str, Any]) -> list[str]:
    name = variant["VariantName"]
    for key in ("ServerlessConfig", "ManagedInstanceScaling"):
        if variant.get(key):
            return [f"the embedded AWS does not honour {key} of variant {name}"]
    if "ModelName" not in variant:
        return [f"variant {name} needs a ModelName"]
    if not INSTANCE_TYPE.fullmatch(str(variant.get("InstanceType"))):
        return [f"Value '{variant.get('InstanceType')}' at 'instanceType' of variant {name} is no instance type"]
    ami = variant.get("InferenceAmiVersion")
    if ami and (ami != NEURON_AMI or not str(variant["InstanceType"]).startswith(NEURON_TYPES)):
        return [f"InferenceAmiVersion {ami} is not for {variant['InstanceType']} (variant {name})"]
    if int(variant.get("InitialInstanceCount", 1)) < 1:
        return [f"variant {name} needs an InitialInstanceCount of at least 1"]
    return []


def model_faults(model: dict[str, Any]) -> list[str]:
    """Why a model cannot be run here: pipelines, multi-model containers, uncompressed data."""
    name, container = model["ModelName"], model.get("PrimaryContainer")
    if not container:
        return [f"model {name}: the embedded AWS runs one PrimaryContainer, no inference pipeline"]
    if container.get("Mode", "SingleModel") != "SingleModel":
        return [f"model {name}: the embedded AWS runs no {container['Mode']} container"]
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source and (source.get("S3DataType"), source.get("CompressionType")) != ("S3Object", "Gzip"):
        return [f"model {name}: ModelDataSource must be one S3Object with CompressionType Gzip here"]
    if not source and not container.get("ModelDataUrl"):
        return [f"model {name} has no ModelDataUrl: there is nothing to run here"]
    return []


def _named(rows: Any, key: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows whose name contains NameContains, newest first unless sorted by name."""
    part = params.get("NameContains") or ""
    found = [row for row in rows if part in row[key]]
    by = key if params.get("SortBy") == "Name" else "CreationTime"
    return sorted(found, key=lambda row: row[by], reverse=params.get("SortOrder") != "Ascending")
