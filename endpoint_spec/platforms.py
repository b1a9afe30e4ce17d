"""The platform table: instances, images, registries, limits and prices, read from dated files in data/."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from . import strict_yaml
from .errors import SpecErrors, near
from .places import DATA
from .validation import validate

Target = Literal["inf1", "inf2", "cpu"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Row):
    """What an hour costs, on demand, and who says so."""

    usd_per_hour: float
    region: str
    date: str
    source: str
    official: bool
    overridden: bool = False


class ServicePrice(_Row):
    """What a month of a service's unit costs, and who says so."""

    usd: float
    unit: str
    region: str
    date: str
    source: str
    official: bool
    overridden: bool = False


class Features(_Row):
    """SageMaker features that depend on the chip family."""

    guardrails: bool
    batch_transform: bool


class Platform(_Row):
    """One instance type of SageMaker. Memory in GiB; bandwidth in GiB/s a chip; TFLOPS of FP16/BF16 a core.

    cores: NeuronCores; of the family cpu, which has no chips, cores of the processor.
    """

    instance_type: str
    family: Target
    chips: int
    cores: int
    vcpu: int
    memory_gib: float
    device_memory_gib: float
    tflops_per_core: float | None
    bandwidth_gib_s: float | None
    features: Features
    sagemaker_price: Price | None
    ec2_price: Price | None
    source: str
    date: str


class Image(_Row):
    """A container image. `registry` is aws (a Deep Learning Container) or own (a repository in your own account).

    sdk, torch, python, glibc, runtime (the Neuron runtime library, None: part of torch-neuron): versions in it.
    driver: that the same SDK ships for hosts. lowest_driver, highest_driver: the documented bounds, None: none is.
    A CPU has no SDK and no driver. base: what an own image is built on, None: AWS's image of the same target and SDK.
    """

    target: Target
    server: str
    registry: Literal["aws", "own"]
    repository: str
    tag: str
    python: str
    torch: str
    sdk: str | None
    glibc: str
    runtime: str | None
    driver: str | None
    lowest_driver: str | None
    highest_driver: str | None
    base: str | None = None
    source: str
    date: str


class Host(_Row):
    """What SageMaker runs a target's containers on.

    ami_version: the InferenceAmiVersion to ask for, None where the API has none. driver: its Neuron driver, None where
    no document names it.
    """

    ami_version: str | None
    driver: str | None
    source: str


class Limits(_Row):
    """Limits of SageMaker that are the same for every instance type."""

    request_bytes: int
    response_bytes: int
    invocation_seconds: int
    timeout_seconds_min: int
    timeout_seconds_max: int
    max_instances: int
    worker_base_mib: int


class CompileMachine(_Row):
    """What a machine needs to compile on; memory and disk in GiB."""

    memory_gib_min: float
    memory_gib_advised: float
    disk_gib_min: float
    separate_weights_bytes: int
    source: str


class JobMachine(_Row):
    """A machine that a compile job may run on. family: cpu, or the chip that it has besides. Memory in GiB."""

    name: str
    family: Literal["cpu", "inf1", "inf2"]
    vcpu: int
    memory_gib: float


class MachineImage(_Row):
    """What a compile instance is started from: which image, how its id is found, its Python and its root device."""

    name: str
    find: str
    python: str
    root: str


