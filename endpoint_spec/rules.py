"""What the keys of a spec must be together: one rule a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import platforms
from .digests import weights_digest
from .endpoint import Compile, EndpointSpec
from .errors import SpecErrors, near, shown
from .findings import Finding, Rules
from .places import families
from .quantities import format_duration
from .weights import INDEX, FileWeights, GraphWeights, shards

RULES = Rules()
rule = RULES.register


@rule("name")
def name_is_the_files(spec: EndpointSpec) -> Iterator[Finding]:
    """Commands find a spec by its name, so the file carries it."""
    stem = spec.path.stem
    if stem and spec.name != stem:
        remedy = f"Write name: {stem}, or rename the file to {spec.name}{spec.path.suffix}."
        yield Finding("name", spec.name, f"is not the name of the file, {spec.path.name}", remedy)


@rule("name")
def name_differs_in_more_than_case(spec: EndpointSpec) -> Iterator[Finding]:
    """SageMaker takes the second of two such names for the first when it creates an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
    """
    stem = spec.path.stem
    stems = sorted(file.stem for file in spec.path.parent.glob("*.yaml")) if stem else []
    others = [other for other in stems if other != stem and other.lower() == stem.lower()]
    if others and others[0] < stem:
        problem = f"differs from {others[0]} in case alone, which SageMaker ignores"
        yield Finding("name", spec.name, problem, "Rename one of them.")


@rule("name")
def file_ends_in_yaml(spec: EndpointSpec) -> Iterator[Finding]:
    """Commands look for NAME.yaml alone."""
    if spec.path.suffix not in ("", ".yaml"):
        remedy = f"Rename it to {spec.path.stem}.yaml."
        yield Finding("", "", f"ends in {spec.path.suffix}, which no command looks for", remedy)


@rule("model.family", "model.entry", "model.graph")
def one_definition(spec: EndpointSpec) -> Iterator[Finding]:
    """A model is defined by a family, by an entry, or by a graph file."""
    model = spec.model
    named = {"entry": model.entry, "family": model.family}
    beside = [(kind, value) for kind, value in named.items() if value is not None]
    if model.graph is not None and beside:
        problem = f"is given beside {' and '.join(f'the {kind} {value}' for kind, value in beside)}"
        yield Finding("model.graph", str(model.graph), problem, f"Keep graph, or {beside[0][0]}.")
    if model.family is not None and model.entry is not None:
        problem = f"is given beside the family {model.family}"
        yield Finding("model.entry", model.entry, problem, "Keep family for a built-in model, or entry for your own.")
    if model.family is None and model.entry is None and model.graph is None:
        remedy = (
            f"Write family (one of {', '.join(families()) or 'compile/models/'}), entry: path.py:function, or "
            "graph: path.graph."
        )
        yield Finding("model", "", "names neither family nor entry nor graph", remedy)


@rule("model.graph", "model.weights", "model.options")
def graph_is_the_model(spec: EndpointSpec) -> Iterator[Finding]:
    """A graph file of the project has the weights, and nothing of the model can be chosen any more."""
    model = spec.model
    if model.graph is None:
        return
    wrong = path_problem(spec.root, model.graph)
    if wrong and model.entry is None and model.family is None:  # else one_definition has the finding on this key
        yield Finding("model.graph", model.graph, *wrong)
    if not isinstance(model.weights, GraphWeights):
        problem = f"is given beside the graph file {model.graph}, which has its weights"
        yield Finding("model.weights", model.weights.source, problem, "Leave it out.")
    if model.options:
        problem = f"is given beside the graph file {model.graph}, in which nothing can be chosen"
        yield Finding("model.options", ", ".join(model.options), problem, "Leave it out.")


@rule("model.family", "model.variant", "model.entry")
def variant_of_a_family(spec: EndpointSpec) -> Iterator[Finding]:
    """Only families have variants."""
    if spec.model.variant is not None and spec.model.family is None:
        remedy = "Write the family that it is a variant of, or pass it to your entry through model.options."
        yield Finding("model.variant", spec.model.variant, "is a variant without a family", remedy)


@rule("model.family")
def known_family(spec: EndpointSpec) -> Iterator[Finding]:
    """A family is a file of compile/models/."""
    family, known = spec.model.family, families()
    if family is not None and family not in known:
        remedy = f"{near(family, known)}The families are {', '.join(known) or '(none installed)'}."
        yield Finding("model.family", family, "is not a model family", remedy)


_DIMENSIONS = ("image", "tokens", "numbers", "tables")


@rule("model.family", "compile.buckets")
def known_dimensions(spec: EndpointSpec) -> Iterator[Finding]:
    """The dimensions that some built-in family has; an entry may name others of its own.

    Which of them a family takes, and which sizes, the family itself checks when it is built.
    """
    for index, bucket in enumerate(spec.compile.buckets or () if spec.model.family else ()):
        for name in bucket:
            if name not in _DIMENSIONS:
                written = "{image: [H, W]}, {tokens: N} or, for dlrm, {numbers: N, tables: N}"
                remedy = f"{near(name, _DIMENSIONS)}Write {written}."
                yield Finding(f"compile.buckets[{index}]", shown(bucket), f"has the unknown dimension {name}", remedy)


@rule("model.entry")
def entry_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """An entry is path.py:function, inside the project, and defines the function."""
    entry = spec.model.entry
    if entry is None:
        return
    file, colon, function = entry.rpartition(":")
    if not colon or not function.isidentifier() or not file.endswith(".py"):
        problem = "is not a Python file and a function"
        yield Finding("model.entry", entry, problem, "Write path.py:function, such as models/invoices.py:build.")
        return
    names, wrong = names_in(spec.root, file)
    if wrong:
        yield Finding("model.entry", entry, *wrong)
    elif function not in names:
        defined = ", ".join(sorted(names)[:10]) or "nothing"
        problem = f"names the function {function}, which {file} does not define"
        yield Finding("model.entry", entry, problem, f"{file} defines {defined}.")


_HALVES = ("preprocess", "postprocess")
_FOUR = ("model_fn", "input_fn", "predict_fn", "output_fn")


@rule("serve.handler")
def handler_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """A handler is a Python file of the project with our two functions or SageMaker's four."""
    file = spec.serve.handler
    if file is None:
        return
    if not file.endswith(".py"):
        yield Finding("serve.handler", file, "is not a Python file", "Name a .py file of the project.")
        return
    names, wrong = names_in(spec.root, file)
    if wrong:
        yield Finding("serve.handler", file, *wrong)
    elif not names.issuperset(_HALVES) and not names.issuperset(_FOUR):
        problem = "defines neither both of preprocess and postprocess nor all of " + ", ".join(_FOUR)
        there = sorted(names.intersection(_HALVES + _FOUR))
        missing = f"it has {', '.join(there)} only" if there else "it has none of them"
        yield Finding("serve.handler", file, problem, f"Define one of the two sets; {missing}.")


