"""EndpointSpec: what a user wants of one endpoint. Every key but name and model has a default.

The classes hold what one key can be on its own; what keys must be together is in endpoint_spec.rules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from . import platforms
from .quantities import Count, Duration, Gigabytes, Ratio, fault
from .weights import GraphWeights, Weights

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_EMAIL = re.compile(r"[A-Za-z0-9.!#%&'*+/=?^_~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_MOST_TOPICS = 4  # an alarm has at most 5 actions, and its own topic is one
_DIMENSION = re.compile(r"[a-z][a-z0-9_]*")
_TAG = re.compile(r"[\w .:/=+@-]*")
_LARGEST = 1_000_000  # of one side of a bucket; beyond it is a slip of the hand

_NOTIFY_SCHEMA = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "null"}]
}
Metric = Literal["cosine", "relative", "absolute"]
Number = Annotated[float, Strict()]


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise fault("is not text", "Write a name in letters, digits and hyphens; quote it if it looks like a number.")
    if len(value) > 63:
        raise fault(f"has {len(value)} characters", "SageMaker takes 63 at most; shorten the name.")
    if not NAME.fullmatch(value):
        raise fault(
            "is not a name that SageMaker takes",
            "Write letters, digits and hyphens, beginning and ending with a letter or digit.",
        )
    return value


def _bucket(value: Any) -> dict[str, int | list[int]]:
    if not isinstance(value, dict) or not value:
        raise fault("is not a bucket", "Write a mapping such as {image: [518, 518]} or {tokens: 128}.")
    for name, size in value.items():
        if not _DIMENSION.fullmatch(name):
            raise fault(
                f"has the impossible dimension {name}", "Name it in lower-case letters, such as image or tokens."
            )
        sizes = size if isinstance(size, list) else [size]
        if not sizes or not all(type(item) is int and 0 < item <= _LARGEST for item in sizes):
            raise fault(f"has an impossible size for {name}", f"Write whole numbers from 1 to {_LARGEST}.")
        if name == "image" and not (isinstance(size, list) and len(size) == 2):
            raise fault("has an image that is not [height, width]", "Write two numbers, such as {image: [518, 518]}.")
        if name == "tokens" and not isinstance(size, int):
            raise fault("has tokens that are not one number", "Write one number, such as {tokens: 128}.")
    return value


def _list_of(kind: str, example: str, least: int = 1) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) < least:
            raise fault(f"is not a list of {kind}", f"Write a list with at least one of them, such as {example}.")
        _refuse_twice(value)
        return value

    return BeforeValidator(check)


def _refuse_twice(items: Sequence[Any]) -> None:
    twice = [item for index, item in enumerate(items) if item in items[:index]]
    if twice:
        raise fault(f"names {twice[0]} twice", "Keep one of them.")


def _notify(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    receivers = [value] if isinstance(value, str) else value
    if not isinstance(receivers, list | tuple) or not receivers:
        raise fault("is not a receiver", "Write the ARN of an SNS topic, an email address, or a list of them.")
    for receiver in receivers:
        if not isinstance(receiver, str) or not (_TOPIC.fullmatch(receiver) or _EMAIL.fullmatch(receiver)):
            problem = "is neither the ARN of an SNS topic nor an email address"
            raise fault(problem, "Write arn:aws:sns:REGION:ACCOUNT:TOPIC or name@example.org.")
    _refuse_twice(receivers)
    topics = sum(receiver.startswith("arn:") for receiver in receivers)
    if topics > _MOST_TOPICS:
        problem = f"names {topics} topics, but a CloudWatch alarm takes {_MOST_TOPICS} beside its own"
        raise fault(problem, f"Write {_MOST_TOPICS} at most; subscribe the others to one of them.")
    return tuple(receivers)


def _tags(value: Any) -> Any:
    if not isinstance(value, dict):
        raise fault("is not a mapping of tags", "Write keys and values, such as {team: documents}.")
    if len(value) > 40:
        raise fault(f"has {len(value)} tags", "AWS takes 50 and the stacks use some; write 40 at most.")
    for key, text in value.items():
        if not isinstance(text, str):
            raise fault(f"has a value for {key} that is not text", f'Quote it: {{{key}: "{text}"}}.')
        if not text.strip():  # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Tag.html
            raise fault(f"has no value for {key}", "CloudFormation takes no empty tag: write a value, or leave it out.")
        if key.lower().startswith("aws:"):
            raise fault(f"has the key {key}", "Keys that begin with aws: belong to AWS; choose another.")
        if key.lower() == "rehearsal":
            raise fault(f"has the key {key}", "It marks what a rehearsal deployed; choose another.")
        same = [other for other in value if other != key and other.lower() == key.lower()]
        if same:  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
            raise fault(f"has the keys {key} and {same[0]}, which are one to IAM", "Keep one of them.")
        if not key or len(key) > 128 or len(text) > 256 or not _TAG.fullmatch(key + text):
            problem = f"has a tag that AWS does not take: {key}"
            raise fault(problem, "Use letters, digits, spaces and _.:/=+-@, 128 for a key and 256 for a value.")
    return value


def _above_zero(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise fault("is no time at all", "Write a duration above zero, such as 250ms.")
    return value


class Section(BaseModel):
    """A part of the spec: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Section):
    """What is served: a built-in family, an entry of the user's own that returns a ModelDefinition, or a graph file."""

    family: StrictStr | None = Field(default=None, description="a built-in model family: a file of compile/models/")
    variant: StrictStr | None = Field(default=None, description="a variant of the family, such as vits")
    entry: StrictStr | None = Field(
        default=None, description="path.py:function of the project that returns a ModelDefinition"
    )
    graph: StrictStr | None = Field(
        default=None, description="a graph file of the project, with weights, sizes and recorded answers"
    )
    weights: Weights
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the family or the entry as it stands")

    @property
    def shown(self) -> str:
        """The model in a word or two: its entry, its graph file, or its family and variant."""
        return self.entry or self.graph or " ".join(filter(None, (self.family, self.variant)))

    @model_validator(mode="before")
    @classmethod
    def _weights_of_a_graph(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("graph") is not None and "weights" not in data:
            return {**data, "weights": GraphWeights(path=str(data["graph"]))}
        return data


# What a model can do that a trace fixes or a compiler lacks, and that a spec may accept nevertheless; with the way out.
FINDINGS = {
    "data-dependent": "Compute both ways and blend them with a mask, fix the size, or split the model there.",
    "float64": "Cast to float32 there: the Neuron compilers have no float64.",
    "state": "Keep what one request leaves behind out of forward: all callers, and each copy, would share it.",
}


class Accept(Section):
    """What a build must reach; a build that misses one of these fails."""

    min_supported: Ratio = Field(default=1.0, description="share of operators that the target's compiler supports")
    max_subgraphs: StrictInt = Field(default=1, ge=1, le=10_000, description="compiled subgraphs of one graph")
    findings: tuple[Literal["data-dependent", "float64", "state"], ...] = Field(
        default=(), description="what the model may do although a trace fixes it, or the chip lacks it"
    )
    lowering_tolerance: Number = Field(
        default=1e-5, gt=0, le=1, description="lowered against original, of the output's maximum"
    )
    padding: Number | None = Field(
        default=None,
        gt=0,
        le=1,
        description="what filling an item up to its bucket may change of it, as a share of the output's maximum; "
        "null: what parity allows",
    )
    device_tolerance: dict[Metric, Annotated[float, Strict(), Field(ge=0)]] = Field(
        default={"cosine": 0.999},
        description="device against CPU: smallest cosine similarity, largest relative or absolute error",
    )


Arguments = Annotated[tuple[StrictStr, ...], _list_of("compiler arguments", '["--optlevel 2"]', least=0)]
Operators = Annotated[tuple[StrictStr, ...], _list_of("operators", "[aten::linear]")]


class Inf1Options(Section):
    """What torch_neuron.trace and neuron-cc takes beyond what holds for both targets."""

    arguments: Arguments = Field(default=(), description="further arguments of neuron-cc, such as --optlevel 2")
    dynamic_batch: StrictBool = Field(default=False, description="graphs take any multiple of their batch size")
    float32_to_float16: StrictBool = Field(
        default=False, description="inputs and outputs cross in float16 (Optimization.FLOAT32_TO_FLOAT16)"
    )
    separate_weights: StrictBool | None = Field(
        default=None, description="weights beside the program; by default for graphs above 1.9 GB"
    )
    op_whitelist: Operators | None = Field(default=None, description="the only operators that are compiled")
    minimum_segment_size: Annotated[StrictInt, Field(ge=1)] | None = Field(
        default=None, description="fewest operators of a subgraph (torch_neuron's default is 2)"
    )
    single_fusion_ratio_threshold: Annotated[float, Strict(), Field(ge=0, le=1)] | None = Field(
        default=None, description="above this share one subgraph is compiled alone (torch_neuron's default is 0.6)"
    )


class Partitioner(Section):
    """torch_neuronx.PartitionerConfig: operators that the Inf2 compiler lacks stay on the host."""

    model_support_percentage_threshold: Annotated[float, Strict(), Field(ge=0, le=1)] = 0.5
    min_subgraph_size: Annotated[StrictInt, Field(ge=-1)] = -1
    max_subgraph_count: Annotated[StrictInt, Field(ge=-1)] = -1
    ops_to_partition: Operators | None = None


class Inf2Options(Section):
    """What torch_neuronx.trace and neuronx-cc takes beyond what holds for both targets."""

    arguments: Arguments = Field(default=(), description="further arguments of neuronx-cc, such as -O2")
    inline_weights_to_neff: StrictBool = Field(default=True, description="false: weights beside the program")
    partitioner: Partitioner | None = Field(default=None, description="leave unsupported operators on the host")
    input_output_aliases: dict[str, Annotated[StrictInt, Field(ge=0)]] | None = Field(
        default=None, description="inputs that stay on the device as state: input name to output position"
    )


Paths = Annotated[tuple[StrictStr, ...], _list_of("files", "[rewrites.py]")]
Switches = Annotated[tuple[StrictStr, ...], _list_of("rewrites", "[interpolate]")]


class Lowering(Section):
    """Which rewrites lowering applies. Without this section: all built-in ones."""

    off: Switches | None = Field(default=None, description="built-in rewrites that are left out, such as interpolate")
    rewrites: Paths | None = Field(
        default=None, description="Python files of the project with rewrites of your own, asked first"
    )


class Compile(Section):
    """How the model is compiled. A change here, or in model, needs a new build."""

    target: platforms.Target = Field(default="inf1", description="cpu: no chip, the model as it is")
    sdk: StrictStr | None = Field(
        default=None, description="Neuron SDK release of the container image; the target's default if left out"
    )
    buckets: (
        Annotated[
            tuple[Annotated[dict[str, int | list[int]], BeforeValidator(_bucket)], ...],
            _list_of("buckets", "[{image: [518, 518]}]"),
        ]
        | None
    ) = Field(default=None, description="input sizes, one graph each; the family's own when left out")
    batch_sizes: Annotated[
        tuple[Annotated[StrictInt, Field(ge=1, le=1024)], ...], _list_of("batch sizes", "[1, 4]")
    ] = (1,)
    pipeline_cores: StrictInt = Field(
        default=1, ge=1, le=64, description="NeuronCores that one copy of the model is spread over"
    )
    fast_math: StrictStr = Field(
        default="fp32-cast-matmult", description="words of neuron-cc --fast-math, separated by spaces"
    )
    timeout: Annotated[Duration, AfterValidator(_above_zero)] = timedelta(minutes=45)
    accept: Accept = Field(default_factory=Accept)
    lowering: Lowering | None = Field(default=None, description="a switch for each rewrite, and rewrites of your own")
    inf1: Inf1Options | None = Field(default=None, description="options of the Inf1 compiler alone")
    inf2: Inf2Options | None = Field(default=None, description="options of the Inf2 compiler alone")


def _where(value: Any) -> Any:
    if value == "neo":
        raise fault(
            "is not supported: a model that SageMaker Neo compiles needs Neo's runtime, so it could not be verified, "
            "locked or served",
            "Write processing, or ec2.",
        )
    return value


class Job(Section):
    """Where the model is compiled instead of on this machine. A change here needs no new build."""

    where: Annotated[Literal["processing", "ec2"], BeforeValidator(_where)] = Field(
        default="processing", description="a SageMaker Processing job, or an EC2 instance that terminates itself"
    )
    instance_type: StrictStr | None = Field(
        default=None, description="ml.c5.4xlarge for processing and c5.4xlarge for ec2 if left out"
    )
    volume: Annotated[Gigabytes, Field(ge=10, le=16_384)] = Field(default=100, description="disk of the machine, in GB")
    time_limit: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=timedelta(hours=3), description="of the whole run: what still runs then is ended"
    )
    max_parallel: StrictInt = Field(default=4, ge=1, le=40, description="graphs that are compiled at once")
    spot: StrictBool = Field(default=False, description="ec2 only: spare capacity, cheaper, may be interrupted")
    subnets: Annotated[tuple[StrictStr, ...] | None, _list_of("subnets", "[subnet-0a1b2c3d]")] = Field(
        default=None, description="ec2 only: ids of subnets that are there; the stack makes a network if left out"
    )
    security_group: StrictStr | None = Field(default=None, description="ec2 only: id, of the subnets' network")
    session_manager: StrictBool = Field(
        default=False, description="ec2 only: a shell on the instance, for finding faults"
    )