class UnknownPlatform(KeyError):  # noqa: N818  (what it names, not that it is an error)
    """An instance type, image or region that the table does not have; str() is the whole message."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def _data(name: str) -> Any:
    file = DATA / f"{name}.yaml"
    document = strict_yaml.read(file, f"endpoint_spec/data/{name}.yaml")
    if document.errors:
        raise SpecErrors(document.errors)
    return document.data


def instance_types(family: str | None = None) -> tuple[str, ...]:
    """The instance types of the table, smallest first; of one family (inf1, inf2, cpu) when it is given."""
    rows = _data("instances")["instances"]
    return tuple(name for name, row in rows.items() if family in (None, row["family"]))


def platform(instance_type: str, root: Path | None = None) -> Platform:
    """The row of an instance type such as ml.inf1.2xlarge; prices.yaml in `root` overrides the shipped prices.

    Raises UnknownPlatform, naming the nearest and all known types.
    """
    table = _data("instances")
    row = table["instances"].get(instance_type)
    if row is None:
        raise UnknownPlatform(f"{instance_type} is not a known instance type. {nearest_type(instance_type)}")
    family = _data("families")["families"][row["family"]]
    return Platform(
        instance_type=instance_type,
        **row,
        tflops_per_core=family["tflops_per_core"],
        bandwidth_gib_s=family["bandwidth_gib_s"],
        features=Features(**family["features"]),
        sagemaker_price=price(instance_type, "sagemaker", root),
        ec2_price=price(instance_type, "ec2", root),
        source=table["source"],
        date=table["date"],
    )


def nearest_type(instance_type: str) -> str:
    """A sentence that names what was probably meant, and every possible type."""
    known = instance_types()
    return f"{near(instance_type, known)}The types are {', '.join(known)}."


def default_instance_type(target: str) -> str:
    """The instance type of a spec that names none."""
    return str(_data("families")["families"][target]["default_instance_type"])


def price(instance_type: str, market: Literal["sagemaker", "ec2"], root: Path | None = None) -> Price | None:
    """On-demand dollars an hour, or None where no price is known.

    A prices.yaml in `root`, of the form of data/prices.yaml, comes first. Raises SpecErrors when that file is bad.
    """
    shipped = [(_data("prices"), False), (_data("compile_machines")["prices"], False)]
    for data, overridden in [*_own_prices(root), *shipped]:
        table = data.get(market, {})
        found = table.get("usd_per_hour", {}).get(instance_type)
        if found is not None:
            return Price(
                usd_per_hour=found,
                region=data["region"],
                date=data["date"],
                source=table["source"],
                official=table["official"],
                overridden=overridden,
            )
    return None


def service_price(name: str, root: Path | None = None) -> ServicePrice:
    """What a month of a service's unit costs: customer_key, alarm_metric, custom_metric and others of data/prices.yaml.

    A prices.yaml in `root` comes first, as for instances. Raises SpecErrors when that file is bad.
    """
    shipped = _data("prices")
    for data, overridden in [*_own_prices(root), (shipped, False)]:
        found = data.get("services", {}).get(name)
        if found is not None:
            filled = {"unit": shipped["services"][name]["unit"], **found}
            return ServicePrice(region=data["region"], date=data["date"], overridden=overridden, **filled)
    raise KeyError(name)


def _own_prices(root: Path | None) -> list[tuple[dict[str, Any], bool]]:
    if root is None or not (root / "prices.yaml").exists():
        return []
    own = validate(_Prices, strict_yaml.read(root / "prices.yaml", "prices.yaml"))
    return [(own.model_dump(exclude_none=True), True)]


class _Market(_Row):
    source: str
    official: bool = False
    usd_per_hour: dict[str, float]


class _Service(_Row):
    usd: float
    source: str
    official: bool = False


class _Services(_Row):
    customer_key: _Service | None = None
    alarm_metric: _Service | None = None
    custom_metric: _Service | None = None
    dashboard: _Service | None = None
    log_ingestion: _Service | None = None
    log_storage: _Service | None = None


class _Prices(_Row):
    date: str
    region: str
    ec2: _Market | None = None
    sagemaker: _Market | None = None
    services: _Services | None = None


def images() -> tuple[Image, ...]:
    """Every container image: each SDK release of a target with each server, the target's default release first."""
    table = _data("images")
    found = []
    for row in table["images"]:
        software = {key: value for key, value in row.items() if key != "servers"}
        found += [
            Image(**software, server=server, date=table["date"], **address)
            for server, address in row["servers"].items()
        ]
    return tuple(found)


def sdks(target: str) -> tuple[str, ...]:
    """The Neuron SDK releases that a target has images of; the default comes first."""
    return tuple(row["sdk"] for row in _data("images")["images"] if row["target"] == target and row["sdk"])


def image(target: str, server: str, sdk: str | None = None) -> Image:
    """The container image for a target and server, of a Neuron SDK release or by default the target's own.

    Raises UnknownPlatform where there is none.
    """
    for row in images():
        if (row.target, row.server) == (target, server) and sdk in (None, row.sdk):
            return row
    there = ", ".join(f"{row.target} {row.sdk or row.torch} with {row.server}" for row in images())
    wanted = f"{target} {sdk}" if sdk else target
    raise UnknownPlatform(f"There is no image for {wanted} with {server}. There are images for {there}.")


def base_of(own: Image) -> Image:
    """The image of AWS that one of your own registry without a `base` is built on: of the same target and SDK."""
    return next(row for row in images() if row.registry == "aws" and (row.target, row.sdk) == (own.target, own.sdk))