@rule("model.weights")
def weights_exist(spec: EndpointSpec) -> Iterator[Finding]:
    """A weights file is inside the project and is there."""
    weights = spec.model.weights
    if isinstance(weights, FileWeights):
        wrong = path_problem(spec.root, weights.path)
        if wrong:
            folder, _, rest = weights.path.removeprefix("build/weights/").partition("/")
            ours = f"build/weights/{folder}/{rest}" == weights.path and folder in platforms.trained_weights()
            remedy = f"Get it: inferentia weights {folder}" if ours else wrong[1]
            yield Finding("model.weights", weights.path, wrong[0], remedy)
        elif weights.path.endswith(INDEX):
            try:
                shards(spec.root / weights.path)
            except SpecErrors as error:
                fault = error.errors[0]
                yield Finding("model.weights", weights.path, fault.problem, fault.remedy)


def weights_match(spec: EndpointSpec) -> Iterator[Finding]:
    """A weights file has the digest that the spec declares. Not in the list: it reads the whole file."""
    weights = spec.model.weights
    if isinstance(weights, FileWeights) and weights.sha256 is not None:
        found = weights_digest(spec.root / weights.path)
        if found != weights.sha256:
            problem = f"has the sha256 {found}, not the declared {weights.sha256}"
            yield Finding("model.weights", weights.path, problem, "Get the right file, or declare its sha256.")


def path_problem(root: Path, text: str) -> tuple[str, str] | None:
    """Why a path of the spec is not a file inside the project, and the way out; None when it is one."""
    if not text.isprintable() or "\\" in text:
        return "is not a path", "Write a relative path with forward slashes."
    home = root.resolve()
    try:
        target = (home / text).resolve()
        if Path(text).is_absolute() or not target.is_relative_to(home):
            return "leads out of the project", "Write a path inside the project root, relative to it."
        if not target.exists():
            return "does not exist", f"Put the file at {text} (paths start at the project root), or correct the path."
        if not target.is_file():
            return "is not a file", "Name a file."
    except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be read, links in a circle
        return f"cannot be read ({error.strerror if isinstance(error, OSError) else error})", "Correct the path."
    return None


