"""`measure`: throughput and latency of an artifact's graphs, in the vocabulary of AWS's NeuronPerf.

n_models copies of a graph are loaded, workers_per_model threads call each of them, pipeline_size NeuronCores run one
copy; throughput counts inferences (items), not calls. Figures are of the machine that ran them and of no other.
"""

from __future__ import annotations

import datetime
import os
import platform as host
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compile.errors import CompileError, one_line
from compile.profiling.latency import Modes, modes, percentiles
from compile.progress import Reporter
from compile.targets import resolve
from compile.targets.inf2 import loaded
from compile.targets.sdk import has_device
from endpoint_spec import platforms
from inference_code.artifact.manifest import ArtifactManifest, PackagedVariant, TensorDescription

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec
    from endpoint_spec.lock import Lock

_PRODUCT = Path("/sys/devices/virtual/dmi/id/product_name")  # EC2 writes the instance type here (Nitro)
_WINDOWS = 10
_SEED = 30


@dataclass(frozen=True)
class Settings:
    """What is tried. seconds: of each configuration, after `warm_up` calls of each worker."""

    batch_sizes: tuple[int, ...] | None = None
    n_models: tuple[int, ...] | None = None
    workers_per_model: tuple[int, ...] = (1, 2)
    seconds: float = 5.0
    warm_up: int = 3
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Machine:
    """Where figures were taken. target: whether they count for the spec, and if not, `reason` says why."""

    name: str
    processor: str
    cpus: int
    instance_type: str | None
    target: bool
    reason: str


@dataclass(frozen=True)
class Row:
    """One configuration and what was measured; latencies in milliseconds of one call, throughput in items a second."""

    role: str
    bucket: str
    batch_size: int
    n_models: int
    workers_per_model: int
    pipeline_size: int
    calls: int
    seconds: float
    throughput_avg: float
    throughput_std: float
    latency_ms_avg: float
    latency_ms_std: float
    latency_ms: dict[str, float]
    bimodal: Modes | None
    cost_per_1m_inf: float | None
    pareto: bool = False

    @property
    def p99(self) -> float:
        return self.latency_ms["p99"]


@dataclass(frozen=True)
class Report:
    """Everything of one run. recommended: one row of each role and bucket."""

    name: str
    artifact: str
    date: str
    machine: Machine
    price: dict[str, Any] | None
    rows: tuple[Row, ...]
    recommended: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())


def machine_for(spec: EndpointSpec, lock: Lock, product: Path = _PRODUCT) -> Machine:
    """This machine, and whether figures taken here are figures of the spec's instance type."""
    found = product.read_text(errors="replace").strip() if product.is_file() else ""
    instance_type = f"ml.{found}" if re.fullmatch(r"[a-z][a-z0-9-]*\.[a-z0-9]+", found) else None
    wanted, reason = spec.serve.instance_type, ""
    if lock.rehearsal or lock.stand_in:
        reason = "it is a rehearsal" if lock.rehearsal else "it was made with a stand-in for the Neuron SDK"
    elif instance_type != wanted:
        reason = f"this machine is {instance_type or 'no EC2 instance'}, the spec serves on {wanted}"
    elif not lock.on_cpu and not has_device():
        reason = "there is no NeuronCore"
    return Machine(host.node(), _processor(), os.cpu_count() or 1, instance_type, not reason, reason)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return host.processor() or host.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), host.machine())


def measure(
    spec: EndpointSpec, lock: Lock, folder: Path, manifest: ArtifactManifest, settings: Settings, reporter: Reporter
) -> Report:
    """Measures every graph of the artifact unpacked in `folder`. Raises CompileError when one does not run here."""
    target = resolve(lock.target, lock.rehearsal)
    if not target.runs_here:
        raise CompileError(
            f"What is compiled for {lock.target} runs on a NeuronCore, and this machine has none.",
            f"Run this on an {spec.serve.instance_type.removeprefix('ml.')} instance, or measure the rehearsal: "
            f"inferentia measure {spec.name} --rehearse (figures of this CPU, which stay in build/).",
        )
    machine = machine_for(spec, lock)
    price = _price(spec, machine, settings)
    hourly = price["usd_per_hour"] if price else None
    entries = [g for g in manifest.graphs if settings.batch_sizes is None or g.batch_size in settings.batch_sizes]
    if not entries:
        sizes = ", ".join(str(size) for size in sorted({graph.batch_size for graph in manifest.graphs}))
        raise CompileError(
            f"No graph has a batch size of --batch-sizes; there are {sizes}.", "Build it: compile.batch_sizes."
        )
    rows = [
        _run(entry, folder, manifest, models, workers, settings, hourly, reporter)
        for entry in entries
        for models in settings.n_models or _copies(spec, manifest, machine)
        for workers in settings.workers_per_model
    ]
    marked = tuple(mark_pareto(rows))
    chosen, notes = recommend(marked, spec.alarms.p99_latency.total_seconds() * 1000)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Report(spec.name, lock.digests.artifact, now, machine, price, marked, chosen, notes)


def _copies(spec: EndpointSpec, manifest: ArtifactManifest, machine: Machine) -> tuple[int, ...]:
    """1, 2, 4 ... copies, up to one on every core there is."""
    cores = platforms.platform(spec.serve.instance_type).cores // manifest.cores_per_copy
    most = cores if machine.target else min(cores, machine.cpus)
    return tuple(sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), most}))


def _price(spec: EndpointSpec, machine: Machine, settings: Settings) -> dict[str, Any] | None:
    """What an hour costs: as given, or of the target instance by the dated table; None elsewhere."""
    if settings.price_per_hour is not None:
        return {"usd_per_hour": settings.price_per_hour, "source": "--price-per-hour", "date": None}
    if not machine.target:
        return None  # the price of one machine says nothing about the speed of another
    row = platforms.platform(spec.serve.instance_type, spec.root)
    found = row.sagemaker_price or row.ec2_price
    return found.model_dump() if found else None