class RequestLimits(Section):
    """What one request may hold; more is answered 413."""

    pixels: Annotated[Count, Field(ge=1)] = Field(default=40_000_000, description="of one picture")
    items: Annotated[Count, Field(ge=1)] = Field(default=16, description="in one request")


class Serve(Section):
    """How the artifact is served. A change here needs no new build."""

    handler: StrictStr | None = Field(
        default=None, description="a Python file with preprocess and postprocess, or SageMaker's four"
    )
    server: Literal["native", "torchserve", "triton"] = Field(
        default="native",
        description="native: ours, in an image that `inferentia image build` makes; torchserve: AWS's image as it is",
    )
    mode: Literal["real-time", "async", "batch-transform"] = "real-time"
    instance_type: StrictStr = Field(
        default="ml.inf1.2xlarge",
        description="by default of compile.target: ml.inf2.xlarge for inf2, ml.c7i.large for cpu",
    )
    cores_per_worker: StrictInt = Field(
        default=1,
        ge=1,
        description="NeuronCores (cpu: cores of the processor) of a worker; compile.pipeline_cores if left out",
    )
    processes: StrictInt = Field(
        default=1, ge=1, description="native server only: processes on its one port, which share the cores"
    )
    max_batch_delay: Duration = Field(
        default=timedelta(milliseconds=5), description="maximum time a request waits to be batched"
    )
    limits: RequestLimits = Field(default_factory=RequestLimits)
    network_isolation: StrictBool = Field(
        default=False, description="cut the container off from every network, AWS's services included"
    )
    neuron_monitor: StrictBool = Field(
        default=False, description="the chip's use to CloudWatch by neuron-monitor; not verified on hardware"
    )
    metrics: Literal["none", "standard", "detailed"] = Field(
        default="none",
        description="of SageMaker beside its basic ones: standard for each instance too, detailed also what the "
        "server's /metrics has",
    )