def names_in(root: Path, file: str) -> tuple[set[str], tuple[str, str] | None]:
    """The names that a Python file of the project defines at its top level, and what is wrong with it, if anything."""
    wrong = path_problem(root, file)
    if wrong:
        return set(), wrong
    remedy = f"Correct {file}."
    try:
        tree = ast.parse((root / file).read_bytes(), filename=file)
    except SyntaxError as error:
        return set(), (f"is not valid Python (line {error.lineno}: {error.msg})", remedy)
    except (ValueError, RecursionError) as error:
        return set(), (f"is not valid Python ({error})", remedy)
    except OSError as error:
        return set(), (f"cannot be read ({error.strerror or error})", remedy)
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names, None


@rule("serve.instance_type")
def known_instance_type(spec: EndpointSpec) -> Iterator[Finding]:
    """Only instances of the table."""
    instance_type = spec.serve.instance_type
    if instance_type not in platforms.instance_types():
        problem = "is not a known instance type"
        yield Finding("serve.instance_type", instance_type, problem, platforms.nearest_type(instance_type))


def _platform(spec: EndpointSpec) -> platforms.Platform | None:
    known = spec.serve.instance_type in platforms.instance_types()
    return platforms.platform(spec.serve.instance_type) if known else None


@rule("compile.target", "serve.instance_type")
def target_fits_instance(spec: EndpointSpec) -> Iterator[Finding]:
    """What is compiled for one chip does not run on the other, nor on a CPU."""
    row = _platform(spec)
    target = spec.compile.target
    if row and row.family != target:
        problem = f"is an instance of {row.family}, but compile.target is {target}"
        remedy = f"Write target: {row.family} under compile, or one of {', '.join(platforms.instance_types(target))}."
        yield Finding("serve.instance_type", spec.serve.instance_type, problem, remedy)


@rule("compile", "serve", "job")
def cpu_has_no_neuron(spec: EndpointSpec) -> Iterator[Finding]:
    """What is asked of a chip, its compiler or AWS's Neuron images means nothing to a CPU."""
    if spec.compile.target != "cpu":
        return
    asked: dict[str, Any] = {f"compile.{key}": getattr(spec.compile, key) for key in _OF_A_CHIP}
    unset = {f"compile.{key}": getattr(Compile(), key) for key in _OF_A_CHIP}
    asked |= {"serve.server": spec.serve.server, "serve.neuron_monitor": spec.serve.neuron_monitor, "job": spec.job}
    unset |= {"serve.server": "native", "serve.neuron_monitor": False, "job": None}
    for key, value in asked.items():
        if value != unset[key]:
            text = str(value).lower() if isinstance(value, str | int) else ""
            problem = "is for a chip or its images, but compile.target is cpu"
            yield Finding(key, text, problem, "Leave it out, or write target: inf1.")


# Of the compile section; inf1 and inf2 are refused by options_of_the_target.
_OF_A_CHIP = ("sdk", "pipeline_cores", "fast_math", "timeout")


@rule("compile.pipeline_cores", "compile.target", "serve.instance_type")
def pipeline_fits(spec: EndpointSpec) -> Iterator[Finding]:
    """A pipeline needs its cores on one instance, and exists on Inf1 only (--neuroncore-pipeline-cores)."""
    row, cores = _platform(spec), spec.compile.pipeline_cores
    if spec.compile.target == "inf2" and cores > 1:
        problem = "is not possible: the Inf2 compiler has no pipeline mode"
        yield Finding("compile.pipeline_cores", str(cores), problem, "Write 1, or compile for inf1.")
    elif row and cores > row.cores:
        problem = f"is more than the {row.cores} cores of {row.instance_type}"
        remedy = f"Write {row.cores} at most, or choose a larger instance_type under serve."
        yield Finding("compile.pipeline_cores", str(cores), problem, remedy)


