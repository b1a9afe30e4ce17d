"""Values that follow from a spec, its platform and its lock: workers, environment, timeouts, the scaling target."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from .endpoint import EndpointSpec
from .lock import Lock
from .platforms import Image, image, job_price, limits, platform
from .quantities import format_duration

# glibc gives freed memory back so eagerly that picture handlers lose up to 40 % of their time; 256 MiB stops that.
_MALLOC_BYTES = 268_435_456
MANIFEST_VARIABLE = "ENDPOINT_MANIFEST_SHA256"
# Cautious rates and fixed parts for the health checks: a slow download, unpacking, loading and one warm-up answer.
_DOWNLOAD_BYTES_A_SECOND = 10_000_000
_LOAD_BYTES_A_SECOND = 5_000_000
_FIXED_SECONDS = 240


def workers(spec: EndpointSpec) -> int:
    """Copies of the model that serve at once: cores of the instance / cores_per_worker.

    Under torchserve each is a process; the native server runs them as threads of its serve.processes processes.
    """
    return platform(spec.serve.instance_type).cores // spec.serve.cores_per_worker


def container_image(spec: EndpointSpec, server: str | None = None) -> Image:
    """The container image of a spec's target and SDK release, with its own server or the one named."""
    return image(spec.compile.target, server or spec.serve.server, spec.compile.sdk)


def target_value(spec: EndpointSpec, lock: Lock | None = None) -> float:
    """Concurrent requests an instance to scale for: scale.target_value, or workers x largest batch x 0.7.

    The largest batch is the lock's, since that is what runs; without a lock it is the spec's. With scale.measured it
    is 0.7 of what the recommended configuration was measured to bear, as far as the lock has such figures (a lock
    without them is refused by endpoint_spec.lock.check).
    """
    if spec.scale.target_value is not None:
        return spec.scale.target_value
    if spec.scale.measured and lock is not None and lock.measured is not None:
        return _measured(spec, lock.measured["recommended"])
    sizes = [graph.batch_size for graph in lock.graphs] if lock else list(spec.compile.batch_sizes)
    return round(workers(spec) * max(sizes) * 0.7, 6)


def _measured(spec: EndpointSpec, recommended: list[dict[str, Any]]) -> float:
    """Concurrent items of the recommended configurations, or items a minute; the smallest of several graphs decides."""
    if spec.scale.policy == "invocations":
        bearable = min(row["throughput_avg"] for row in recommended) * 60
    else:
        bearable = min(row["n_models"] * row["workers_per_model"] * row["batch_size"] for row in recommended)
    return round(float(bearable) * 0.7, 6)


def instances(spec: EndpointSpec) -> int:
    """InitialInstanceCount: what a fixed fleet has; else scale.initial, which scaling then brings between min and max.

    Never scale.min of a scaled fleet: another count is another configuration, and replaces every instance.
    """
    return spec.scale.min if spec.scale.fixed else spec.scale.initial


def fleet_text(spec: EndpointSpec) -> str | None:
    """What a change of the number of instances does where it is the spec's alone; None where scaling changes it."""
    if not spec.scale.fixed:
        return None
    return (
        f"a fixed number of {spec.scale.min} instances: another number is an update of the whole fleet, "
        f"with the old and the new instances beside each other for a while"
    )


def model_download_timeout(lock: Lock) -> int:
    """Seconds for ModelDataDownloadTimeoutInSeconds, from the artifact's size, within SageMaker's bounds."""
    return _bounded(_FIXED_SECONDS + lock.artifact.bytes / _DOWNLOAD_BYTES_A_SECOND)


def startup_timeout(lock: Lock) -> int:
    """Seconds for ContainerStartupHealthCheckTimeoutInSeconds: the workers load the model and answer once."""
    return _bounded(_FIXED_SECONDS + lock.artifact.bytes / _LOAD_BYTES_A_SECOND)


def _bounded(seconds: float) -> int:
    known = limits()
    return min(max(math.ceil(seconds), known.timeout_seconds_min), known.timeout_seconds_max)


def job_cost_limit(spec: EndpointSpec) -> float | None:
    """US dollars that the machines of one compile run cannot exceed: price x hours of time_limit x max_parallel.

    On demand, also for spot, which costs less. None without a job section, and where the machine has no known price.
    """
    job = spec.job
    if job is None or job.instance_type is None:
        return None
    price = job_price(job.instance_type, spec.root)
    if price is None:
        return None
    return round(price.usd_per_hour * (job.time_limit / timedelta(hours=1)) * job.max_parallel, 2)


