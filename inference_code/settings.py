"""The worker's settings, from its environment. Each variable has a default that is written here.

variable                     default       meaning
ENDPOINT_MAX_PIXELS          40000000      pixels of a picture, width x height
ENDPOINT_MAX_SIDE            32768         pixels of a picture's longer side
ENDPOINT_MAX_SCANNED_PIXELS  1000000000    pixels of a progressive JPEG, once for each of its scans
ENDPOINT_MAX_SEGMENTS        10000         segments of a JPEG, chunks of a PNG, frames of a WebP
ENDPOINT_DECODE_BYTES        (memory / 4)  memory for all that is decoded at once; a request waits for it, or gets 503
ENDPOINT_MAX_ITEMS           16            items of one request
ENDPOINT_REQUEST_BYTES       26214400      bytes of a request's body (25 MiB)
ENDPOINT_RESPONSE_BYTES      26214400      bytes of an answer's body (25 MiB)
ENDPOINT_MAX_BODIES          1024          bodies that are read at once
ENDPOINT_TRANSFER_BYTES      (memory / 16) of bodies that are being read; and as many of answers that are being sent
ENDPOINT_PROCESSES           1             processes of the native server, which share what stands below
ENDPOINT_WORKERS             1             workers that serve.server was planned with
ENDPOINT_CORES_PER_WORKER    (no check)    NeuronCores planned for each worker
ENDPOINT_MAX_BATCH_DELAY_MS  5             how long a bucket may be queued while fuller batches of others run first
ENDPOINT_MAX_QUEUE           64            requests in the native server at once; more are answered 503
ENDPOINT_HOST_THREADS        (processors)  threads that decode and encode in the native server
ENDPOINT_DEADLINE_S          60            seconds for a whole request; later it is answered 503 (SageMaker's own limit)
ENDPOINT_DRAIN_S             25            seconds for the requests in work after SIGTERM (SageMaker kills after 30)
ENDPOINT_BODY_TIMEOUT_S      60            seconds for a request's body to arrive (SageMaker's own limit)
ENDPOINT_HEAD_TIMEOUT_S      10            seconds for a request's head to arrive, from the connection or its first byte
ENDPOINT_LEAST_RATE          10000         bytes a second of a body that arrives, and of an answer that is read
ENDPOINT_RATE_WINDOW_S       10            seconds over which that rate is measured
ENDPOINT_ALLOWED_HOSTS       (none)        name[:port],...: on a loopback address, what Host may be besides the server's
                                           own names, and the hosts of web pages that may ask (browser_guard.py)
ENDPOINT_MANIFEST_SHA256     (no check)    sha256 of manifest.json in the lock; another artifact is not served
NEURON_RT_NUM_CORES          (unset)       NeuronCores of this process

"memory" is the machine's, or the container's if that has less.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from inference_code.errors import LoadError
from inference_code.memory import MemoryBudget, machine_bytes

ALLOWED_HOSTS = "ENDPOINT_ALLOWED_HOSTS"
_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?((?::[1-9][0-9]{0,4})?)")
_HOST_V6 = re.compile(r"\[([0-9a-f:.]+)\]((?::[1-9][0-9]{0,4})?)")


@dataclass(frozen=True)
class Limits:
    """What a request and its answer may be at most, and the work and memory that it takes to decode."""

    pixels: int = 40_000_000
    items: int = 16
    request_bytes: int = 25 * 1024 * 1024
    response_bytes: int = 25 * 1024 * 1024
    side: int = 32_768
    scanned_pixels: int = 1_000_000_000
    segments: int = 10_000
    decode_bytes: int = machine_bytes() // 4

    @functools.cached_property
    def memory(self) -> MemoryBudget:
        """The decode_bytes, which all requests share."""
        return MemoryBudget(self.decode_bytes)


@dataclass(frozen=True)
class Settings:
    """The worker's settings; units are in the names. None: the variable is not set."""

    limits: Limits = Limits()
    processes: int = 1
    workers: int = 1
    cores_per_worker: int | None = None
    max_batch_delay_ms: float = 5.0
    max_queue: int = 64
    host_threads: int = os.cpu_count() or 1
    body_timeout_s: float = 60.0
    deadline_s: float = 60.0
    drain_s: float = 25.0
    neuron_cores: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_bodies: int = 1024
    transfer_bytes: int = machine_bytes() // 16
    head_timeout_s: float = 10.0
    least_rate: int = 10_000
    rate_window_s: float = 10.0
    manifest_sha256: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables above from `environment` (default: os.environ). Raises LoadError naming all bad ones."""
        variables = _Variables(os.environ if environment is None else environment)
        base, limits = cls(), Limits()
        settings = cls(
            limits=Limits(
                pixels=variables.whole("ENDPOINT_MAX_PIXELS", limits.pixels),
                items=variables.whole("ENDPOINT_MAX_ITEMS", limits.items),
                request_bytes=variables.whole("ENDPOINT_REQUEST_BYTES", limits.request_bytes),
                response_bytes=variables.whole("ENDPOINT_RESPONSE_BYTES", limits.response_bytes),
                side=variables.whole("ENDPOINT_MAX_SIDE", limits.side),
                scanned_pixels=variables.whole("ENDPOINT_MAX_SCANNED_PIXELS", limits.scanned_pixels),
                segments=variables.whole("ENDPOINT_MAX_SEGMENTS", limits.segments),
                decode_bytes=variables.whole("ENDPOINT_DECODE_BYTES", limits.decode_bytes),
            ),
            processes=variables.whole("ENDPOINT_PROCESSES", base.processes),
            workers=variables.whole("ENDPOINT_WORKERS", base.workers),
            cores_per_worker=variables.whole("ENDPOINT_CORES_PER_WORKER", 0) or None,
            max_batch_delay_ms=variables.decimal("ENDPOINT_MAX_BATCH_DELAY_MS", base.max_batch_delay_ms, 0.0),
            max_queue=variables.whole("ENDPOINT_MAX_QUEUE", base.max_queue),
            host_threads=variables.whole("ENDPOINT_HOST_THREADS", base.host_threads),
            body_timeout_s=variables.decimal("ENDPOINT_BODY_TIMEOUT_S", base.body_timeout_s, 0.1),
            deadline_s=variables.decimal("ENDPOINT_DEADLINE_S", base.deadline_s, 0.1),
            drain_s=variables.decimal("ENDPOINT_DRAIN_S", base.drain_s, 0.1),
            neuron_cores=variables.whole("NEURON_RT_NUM_CORES", 0) or None,
            manifest_sha256=variables.source.get("ENDPOINT_MANIFEST_SHA256", "").strip() or None,
            allowed_hosts=variables.hosts(ALLOWED_HOSTS),
            max_bodies=variables.whole("ENDPOINT_MAX_BODIES", base.max_bodies),
            transfer_bytes=variables.whole("ENDPOINT_TRANSFER_BYTES", base.transfer_bytes),
            head_timeout_s=variables.decimal("ENDPOINT_HEAD_TIMEOUT_S", base.head_timeout_s, 0.1),
            least_rate=variables.whole("ENDPOINT_LEAST_RATE", base.least_rate),
            rate_window_s=variables.decimal("ENDPOINT_RATE_WINDOW_S", base.rate_window_s, 0.1),
        )
        if variables.problems:
            raise LoadError("; ".join(variables.problems))
        return settings


class _Variables:
    """Reads numbers and names, and collects what is wrong with them."""

    def __init__(self, source: Mapping[str, str]) -> None:
        self.source = source
        self.problems: list[str] = []

    def whole(self, name: str, default: int) -> int:
        """A whole number, at least 1; `default` when the variable is not set."""
        text = self.source.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= 1):
            self.problems.append(f"{name} is {text[:40]!r}, it must be a whole number, at least 1")
            return default
        return int(text) if text else default

    def decimal(self, name: str, default: float, least: float) -> float:
        """A number, at least `least`; `default` when the variable is not set."""
        text = self.source.get(name, "").strip()
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            self.problems.append(f"{name} is {text[:40]!r}, it must be a number, at least {least:g}")
        return value

    def hosts(self, name: str) -> tuple[str, ...]:
        """Hosts with or without a port, separated by commas; none when the variable is not set."""
        text = self.source.get(name, "").strip()
        given = [one.strip() for one in text.split(",")] if text else []
        bad = [one for one in given if read_host(one) is None]
        if bad:
            shown = ", ".join(repr(one[:40]) for one in bad[:5])
            self.problems.append(f"{name} has {shown}, each must be name or name:port, separated by commas")
        return tuple(host for host in map(read_host, given) if host is not None)


def read_host(text: str) -> str | None:
    """`text`, name or name:port, as a client sends it in Host; None where it is neither."""
    lower = text.lower() if text.isascii() else ""
    found = _HOST.fullmatch(lower)
    if found is None:
        found = _HOST_V6.fullmatch(lower)
        if found is None or not _is_v6(found[1]):
            return None
    name = found[1] if ":" not in found[1] else f"[{ipaddress.IPv6Address(found[1])}]"
    return f"{name}{found[2]}" if int(found[2][1:] or 1) <= 65535 else None


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