@rule("serve.cores_per_worker", "serve.instance_type", "compile.pipeline_cores", "compile.target")
def workers_fit(spec: EndpointSpec) -> Iterator[Finding]:
    """A process owns its cores: whole workers must fill the instance, and whole copies a worker."""
    row, cores, pipeline = _platform(spec), spec.serve.cores_per_worker, spec.compile.pipeline_cores
    if row is None or pipeline > row.cores:
        return
    fitting = [n for n in range(1, row.cores + 1) if row.cores % n == 0 and n % pipeline == 0]
    remedy = f"Write one of {', '.join(map(str, fitting))}, or choose another instance_type."
    if not fitting:
        remedy = f"Write a pipeline_cores that divides {row.cores}, the cores of {row.instance_type}."
    key = "serve.cores_per_worker"
    if cores > row.cores:
        yield Finding(key, str(cores), f"is more than the {row.cores} cores of {row.instance_type}", remedy)
    elif row.cores % cores:
        problem = f"does not divide the {row.cores} cores of {row.instance_type}, so some would idle"
        yield Finding(key, str(cores), problem, remedy)
    elif cores % pipeline:
        problem = f"is not a multiple of the {pipeline} cores of compile.pipeline_cores"
        yield Finding(key, str(cores), problem, remedy)


@rule("serve.processes", "serve.server")
def processes_are_the_native_servers(spec: EndpointSpec) -> Iterator[Finding]:
    """TorchServe starts a process for each worker by itself."""
    serve = spec.serve
    if serve.processes > 1 and serve.server == "torchserve":
        problem = "is not possible with server: torchserve, which starts a process for each worker by itself"
        yield Finding("serve.processes", str(serve.processes), problem, "Leave it out, or write server: native.")


@rule("serve.processes", "serve.server", "serve.cores_per_worker", "serve.instance_type", "compile")
def processes_share_the_workers(spec: EndpointSpec) -> Iterator[Finding]:
    """A NeuronCore belongs to one process, and so do all cores of a worker and of a copy."""
    row, serve = _platform(spec), spec.serve
    if row is None or serve.server != "native" or row.cores % serve.cores_per_worker:
        return
    workers = row.cores // serve.cores_per_worker
    if workers % serve.processes:
        each = f"{row.cores} cores, {serve.cores_per_worker} a worker"
        problem = f"does not divide the {workers} workers of {row.instance_type} ({each})"
        fitting = ", ".join(str(n) for n in range(1, workers + 1) if workers % n == 0)
        remedy = f"Write one of {fitting}, or choose another instance_type."
        yield Finding("serve.processes", str(serve.processes), problem, remedy)


@rule("serve.cores_per_worker", "serve.processes", "serve.instance_type", "serve.server", "model.weights", "compile")
def workers_fit_in_memory(spec: EndpointSpec) -> Iterator[Finding]:
    """Each worker process loads the model, for a moment twice: as read from its file, and as tensors."""
    row, weights = _platform(spec), spec.model.weights
    if row is None or not isinstance(weights, FileWeights):
        return
    path = spec.root / weights.path
    if not path.is_file() or row.cores % spec.serve.cores_per_worker:
        return
    try:
        files = shards(path) if path.name.endswith(INDEX) else (path,)
    except SpecErrors:
        return  # found by weights_exist
    found = memory_problem(spec, row, sum(file.stat().st_size for file in files))
    if found:
        yield found


def worker_processes(spec: EndpointSpec, row: platforms.Platform) -> int:
    """The processes of an instance that load the model: the native server's, or one for each worker."""
    serve = spec.serve
    return serve.processes if serve.server == "native" else row.cores // serve.cores_per_worker


def memory_problem(spec: EndpointSpec, row: platforms.Platform, model_bytes: int) -> Finding | None:
    """Why the worker processes do not fit in the host's memory; None when they do (an estimate)."""
    serve, count = spec.serve, worker_processes(spec, row)
    each = platforms.limits().worker_base_mib / 1024 + 2 * model_bytes / 2**30
    if count * each <= row.memory_gib:
        return None
    problem = (
        f"makes {count} workers of about {each:.1f} GiB each, {count * each:.1f} GiB in all, "
        f"more than the {row.memory_gib:g} GiB of {row.instance_type}"
    )
    if serve.server != "native":
        remedy = "Write more cores_per_worker (fewer workers), or server: native; or choose a larger instance_type."
        return Finding("serve.cores_per_worker", str(serve.cores_per_worker), problem, remedy)
    if serve.processes > 1:
        problem = problem.replace("workers", "processes")
        remedy = "Write fewer processes, or choose a larger instance_type."
        return Finding("serve.processes", str(serve.processes), problem, remedy)
    return Finding("serve.cores_per_worker", str(serve.cores_per_worker), problem, "Choose a larger instance_type.")


