"""Derived values, on every row of the platform table."""

from __future__ import annotations

import pytest

from endpoint_spec import EndpointSpec, derive, platforms
from endpoint_spec.custom_metrics import SERVER_METRICS, CustomMetrics, custom_metrics
from endpoint_spec.derive import model_download_timeout, startup_timeout, target_value, worker_environment, workers
from inference_code.observability import cloudwatch_emf
from tests.endpoint_spec.projects import SMALL, Loader, a_lock

TORCHSERVE_ALL = {
    "SAGEMAKER_TS_BATCH_SIZE",
    "SAGEMAKER_TS_MAX_BATCH_DELAY",
    "SAGEMAKER_TS_MIN_WORKERS",
    "SAGEMAKER_TS_MAX_WORKERS",
    "SAGEMAKER_TS_RESPONSE_TIMEOUT",
}
# instance type: cores, vCPU; written out, so that a slip in the table is seen.
SHAPES = {
    "ml.inf1.xlarge": (4, 4),
    "ml.inf1.2xlarge": (4, 8),
    "ml.inf1.6xlarge": (16, 24),
    "ml.inf1.24xlarge": (64, 96),
    "ml.inf2.xlarge": (2, 4),
    "ml.inf2.8xlarge": (2, 32),
    "ml.inf2.24xlarge": (12, 96),
    "ml.inf2.48xlarge": (24, 192),
}
# The same of the CPU: cores of the processor.
PROCESSORS = {
    f"ml.{family}.{size}": (vcpu // 2, vcpu)
    for family in ("c7i", "m7i")
    for size, vcpu in (("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32))
}
CASES = [
    (instance_type, server, share)
    for instance_type, (cores, _) in SHAPES.items()
    for server in ("torchserve", "native")
    for share in sorted({1, 2, cores})
]


def on(read: Loader, instance_type: str, server: str = "torchserve", share: int = 1, more: str = "") -> EndpointSpec:
    target = instance_type.split(".")[1]
    serve = f"instance_type: {instance_type}, server: {server}, cores_per_worker: {share}"
    return read(SMALL + f"compile: {{target: {target}, batch_sizes: [1, 4]}}\nserve: {{{serve}{more}}}\n")


def test_every_row_is_walked() -> None:
    assert {*SHAPES, *PROCESSORS} == set(platforms.instance_types())


@pytest.mark.parametrize(("instance_type", "server", "share"), CASES)
def test_environment(instance_type: str, server: str, share: int, read: Loader) -> None:
    spec = on(read, instance_type, server, share)
    cores, vcpu = SHAPES[instance_type]
    count = cores // share
    environment = worker_environment(spec, a_lock(spec))
    assert workers(spec) == count
    assert all(type(key) is str and type(value) is str for key, value in environment.items())
    assert environment["ENDPOINT_WORKERS"] == str(count)
    assert environment["ENDPOINT_CORES_PER_WORKER"] == str(share)
    assert environment["OMP_NUM_THREADS"] == str(max(1, vcpu // count))
    own = share if server == "torchserve" else cores
    assert environment["NEURON_RT_NUM_CORES"] == str(own)
    assert environment.get("ENDPOINT_PROCESSES") == (None if server == "torchserve" else "1")
    processes = count if server == "torchserve" else 1
    assert processes * own == cores
    named = {key for key in environment if key.startswith("SAGEMAKER_TS_")}
    assert named == (TORCHSERVE_ALL if server == "torchserve" else set())
    if server == "torchserve":
        assert environment["SAGEMAKER_TS_MIN_WORKERS"] == environment["SAGEMAKER_TS_MAX_WORKERS"] == str(count)
        assert environment["SAGEMAKER_MODEL_SERVER_WORKERS"] == str(count)


@pytest.mark.parametrize(("instance_type", "shape"), PROCESSORS.items())
def test_environment_of_the_cpu(instance_type: str, shape: tuple[int, int], read: Loader) -> None:
    spec = read(SMALL + f"compile: {{target: cpu}}\nserve: {{instance_type: {instance_type}}}\n")
    environment = worker_environment(spec, a_lock(spec))
    assert (environment["ENDPOINT_WORKERS"], environment["OMP_NUM_THREADS"]) == (str(shape[0]), "2")
    assert not [name for name in environment if name.startswith(("NEURON_", "SAGEMAKER_TS_"))]


def test_processes_are_the_native_servers_to_share_out(read: Loader) -> None:
    spec = on(read, "ml.inf1.6xlarge", "native", 4, ", processes: 2")
    environment = worker_environment(spec, a_lock(spec))
    assert environment["ENDPOINT_PROCESSES"] == "2"
    assert (environment["ENDPOINT_WORKERS"], environment["NEURON_RT_NUM_CORES"]) == ("4", "16")  # of all processes
    assert environment["OMP_NUM_THREADS"] == "6"


def test_environment_in_full(read: Loader) -> None:
    spec = on(read, "ml.inf1.6xlarge", share=4, more=", max_batch_delay: 2.5ms, limits: {pixels: 12M, items: 3}")
    assert worker_environment(spec, a_lock(spec)) == {
        "ENDPOINT_SERVER": "torchserve",
        "ENDPOINT_MANIFEST_SHA256": a_lock(spec).manifest_sha256,
        "ENDPOINT_WORKERS": "4",
        "ENDPOINT_CORES_PER_WORKER": "4",
        "ENDPOINT_MAX_PIXELS": "12000000",
        "ENDPOINT_MAX_ITEMS": "3",
        "ENDPOINT_MAX_BATCH_DELAY_MS": "2.5",
        "ENDPOINT_REQUEST_BYTES": "25000000",
        "ENDPOINT_RESPONSE_BYTES": "25000000",
        "NEURON_RT_NUM_CORES": "4",
        "OMP_NUM_THREADS": "6",
        "MALLOC_TRIM_THRESHOLD_": "268435456",
        "MALLOC_MMAP_THRESHOLD_": "268435456",
        "OMP_WAIT_POLICY": "PASSIVE",
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_TS_BATCH_SIZE": "1",
        "SAGEMAKER_TS_MAX_BATCH_DELAY": "1",
        "SAGEMAKER_TS_MIN_WORKERS": "4",
        "SAGEMAKER_TS_MAX_WORKERS": "4",
        "SAGEMAKER_TS_RESPONSE_TIMEOUT": "260",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "4",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": "260",
        "TS_DEFAULT_RESPONSE_TIMEOUT": "260",
        "TS_DEFAULT_STARTUP_TIMEOUT": "260",
        "TS_MAX_REQUEST_SIZE": "25000000",
        "TS_MAX_RESPONSE_SIZE": "25000000",
    }


def test_neuron_monitor_runs_where_it_is_asked_for(read: Loader) -> None:
    spec = read(SMALL + "serve: {neuron_monitor: true}\n")
    assert derive.neuron_monitor_environment(spec, "eu-west-1") == {
        "NEURON_MONITOR_CW_REGION": "eu-west-1",
        "NEURON_MONITOR_CW_NAMESPACE": f"InferentiaEndpoints/{spec.name}",
    }
    spec = read(SMALL)
    assert derive.neuron_monitor_namespace(spec) is None
    assert derive.neuron_monitor_environment(spec, "eu-west-1") == {}


def test_custom_metrics_grow_with_the_buckets_alone(read: Loader) -> None:
    """Cores and batch sizes are no dimension, and whatever nobody has counted is named."""
    stock, own = (read(SMALL + f"serve: {{{line}}}\n") for line in ("server: torchserve", "server: native"))
    assert len(cloudwatch_emf._UNITS) == SERVER_METRICS
    assert custom_metrics(stock, a_lock(stock)) == CustomMetrics(0)
    lock = a_lock(own)  # two graphs of one bucket
    assert custom_metrics(own, lock) == CustomMetrics(12)
    wider = lock.graphs[0].model_copy(update={"bucket": {"image": [1, 2]}})
    assert custom_metrics(own, lock.model_copy(update={"graphs": [*lock.graphs, wider]})).known == 18
    more = read(SMALL + "serve: {neuron_monitor: true, metrics: detailed}\n")
    assert [line.split(":")[0] for line in custom_metrics(more).unknown] == ["serve.neuron_monitor", "serve.metrics"]


def test_keep_at(read: Loader) -> None:
    spec = on(read, "ml.inf1.2xlarge")
    assert target_value(spec) == 4 * 4 * 0.7
    # The lock's graphs run, so their batch sizes count.
    lock = a_lock(spec)
    assert target_value(spec, lock.model_copy(update={"graphs": lock.graphs[:1]})) == 2.8
    chosen = read(SMALL + "scale: {target_value: 3}\n")
    assert target_value(chosen, a_lock(chosen)) == 3.0


def test_timeouts_grow_with_the_artifact_within_the_bounds(read: Loader) -> None:
    spec = read(SMALL)
    sizes = [1, 10**8, 10**9, 10**10, 10**12]
    for timeout in (model_download_timeout, startup_timeout):
        seconds = [timeout(a_lock(spec, size=size)) for size in sizes]
        assert seconds == sorted(seconds)
        assert all(type(value) is int and 60 <= value <= 3600 for value in seconds)
        assert seconds[0] < seconds[2] < seconds[-1] == 3600


def test_a_worker_is_not_killed_while_it_loads(read: Loader) -> None:
    spec = read(SMALL + "serve: {server: torchserve}\n")
    lock = a_lock(spec, size=5 * 10**9)
    environment = worker_environment(spec, lock)
    assert int(environment["SAGEMAKER_TS_RESPONSE_TIMEOUT"]) >= startup_timeout(lock) >= 60


def test_public_names() -> None:
    assert derive.workers is workers