def _run(
    entry: PackagedVariant,
    folder: Path,
    manifest: ArtifactManifest,
    models: int,
    workers: int,
    settings: Settings,
    hourly: float | None,
    reporter: Reporter,
) -> Row:
    title = f"{entry.role} batch {entry.batch_size}, {models} model(s) x {workers} worker(s)"
    with reporter.step(title):
        copies = [loaded(folder / entry.file, manifest.separate_weights, core) for core in range(models)]
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // (models * workers)))
        try:
            ends, latencies, seconds = _load(copies, workers, inputs(entry), settings)
        finally:
            torch.set_num_threads(before)
    windows = np.histogram(ends, bins=_WINDOWS, range=(0.0, seconds))[0] * entry.batch_size * _WINDOWS / seconds
    throughput = len(latencies) * entry.batch_size / seconds
    return Row(
        role=entry.role,
        bucket=", ".join(f"{axis} {'x'.join(map(str, size))}" for axis, size in entry.bucket.items()),
        batch_size=entry.batch_size,
        n_models=models,
        workers_per_model=workers,
        pipeline_size=manifest.cores_per_copy,
        calls=len(latencies),
        seconds=round(seconds, 3),
        throughput_avg=throughput,
        throughput_std=float(windows.std()),
        latency_ms_avg=float(np.mean(latencies)),
        latency_ms_std=float(np.std(latencies)),
        latency_ms=percentiles(latencies),
        bimodal=modes(latencies),
        cost_per_1m_inf=None if hourly is None else cost_per_million(throughput, hourly),
    )


def cost_per_million(throughput: float, usd_per_hour: float) -> float:
    """US dollars for a million inferences at a steady throughput (items a second), as NeuronPerf reckons it."""
    return 1e6 / throughput * usd_per_hour / 3600


def inputs(entry: PackagedVariant) -> tuple[torch.Tensor, ...]:
    """One batch of a graph: normal random numbers, and zeros for integers, which may be indices."""
    generator = torch.Generator().manual_seed(_SEED)

    def one(tensor: TensorDescription) -> torch.Tensor:
        dtype = getattr(torch, tensor.dtype)
        if dtype.is_floating_point:
            return torch.randn(tensor.shape, generator=generator).to(dtype)
        return torch.zeros(tensor.shape, dtype=dtype)

    return tuple(one(tensor) for tensor in entry.inputs)


def _load(
    copies: Sequence[Any], workers: int, tensors: tuple[torch.Tensor, ...], settings: Settings
) -> tuple[list[float], list[float], float]:
    """Calls all copies from all workers for the time that is asked; returns ends (s), latencies (ms) and seconds."""
    ready = threading.Barrier(len(copies) * workers + 1)
    stop = threading.Event()
    records: list[list[tuple[float, float]]] = [[] for _ in range(len(copies) * workers)]
    failures: list[Exception] = []

    def work(copy: Any, record: list[tuple[float, float]]) -> None:
        try:
            with torch.no_grad():
                for _ in range(settings.warm_up):
                    copy(*tensors)
                ready.wait()
                while not stop.is_set():
                    begin = time.perf_counter()
                    copy(*tensors)
                    record.append((begin, time.perf_counter()))
        except RuntimeError as error:  # also a barrier that another worker's failure broke
            failures.append(error)
            ready.abort()

    threads = [
        threading.Thread(target=work, args=(copy, records[at * workers + worker]), daemon=True)
        for at, copy in enumerate(copies)
        for worker in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
        started = time.perf_counter()
        stop.wait(settings.seconds)
    except threading.BrokenBarrierError:
        started = time.perf_counter()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    real = [error for error in failures if not isinstance(error, threading.BrokenBarrierError)]
    if real:
        raise CompileError(f"A graph does not run here: {one_line(real[0])}", "Check it: inferentia verify NAME.")
    if not any(records):
        raise CompileError("No call ended in the time that was given.", "Give more --seconds.")
    spans = [span for record in records for span in record]
    last = max(end for _, end in spans)
    return [end - started for _, end in spans], [(end - begin) * 1000 for begin, end in spans], last - started


def mark_pareto(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows of a role and bucket that no other one beats in both throughput and p99."""
    for row in rows:
        rivals = [other for other in rows if (other.role, other.bucket) == (row.role, row.bucket)]
        beaten = any(
            other.throughput_avg >= row.throughput_avg
            and other.p99 <= row.p99
            and (other.throughput_avg, other.p99) != (row.throughput_avg, row.p99)
            for other in rivals
        )
        yield replace(row, pareto=not beaten)


def recommend(rows: Sequence[Row], p99_limit_ms: float) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Of each role and bucket the most throughput within alarms.p99_latency; where none is, the lowest p99."""
    chosen, notes = [], []
    for key in dict.fromkeys((row.role, row.bucket) for row in rows):
        mine = [row for row in rows if (row.role, row.bucket) == key]
        within = [row for row in mine if row.p99 <= p99_limit_ms]
        if within:
            best = max(within, key=lambda row: row.throughput_avg)
        else:
            best = min(mine, key=lambda row: row.p99)
            notes.append(
                f"{key[0]}, {key[1]}: no configuration has a p99 within alarms.p99_latency ({p99_limit_ms:g} ms); "
                f"the lowest is {best.p99:.3g} ms"
            )
        if best.bimodal:
            notes.append(f"{key[0]}, {key[1]}: latencies of the recommended configuration are {best.bimodal}")
        chosen.append(best)
    return tuple(chosen), tuple(notes)