def job_cost_text(spec: EndpointSpec) -> str:
    """The cost limit of a compile run in a sentence, with what it is made of and what it leaves out."""
    job, dollars = spec.job, job_cost_limit(spec)
    if job is None or job.instance_type is None:
        return "nothing: no compile job"
    price = job_price(job.instance_type, spec.root)
    if dollars is None or price is None:
        return f"unknown: no price of {job.instance_type} is known; write one into prices.yaml"
    note = "" if price.official or price.overridden else ", unofficial price"
    return (
        f"at most {dollars:.2f} USD a run: {job.max_parallel} x {job.instance_type} for "
        f"{format_duration(job.time_limit)} at {price.usd_per_hour:g} USD an hour "
        f"({price.region}, {price.date}{note}); without storage and requests"
    )


def worker_environment(spec: EndpointSpec, lock: Lock) -> dict[str, str]:
    """The environment of the container, complete and as text."""
    row = platform(spec.serve.instance_type)
    serve, count = spec.serve, workers(spec)
    # The native server owns every core, and shares them among its processes; a process of TorchServe owns its worker's.
    # 0, the default, takes them all, and the second process then finds none.
    threaded = serve.server == "native"
    environment = {
        "ENDPOINT_SERVER": serve.server,
        # What images/native/verify.py compares the artifact with before any code of it runs.
        MANIFEST_VARIABLE: lock.manifest_sha256,
        "ENDPOINT_WORKERS": str(count),
        "ENDPOINT_CORES_PER_WORKER": str(serve.cores_per_worker),
        "ENDPOINT_MAX_PIXELS": str(serve.limits.pixels),
        "ENDPOINT_MAX_ITEMS": str(serve.limits.items),
        "ENDPOINT_MAX_BATCH_DELAY_MS": f"{serve.max_batch_delay / timedelta(milliseconds=1):g}",
        "ENDPOINT_REQUEST_BYTES": str(limits().request_bytes),
        "ENDPOINT_RESPONSE_BYTES": str(limits().response_bytes),
        "OMP_NUM_THREADS": str(max(1, row.vcpu // count)),
        # OpenMP's threads spin while they wait; where more of them run than there are processors, all wait for the
        # spinners (two workers of two threads on two shared processors: 13 s for what took 0.8 s without spinning).
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_TRIM_THRESHOLD_": str(_MALLOC_BYTES),
        "MALLOC_MMAP_THRESHOLD_": str(_MALLOC_BYTES),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
    }
    if serve.server == "torchserve":
        environment |= _torchserve(spec, lock)
    if threaded:
        environment["ENDPOINT_PROCESSES"] = str(serve.processes)
    if row.chips:
        environment["NEURON_RT_NUM_CORES"] = str(row.cores if threaded else serve.cores_per_worker)
    return environment


def neuron_monitor_namespace(spec: EndpointSpec) -> str | None:
    """The CloudWatch namespace that neuron-monitor writes to; None where it is off.

    One namespace an endpoint, because neuron-monitor knows nothing of endpoints.
    """
    return f"InferentiaEndpoints/{spec.name}" if spec.serve.neuron_monitor else None


def neuron_monitor_environment(spec: EndpointSpec, region: str) -> dict[str, str]:
    """What makes the entry point of AWS's Neuron images start neuron-monitor; nothing where it is off.

    https://github.com/aws/deep-learning-containers, neuron-monitor.sh: the region switches it on.
    """
    namespace = neuron_monitor_namespace(spec)
    if namespace is None:
        return {}
    return {"NEURON_MONITOR_CW_REGION": region, "NEURON_MONITOR_CW_NAMESPACE": namespace}


def _torchserve(spec: EndpointSpec, lock: Lock) -> dict[str, str]:
    """TorchServe's settings, all of them: one SAGEMAKER_TS_ variable alone resets the others to 1 worker and 60 s.

    The batch size stays 1, since the toolkit gives every request of a batch the headers of the first; batches form in
    the handler. A worker is killed that does not answer in time; before TorchServe 0.12 loading counts as an answer.
    """
    count = str(workers(spec))
    seconds = str(max(limits().invocation_seconds, startup_timeout(lock)))
    return {
        "SAGEMAKER_TS_BATCH_SIZE": "1",
        "SAGEMAKER_TS_MAX_BATCH_DELAY": "1",
        "SAGEMAKER_TS_MIN_WORKERS": count,
        "SAGEMAKER_TS_MAX_WORKERS": count,
        "SAGEMAKER_TS_RESPONSE_TIMEOUT": seconds,
        "SAGEMAKER_MODEL_SERVER_WORKERS": count,
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": seconds,
        # Version 2.0.25 of the toolkit ignores the line above; TorchServe itself reads this one.
        "TS_DEFAULT_RESPONSE_TIMEOUT": seconds,
        # TorchServe 0.12 bounds the loading by itself, at 120 s; 0.11 knows no such setting and counts it as an answer.
        "TS_DEFAULT_STARTUP_TIMEOUT": seconds,
        # TorchServe's own limit is 6.5 MB each way.
        "TS_MAX_REQUEST_SIZE": str(limits().request_bytes),
        "TS_MAX_RESPONSE_SIZE": str(limits().response_bytes),
    }