def host(target: str) -> Host:
    """What SageMaker runs a target's containers on."""
    return Host(**_data("images")["hosts"][target])


def registry_accounts(target: str | None = None) -> dict[str, str]:
    """Region to the AWS account that owns its Deep Learning Containers, for regions with images of a target, or of any.

    What lists of AWS say of other images for the same chip; data/registries.yaml names them.
    """
    table = _data("registries")
    regions = table["accounts"] if target is None else table["targets"][target]["regions"]
    return {region: table["accounts"][region] for region in regions}


def refused_regions() -> dict[str, str]:
    """Regions that are left out on purpose, each with its reason."""
    return dict(_data("registries")["refused"])


def registry_account(region: str, target: str | None = None) -> str:
    """The registry account of a region. Raises UnknownPlatform, with the reason, where no images of the target are."""
    known = registry_accounts(target)
    if region in known:
        return known[region]
    table, kind = _data("registries"), f" for {target}" if target else ""
    lists = ", ".join(row["source"] for name, row in table["targets"].items() if target in (None, name))
    reason = refused_regions().get(region, f"it is in no list of regions with Neuron images{kind} ({lists})")
    raise UnknownPlatform(f"{region} cannot be deployed to: {reason}. Use one of {', '.join(known)}.")


def trained_weights() -> tuple[str, ...]:
    """The names that `inferentia weights` takes."""
    return tuple(_data("trained_weights")["weights"])


@cache
def limits() -> Limits:
    """Limits that hold for every instance type."""
    return Limits(**_data("limits")["limits"])


@cache
def compile_machine() -> CompileMachine:
    """What a machine needs to compile on, and from which size weights go beside the program."""
    return CompileMachine(**_data("limits")["compile_machine"])


@cache
def job_machines() -> dict[str, JobMachine]:
    """The machines of compile jobs by their EC2 name, such as c5.4xlarge: the CPU types, then the Inferentia ones."""
    table = _data("compile_machines")
    rows = [JobMachine(name=name, family="cpu", **row) for name, row in table["machines"].items()]
    for kind in (*instance_types("inf1"), *instance_types("inf2")):
        chip = _data("instances")["instances"][kind]
        name = kind.removeprefix("ml.")
        rows.append(JobMachine(name=name, family=chip["family"], vcpu=chip["vcpu"], memory_gib=chip["memory_gib"]))
    return {row.name: row for row in rows}


def job_instance_types(where: str) -> tuple[str, ...]:
    """What job.instance_type may be: SageMaker's names for processing, EC2's for ec2."""
    rows = job_machines().values()
    if where == "processing":  # processing jobs have no Inferentia instances
        return tuple(f"ml.{row.name}" for row in rows if row.family == "cpu")
    return tuple(row.name for row in rows)


def default_job_instance_type(where: str) -> str | None:
    """The machine of a job that names none; None where `where` is no place of compiling."""
    name = str(_data("compile_machines")["default"])
    return {"processing": f"ml.{name}", "ec2": name}.get(where)


def machine_image(torch: str) -> MachineImage:
    """The machine image with the compiler for a container's torch; its id is chosen by the user, see
    data/machine_images.yaml.
    """
    return MachineImage(**_data("machine_images")["images"][torch])


def job_price(instance_type: str, root: Path | None = None) -> Price | None:
    """On-demand dollars an hour of a job's machine, by its name: ml.c5.4xlarge is SageMaker's, c5.4xlarge is EC2's."""
    if instance_type.startswith("ml."):
        return price(instance_type, "sagemaker", root)
    return price(f"ml.{instance_type}", "ec2", root)


def fast_math_groups(target: str) -> dict[str, tuple[str, ...]]:
    """The words that compile.fast_math takes, in groups of which one word each may be given; none for a CPU."""
    groups = _data("compilers")["targets"].get(target, {"groups": {}})["groups"]
    return {name: tuple(words) for name, words in groups.items()}


def compiler_arguments(target: str, fast_math: str) -> tuple[str, ...]:
    """What the target's compiler is given for a fast_math: neuron-cc --fast-math, or neuronx-cc --auto-cast."""
    words = fast_math.split()
    known = _data("compilers")["targets"][target].get("arguments")
    if known is None:
        return ("--fast-math", *words)
    return tuple(argument for word in words for argument in known[word])


def compiler_table(target: str) -> dict[str, Any]:
    """The target's compiler: its name, its options with their values, and the options that are refused with why."""
    return dict(_data("compilers")["targets"][target])