@rule("compile.fast_math", "compile.target")
def known_fast_math(spec: EndpointSpec) -> Iterator[Finding]:
    """The compiler's words, of which some exclude each other."""
    groups = platforms.fast_math_groups(spec.compile.target)
    if not groups:
        return
    known = tuple(word for words in groups.values() for word in words)
    written = spec.compile.fast_math
    words = written.split()
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        problem = f"is not known to the {spec.compile.target} compiler"
        remedy = f"{near(unknown[0], known) if unknown else ''}Write one of {', '.join(known)}."
        yield Finding("compile.fast_math", shown(written), problem, remedy)
        return
    for group in groups.values():
        both = [word for word in words if word in group]
        if len(both) > 1:
            problem = f"names {both[0]} and {both[1]}, which exclude each other"
            yield Finding("compile.fast_math", written, problem, "Keep one of them.")


@rule("compile.accept.device_tolerance")
def cosine_is_one_at_most(spec: EndpointSpec) -> Iterator[Finding]:
    """A cosine similarity never exceeds 1."""
    cosine = spec.compile.accept.device_tolerance.get("cosine", 0.0)
    if cosine > 1:
        problem = "is a cosine similarity above 1, which nothing reaches"
        remedy = "Write a number up to 1, such as 0.999."
        yield Finding("compile.accept.device_tolerance.cosine", f"{cosine:g}", problem, remedy)


@rule("rollout.strategy", "serve.instance_type", "compile.target")
def rollout_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """Deployment guardrails exclude Inf1: SageMaker would ignore them without a word."""
    row, strategy = _platform(spec), spec.rollout.strategy
    if row and strategy != "all-at-once" and not row.features.guardrails:
        problem = f"is not possible on {row.instance_type}: SageMaker's deployment guardrails exclude Inf1"
        yield Finding("rollout.strategy", strategy, problem, "Write all-at-once, or deploy to an ml.inf2 instance.")


# The first step of a canary is at most half of the instances, a linear step 10 to 50 % of them: TrafficRoutingConfig,
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html. The rollouts of cdk/ begin
# with one instance and go in quarters.
_ROLLOUT_INSTANCES = {"canary": 2, "linear": 4}


@rule("rollout.strategy", "scale.min", "serve.instance_type", "compile.target")
def rollout_has_its_instances(spec: EndpointSpec) -> Iterator[Finding]:
    """What SageMaker does with a share that is less than one instance is not documented."""
    strategy, least = spec.rollout.strategy, _ROLLOUT_INSTANCES.get(spec.rollout.strategy, 1)
    row = _platform(spec)
    if row and row.features.guardrails and spec.scale.min < least:
        problem = f"is not possible with scale.min: {spec.scale.min}: its first step needs {least} instances"
        remedy = f"Write scale.min: {least}, or rollout.strategy: blue-green."
        yield Finding("rollout.strategy", strategy, problem, remedy)


@rule("serve.mode", "serve.instance_type", "compile.target")
def mode_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """Batch transform has no ml.inf1; and only real-time endpoints are deployed."""
    row, mode = _platform(spec), spec.serve.mode
    if row and mode == "batch-transform" and not row.features.batch_transform:
        problem = f"is not possible on {row.instance_type}: SageMaker's batch transform has no Inf1 instances"
        yield Finding("serve.mode", mode, problem, "Write real-time.")
    elif mode != "real-time":
        problem = "is not deployed by this version: only real-time endpoints are"
        yield Finding("serve.mode", mode, problem, "Write real-time, or leave the key out.")


@rule("serve.server")
def server_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """A server needs an image: SageMaker's Triton images are for CPU and GPU instances."""
    if spec.serve.server == "triton":
        problem = "is not possible: SageMaker has no Triton image for Inferentia"
        remedy = (
            "Write torchserve or native. For an image of your own, "
            "python -m inference_code.adapters.triton makes a Triton model repository of the artifact."
        )
        yield Finding("serve.server", "triton", problem, remedy)


@rule("serve.neuron_monitor", "serve.network_isolation")
def monitor_needs_a_network(spec: EndpointSpec) -> Iterator[Finding]:
    """neuron-monitor sends what it measures to CloudWatch, which an isolated container cannot reach."""
    if spec.serve.neuron_monitor and spec.serve.network_isolation:
        problem = "is not possible with network_isolation: true"
        yield Finding("serve.neuron_monitor", "true", problem, "Leave one of them out.")


