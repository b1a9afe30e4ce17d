"""What the worker's environment says. Each variable has a default that is written here.

variable                     default       meaning
ENDPOINT_MAX_PIXELS          40000000      pixels of a picture, width x height
ENDPOINT_MAX_ITEMS           16            items of one request
ENDPOINT_REQUEST_BYTES       26214400      bytes of a request's body (25 MiB)
ENDPOINT_RESPONSE_BYTES      26214400      bytes of an answer's body (25 MiB)
ENDPOINT_WORKERS             1             workers that serve.server was planned with
ENDPOINT_CORES_PER_WORKER    (no check)    NeuronCores planned for each worker
ENDPOINT_MAX_BATCH_DELAY_MS  5             longest wait for a batch to fill, while every core is busy
ENDPOINT_MAX_QUEUE           64            requests in the native server at once; more are answered 503
ENDPOINT_BODY_TIMEOUT_S      60            seconds for a request's body to arrive (SageMaker's own limit)
NEURON_RT_NUM_CORES          (unset)       NeuronCores of this process
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from inference_code.errors import LoadError


@dataclass(frozen=True)
class Limits:
    """What a request and its answer may be at most: pixels, items, bytes, bytes."""

    pixels: int = 40_000_000
    items: int = 16
    request_bytes: int = 25 * 1024 * 1024
    response_bytes: int = 25 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """The worker's settings; units are in the names. None: the variable is not set."""

    limits: Limits = Limits()
    workers: int = 1
    cores_per_worker: int | None = None
    max_batch_delay_ms: float = 5.0
    max_queue: int = 64
    body_timeout_s: float = 60.0
    neuron_cores: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables above from `environment` (default: os.environ). Raises LoadError naming all bad ones."""
        source = os.environ if environment is None else environment
        problems: list[str] = []

        def number(name: str, default: float | None, least: float, kind: type) -> float | None:
            text = source.get(name, "").strip()
            if not text:
                return default
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not least <= value < float("inf"):
                sort = "whole number" if kind is int else "number"
                problems.append(f"{name} is {text[:40]!r}, it must be a {sort}, at least {least:g}")
                return default
            return float(value) if kind is float else int(value)

        def whole(name: str, default: int) -> int:
            return int(number(name, default, 1, int) or default)

        def core_count(name: str) -> int | None:
            value = number(name, None, 1, int)
            return None if value is None else int(value)

        base = Limits()
        settings = cls(
            limits=Limits(
                pixels=whole("ENDPOINT_MAX_PIXELS", base.pixels),
                items=whole("ENDPOINT_MAX_ITEMS", base.items),
                request_bytes=whole("ENDPOINT_REQUEST_BYTES", base.request_bytes),
                response_bytes=whole("ENDPOINT_RESPONSE_BYTES", base.response_bytes),
            ),
            workers=whole("ENDPOINT_WORKERS", 1),
            cores_per_worker=core_count("ENDPOINT_CORES_PER_WORKER"),
            max_batch_delay_ms=float(number("ENDPOINT_MAX_BATCH_DELAY_MS", 5.0, 0, float) or 0.0),
            max_queue=whole("ENDPOINT_MAX_QUEUE", 64),
            body_timeout_s=float(number("ENDPOINT_BODY_TIMEOUT_S", 60.0, 0.1, float) or 60.0),
            neuron_cores=core_count("NEURON_RT_NUM_CORES"),
        )
        if problems:
            raise LoadError("; ".join(problems))
        return settings
