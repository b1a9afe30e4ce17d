"""SageMaker's hosting operations in place of moto's; every other SageMaker operation stays moto's.

What Create... is given is kept whole and comes back from Describe..., so that nothing of a template is lost.
Source: SageMaker API Reference, https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.responses import SageMakerResponse

from embedded_aws.clients import Clients
from embedded_aws.cloudformation.store import now
from embedded_aws.errors import AwsError
from embedded_aws.hosting.endpoint import Endpoint, Host, Variant

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")  # the pattern of all three names in the API reference
INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")


class RequestError(AwsError):
    """SageMaker's answer to a request that cannot be right."""

    code = "ValidationException"


class Hosted:
    """Models, configurations and endpoints of one account and region."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lock = threading.RLock()
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, Endpoint] = {}


class State:
    """What every request shares."""

    def __init__(self, clients: Clients, directory: Path) -> None:
        self.clients, self.directory = clients, directory
        self._lock = threading.Lock()
        self._hosted: dict[tuple[str, str], Hosted] = {}

    def hosted(self, account: str, region: str) -> Hosted:
        """The hosting of a region, made when it is first asked for."""
        with self._lock:
            host = Host(self.clients, account, region, self.directory / "endpoints")
            return self._hosted.setdefault((account, region), Hosted(host))

    def stop(self) -> None:
        """Stop every worker of every region."""
        with self._lock:
            everything = [endpoint for hosted in self._hosted.values() for endpoint in hosted.endpoints.values()]
        threads = [threading.Thread(target=endpoint.delete) for endpoint in everything]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class SageMaker(SageMakerResponse):
    """One request to SageMaker's control plane."""

    state: State

    @property
    def hosted(self) -> Hosted:
        """The hosting of the request's account and region."""
        return self.state.hosted(self.current_account, self.region)

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:{self.partition}:sagemaker:{self.region}:{self.current_account}:{kind}/{name}"

    def _new_name(self, key: str, kind: str, taken: Any) -> str:
        name = str(self.params[key])
        if not NAME.fullmatch(name):
            raise RequestError(f"Value '{name}' at '{key}' failed to satisfy constraint: {NAME.pattern}")
        if name in taken:
            raise RequestError(f'Cannot create already existing {kind} "{self._arn(kind, name)}".')
        return name

    def _find(self, table: dict[str, Any], kind: str, name: str) -> Any:
        if name not in table:
            raise RequestError(f'Could not find {kind.replace("-", " ")} "{self._arn(kind, name)}".')
        return table[name]

    # -- models ---------------------------------------------------------------------------------------------------

    def create_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html"""
        hosted = self.hosted
        with hosted.lock:
            name = self._new_name("ModelName", "model", hosted.models)
            made = {**self.params, "ModelArn": self._arn("model", name), "CreationTime": now()}
            hosted.models[name] = made
        return ActionResult({"ModelArn": made["ModelArn"]})

    def describe_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeModel.html"""
        return ActionResult(self._find(self.hosted.models, "model", self.params["ModelName"]))

    def list_models(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListModels.html"""
        return ActionResult({"Models": _named(list(self.hosted.models.values()), "ModelName", self.params)})

    def delete_model(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteModel.html"""
        name = self.params["ModelName"]
        self._find(self.hosted.models, "model", name)
        del self.hosted.models[name]
        return EmptyResult()

    # -- endpoint configurations ----------------------------------------------------------------------------------

    def create_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html"""
        hosted = self.hosted
        with hosted.lock:
            name = self._new_name("EndpointConfigName", "endpoint-config", hosted.configs)
            faults = config_faults(self.params)
            if faults:
                raise RequestError("; ".join(faults))
            for variant in self.params["ProductionVariants"]:
                self._find(hosted.models, "model", variant["ModelName"])
            arn = self._arn("endpoint-config", name)
            hosted.configs[name] = {**self.params, "EndpointConfigArn": arn, "CreationTime": now()}
        return ActionResult({"EndpointConfigArn": arn})

    def describe_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpointConfig.html"""
        return ActionResult(self._config(self.params["EndpointConfigName"]))

    def _config(self, name: str) -> dict[str, Any]:
        if name not in self.hosted.configs:
            raise RequestError(f'Could not find endpoint configuration "{self._arn("endpoint-config", name)}".')
        return self.hosted.configs[name]

    def list_endpoint_configs(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpointConfigs.html"""
        rows = _named(list(self.hosted.configs.values()), "EndpointConfigName", self.params)
        return ActionResult({"EndpointConfigs": rows})

    def delete_endpoint_config(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpointConfig.html"""
        name = self.params["EndpointConfigName"]
        self._config(name)
        del self.hosted.configs[name]
        return EmptyResult()

    # -- endpoints ------------------------------------------------------------------------------------------------

    def create_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html"""
        hosted = self.hosted
        with hosted.lock:
            name = self._new_name("EndpointName", "endpoint", hosted.endpoints)
            config = self._config(self.params["EndpointConfigName"])
            variants = self._variants(config)
            arn = self._arn("endpoint", name)
            endpoint = Endpoint(hosted.host, name, arn, config, list(self.params.get("Tags") or []))
            endpoint.deployment = self.params.get("DeploymentConfig")
            hosted.endpoints[name] = endpoint
        endpoint.create(variants)
        return ActionResult({"EndpointArn": arn})

    def update_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html"""
        endpoint = self._endpoint()
        scaled = self._scaled_variants(endpoint.name)
        with endpoint.lock:
            if endpoint.status not in {"InService", "Failed"}:
                raise RequestError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            config = self._config(self.params["EndpointConfigName"])
            _keep_types(endpoint, config, scaled)
            if config is endpoint.config and endpoint.status == "InService":
                raise RequestError(
                    f'Cannot update endpoint "{endpoint.arn}" with the endpoint configuration that it has already.'
                )
            variants = self._variants(config)
            if self.params.get("RetainAllVariantProperties"):
                excluded = {
                    item["VariantPropertyType"] for item in self.params.get("ExcludeRetainedVariantProperties") or []
                }
                retain(endpoint.variants, variants, excluded)
            if not self.params.get("RetainDeploymentConfig"):
                endpoint.deployment = self.params.get("DeploymentConfig")
            endpoint.update(config, variants)
        return ActionResult({"EndpointArn": endpoint.arn})

    def _scaled_variants(self, endpoint: str) -> set[str]:
        """Names of the variants that are registered for automatic scaling."""
        client = self.state.clients.client("application-autoscaling", self.region)
        targets = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        resources = (target["ResourceId"].split("/") for target in targets)
        return {parts[3] for parts in resources if parts[1] == endpoint}

    def update_endpoint_weights_and_capacities(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html"""
        endpoint = self._endpoint()
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
        return ActionResult(self._endpoint().described())

    def list_endpoints(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html"""
        wanted = self.params.get("StatusEquals")
        rows = [endpoint.listed() for endpoint in list(self.hosted.endpoints.values())]
        rows = [row for row in rows if wanted in (None, row["EndpointStatus"])]
        return ActionResult({"Endpoints": _named(rows, "EndpointName", self.params)})

    def delete_endpoint(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpoint.html"""
        endpoint = self._endpoint()
        endpoint.delete()
        self.hosted.endpoints.pop(endpoint.name, None)
        return EmptyResult()

    def _endpoint(self) -> Endpoint:
        found: Endpoint = self._find(self.hosted.endpoints, "endpoint", self.params["EndpointName"])
        return found

    def _variants(self, config: dict[str, Any]) -> list[Variant]:
        """The variants of a configuration with their models; raises when a model is gone or cannot run here."""
        variants = []
        for item in config["ProductionVariants"]:
            model = self._find(self.hosted.models, "model", item["ModelName"])
            faults = model_faults(model)
            if faults:
                raise RequestError("; ".join(faults))
            weight, count = item.get("InitialVariantWeight", 1.0), item.get("InitialInstanceCount", 1)
            variants.append(Variant(item, model, weight, count))
        return variants

    # -- tags -----------------------------------------------------------------------------------------------------

    def _tags(self) -> list[dict[str, str]] | None:
        """The tags of a hosting resource, or None for any other SageMaker resource."""
        kind, _, name = self.params["ResourceArn"].rsplit(":", 1)[-1].partition("/")
        hosted = self.hosted
        if kind == "endpoint":
            return self._find(hosted.endpoints, kind, name).tags  # type: ignore[no-any-return]
        if kind in {"model", "endpoint-config"}:
            table = hosted.models if kind == "model" else hosted.configs
            entry: dict[str, Any] = self._find(table, kind, name)
            return entry.setdefault("Tags", [])  # type: ignore[no-any-return]
        return None

    def list_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTags.html"""
        tags = self._tags()
        return super().list_tags() if tags is None else ActionResult({"Tags": tags})

    def add_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html"""
        tags = self._tags()
        if tags is None:
            return super().add_tags()
        new = {tag["Key"] for tag in self.params["Tags"]}
        tags[:] = [tag for tag in tags if tag["Key"] not in new] + list(self.params["Tags"])
        return ActionResult({"Tags": tags})

    def delete_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteTags.html"""
        tags = self._tags()
        if tags is None:
            return super().delete_tags()
        tags[:] = [tag for tag in tags if tag["Key"] not in self.params["TagKeys"]]
        return EmptyResult()


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
    for key in ("ServerlessConfig", "InferenceAmiVersion", "ManagedInstanceScaling", "RoutingConfig"):
        if variant.get(key):
            return [f"the embedded AWS does not honour {key} of variant {name}"]
    if "ModelName" not in variant:
        return [f"variant {name} needs a ModelName"]
    if not INSTANCE_TYPE.fullmatch(str(variant.get("InstanceType"))):
        return [f"Value '{variant.get('InstanceType')}' at 'instanceType' of variant {name} is no instance type"]
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