@rule("logs.existing", "logs.keep")
def kept_logs_are_the_stacks(spec: EndpointSpec) -> Iterator[Finding]:
    """What is not the stack's does not go with it either."""
    if spec.logs.existing and spec.logs.keep:
        problem = "is given beside existing: true, which leaves the log group alone altogether"
        yield Finding("logs.keep", "true", problem, "Keep one of them.")


@rule("scale.min", "serve.mode")
def min_keeps_one(spec: EndpointSpec) -> Iterator[Finding]:
    """Scaling to zero exists for asynchronous endpoints only."""
    if spec.scale.min == 0:
        problem = "is not possible: a real-time endpoint keeps at least one instance"
        yield Finding("scale.min", "0", problem, "Write 1, or delete the endpoint's stack while it is not needed.")


@rule("scale.min", "scale.max")
def min_below_max(spec: EndpointSpec) -> Iterator[Finding]:
    """Scaling goes from min to max."""
    if spec.scale.min > spec.scale.max:
        problem = f"is more than scale.max, {spec.scale.max}"
        yield Finding("scale.min", str(spec.scale.min), problem, f"Write {spec.scale.max} at most, or raise scale.max.")


@rule("scale.initial", "scale.max")
def initial_below_max(spec: EndpointSpec) -> Iterator[Finding]:
    """No more at the beginning than at most."""
    if spec.scale.initial > spec.scale.max:
        problem = f"is more than scale.max, {spec.scale.max}"
        yield Finding("scale.initial", str(spec.scale.initial), problem, "Leave it out, or raise scale.max.")


@rule("scale.measured", "scale.target_value")
def one_scaling_target(spec: EndpointSpec) -> Iterator[Finding]:
    """A target is written or measured."""
    if spec.scale.measured and spec.scale.target_value is not None:
        problem = f"is given beside target_value, {spec.scale.target_value:g}"
        yield Finding("scale.measured", "true", problem, "Keep one of them.")


@rule("scale.policy", "scale.target_value", "scale.measured")
def requests_a_minute_are_yours(spec: EndpointSpec) -> Iterator[Finding]:
    """How many requests a minute an instance answers follows from a measurement, not from its shape."""
    if spec.scale.policy == "invocations" and spec.scale.target_value is None and not spec.scale.measured:
        problem = "has no target: scale.target_value is missing"
        remedy = "Write target_value, the requests a minute of one instance, measured: true, or policy: concurrency."
        yield Finding("scale.policy", "invocations", problem, remedy)


@rule("scale.max")
def max_is_reasonable(spec: EndpointSpec) -> Iterator[Finding]:
    """A ceiling against a slip of the hand that costs money."""
    most = platforms.limits().max_instances
    if spec.scale.max > most:
        yield Finding("scale.max", str(spec.scale.max), f"is more than {most} instances", f"Write {most} at most.")


@rule("alarms.p99_latency")
def latency_can_be_reached(spec: EndpointSpec) -> Iterator[Finding]:
    """SageMaker gives up on an invocation after a minute, so no latency is longer."""
    most = timedelta(seconds=platforms.limits().invocation_seconds)
    if spec.alarms.p99_latency >= most:
        text = format_duration(spec.alarms.p99_latency)
        problem = f"can never be exceeded: SageMaker ends an invocation after {format_duration(most)}"
        yield Finding("alarms.p99_latency", text, problem, "Write less, such as 1s.")


@rule("alarms.error_rate")
def error_rate_can_be_reached(spec: EndpointSpec) -> Iterator[Finding]:
    """The alarm rings above its threshold, and no more than all requests can fail."""
    if spec.alarms.error_rate >= 1:
        problem = "can never be exceeded: not more than all requests can fail"
        yield Finding("alarms.error_rate", "100%", problem, "Write less, such as 1%.")


@rule("alarms.p99_latency", "serve.max_batch_delay")
def delay_below_alarm(spec: EndpointSpec) -> Iterator[Finding]:
    """max_batch_delay must be below the alarm's threshold, or batching alone triggers the alarm."""
    delay, alarm = spec.serve.max_batch_delay, spec.alarms.p99_latency
    if delay >= alarm:
        problem = f"is not below alarms.p99_latency, {format_duration(alarm)}, so batching alone triggers the alarm"
        remedy = "Write a few milliseconds, or raise p99_latency."
        yield Finding("serve.max_batch_delay", format_duration(delay), problem, remedy)
