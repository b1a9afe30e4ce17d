"""What each of several processes gets of a machine: NeuronCores, workers, places for requests, threads of the host.

A share is a few variables of the process's environment; their meaning is in settings.py. Needs no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from inference_code.artifact.manifest import ArtifactManifest, ManifestError, read
from inference_code.errors import LoadError
from inference_code.settings import Settings

_NUMBER, _VISIBLE = "NEURON_RT_NUM_CORES", "NEURON_RT_VISIBLE_CORES"
_HELP = "change serve.processes (ENDPOINT_PROCESSES, --processes)"


def shares(
    model_dir: Path, settings: Settings, count: int, environment: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """The variables of each of `count` processes, over `environment` (default: os.environ).

    Raises LoadError with one line: an artifact without a readable manifest, or numbers that cannot be shared.
    """
    given = os.environ if environment is None else environment
    if count == 1:
        return [{}]
    try:
        manifest = read(model_dir)
    except ManifestError as error:
        raise LoadError(str(error)) from None
    workers = settings.workers if given.get("ENDPOINT_WORKERS", "").strip() else count
    if workers % count:
        fitting = _listed(n for n in range(1, workers + 1) if workers % n == 0)
        raise LoadError(f"{count} processes cannot share ENDPOINT_WORKERS, {workers}: {fitting} can; {_HELP}")
    if settings.max_queue < count:
        raise LoadError(f"ENDPOINT_MAX_QUEUE is {settings.max_queue}; for {count} processes it must be {count} or more")
    cores = _cores(manifest, settings, count, given)
    threads = max(1, settings.host_threads // count)
    found = []
    for index in range(count):
        queue = settings.max_queue // count + (index < settings.max_queue % count)
        share = {
            "ENDPOINT_WORKERS": str(workers // count),
            "ENDPOINT_MAX_QUEUE": str(queue),
            "ENDPOINT_HOST_THREADS": str(threads),
            "ENDPOINT_MAX_BODIES": str(max(1, settings.max_bodies // count)),
            "ENDPOINT_DECODE_BYTES": str(max(1, settings.limits.decode_bytes // count)),
            "ENDPOINT_TRANSFER_BYTES": str(max(1, settings.transfer_bytes // count)),
            # torch would take a thread for each processor, in each process.
            "OMP_NUM_THREADS": given.get("OMP_NUM_THREADS", "").strip() or str(threads),
        }
        if cores:
            each = len(cores) // count
            own = cores[index * each : (index + 1) * each]
            share |= {_NUMBER: str(each), _VISIBLE: ranges(own)}
        found.append(share)
    return found


def _cores(manifest: ArtifactManifest, settings: Settings, count: int, given: Mapping[str, str]) -> list[int]:
    """The NeuronCores to share; none for a CPU whose environment names none. Raises LoadError."""
    copy = manifest.cores_per_copy
    visible = given.get(_VISIBLE, "").strip()
    if visible:
        name, cores = f"{_VISIBLE}, {visible}", _numbers(visible)
    elif settings.neuron_cores is not None:
        name, cores = f"{_NUMBER}, {settings.neuron_cores}", list(range(settings.neuron_cores))
    else:  # one process would take the cores of one copy
        return [] if manifest.on_cpu else list(range(count * copy))
    total = len(cores)
    if total % count or total // count % copy:
        fitting = _listed(n for n in range(1, total + 1) if total % n == 0 and total // n % copy == 0)
        ways = f"{fitting} can; {_HELP}" if fitting else f"it must be a multiple of {copy}"
        raise LoadError(f"{count} processes cannot share {name}, in whole copies of {copy} core(s): {ways}")
    return cores


def _numbers(text: str) -> list[int]:
    """The cores that `0-3` or `0,2,5-6` names. Raises LoadError."""
    cores: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise LoadError(f"{_VISIBLE} is {text[:40]!r}, it must name cores, such as 0-3 or 0,2")
        cores += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(cores)) != len(cores):
        raise LoadError(f"{_VISIBLE} is {text[:40]!r}, which names a core twice")
    return cores


def ranges(cores: Sequence[int]) -> str:
    """Cores as NEURON_RT_VISIBLE_CORES takes them: `2`, `0-1` or `0,2`."""
    if len(cores) > 1 and list(cores) == list(range(cores[0], cores[0] + len(cores))):
        return f"{cores[0]}-{cores[-1]}"
    return ",".join(map(str, cores))


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