class Scale(Section):
    """How many instances, and when another one is started."""

    min: StrictInt = Field(default=1, ge=0)
    max: StrictInt = Field(default=2, ge=1, description="the same as min: no automatic scaling")
    initial: StrictInt = Field(default=1, ge=1, description="instances at the creation, where scaling is automatic")
    policy: Literal["concurrency", "invocations"] = "concurrency"
    target_value: Annotated[float, Strict(), Field(ge=0.001, le=1e9)] | None = Field(
        default=None,
        description="concurrent requests an instance (default workers x largest batch x 0.7), or requests a minute",
    )
    measured: StrictBool = Field(
        default=False, description="target_value from the lock's measured figures (inferentia measure)"
    )

    @property
    def fixed(self) -> bool:
        """Whether the number of instances is the spec's alone."""
        return self.min == self.max


class Alarms(Section):
    """CloudWatch alarm thresholds, and the topics that alarms notify."""

    p99_latency: Annotated[Duration, AfterValidator(_above_zero)] = timedelta(seconds=1)
    error_rate: Ratio = 0.01
    min_requests: StrictInt = Field(default=20, ge=1, description="fewer requests a period raise no alarm")
    memory: Ratio = Field(default=0.9, description="of the fullest instance; 100%: never")
    disk: Ratio = Field(default=0.8, description="of the fullest instance; 100%: never")
    runbook: StrictStr = Field(
        default="docs/runbook.md", description="what to do; each alarm says this address with #latency, #errors ..."
    )
    shared: StrictBool = Field(
        default=False, description="one topic and one key for all endpoints that say so: the stack InferentiaShared"
    )
    notify: Annotated[tuple[str, ...] | None, BeforeValidator(_notify), WithJsonSchema(_NOTIFY_SCHEMA)] = Field(
        default=None, description="ARN of an SNS topic, email address, or a list of them"
    )


class Logs(Section):
    """The endpoint's log group."""

    existing: StrictBool = Field(default=False, description="it is there, and is none of the stack's")
    keep: StrictBool = Field(default=False, description="it and the key that encrypts it stay when the stack goes")


class Rollout(Section):
    """How a new artifact replaces the old one."""

    strategy: Literal["all-at-once", "blue-green", "canary", "linear"] = "all-at-once"


def _with_machine(data: dict[str, Any]) -> dict[str, Any]:
    """The spec's data with the machine of its compile job, which follows job.where."""
    job = data.get("job")
    if not isinstance(job, dict) or job.get("instance_type") is not None:
        return data
    where = job.get("where", "processing")
    default = platforms.default_job_instance_type(where) if isinstance(where, str) else None
    return {**data, "job": {**job, "instance_type": default}} if default else data


class EndpointSpec(Section):
    """One endpoint, as endpoints/NAME.yaml describes it."""

    name: Annotated[str, BeforeValidator(_name)] = Field(
        description="the endpoint's name and the file's", max_length=63
    )
    model: Model
    compile: Compile = Field(default_factory=Compile)
    serve: Serve = Field(default_factory=Serve)
    scale: Scale = Field(default_factory=Scale)
    alarms: Alarms = Field(default_factory=Alarms)
    logs: Logs = Field(default_factory=Logs)
    rollout: Rollout = Field(default_factory=Rollout)
    job: Job | None = Field(default=None, description="compile on AWS; left out, the model is compiled on this machine")
    tags: Annotated[dict[str, str], BeforeValidator(_tags)] = Field(default_factory=dict)

    _path: Path = PrivateAttr(default=Path())
    _root: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file that this spec was read from."""
        return self._path

    @property
    def root(self) -> Path:
        """The project root: the folder that entry, handler and weights paths start from."""
        return self._root

    def located(self, path: Path, root: Path) -> EndpointSpec:
        """The same spec, knowing its file and its project root."""
        copy = self.model_copy()
        copy._path, copy._root = path, root
        return copy

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, data: Any) -> Any:
        """Defaults that follow another key: instance types from target and place, a worker's cores."""
        if not isinstance(data, dict):
            return data
        data = _with_machine(data)
        wanted = data.get("compile") if isinstance(data.get("compile"), dict) else {}
        serve = data.get("serve", {})
        if not isinstance(serve, dict) or not isinstance(wanted, dict):
            return data
        filled = dict(serve)
        target = wanted.get("target", "inf1")
        if target in get_args(platforms.Target):
            filled.setdefault("instance_type", platforms.default_instance_type(target))
        pipeline = wanted.get("pipeline_cores", 1)
        if type(pipeline) is int and pipeline >= 1:
            filled.setdefault("cores_per_worker", pipeline)
        return {**data, "serve": filled}
