"""The sample of a lock: one request, and what the packaged artifact's own code answers to it on this machine."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.definition import SampleRequest
from compile.errors import CompileError
from compile.packaging import archive as package
from compile.packaging.local_server import Answer, running
from endpoint_spec import derive
from endpoint_spec import lock as locks

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

# Another CPU adds in another order: 1e-4 of the answer's maximum lets that through and nothing that matters.
RELATIVE_TOLERANCE = 1e-4
_VALUES = 64
_SEED = 20


def take(spec: EndpointSpec, draft: locks.Lock, asked: SampleRequest, archive: Path, scratch: Path) -> locks.Sample:
    """Unpacks the archive, runs its code in a process of its own, and records the answer.

    Where the lock is of a chip's graphs, the archive holds those for a CPU: the tolerance is then the device's.
    Raises CompileError with the worker's last lines when it does not answer.
    """
    folder = scratch / "unpacked"
    package.extract(archive, folder)
    with running(folder, environment(spec, draft), scratch / "worker.log") as worker:
        answer = worker.invoke(asked.body, asked.content_type, asked.accept)
    found = recorded(answer)
    if not draft.on_cpu:
        allowed = spec.compile.accept.device_tolerance
        # A cosine similarity c lets a vector be sqrt(2 (1 - c)) of its length away.
        share = allowed.get("relative", math.sqrt(max(0.0, 2 * (1 - allowed.get("cosine", 1.0)))))
        tolerance = max(found.tolerance * max(1.0, share / RELATIVE_TOLERANCE), allowed.get("absolute", 0.0))
        found = found.model_copy(update={"tolerance": tolerance})
    request = locks.SampleRequest(
        content_type=asked.content_type,
        accept=asked.accept,
        body=base64.b64encode(asked.body).decode(),
        neighbour=None if asked.neighbour is None else base64.b64encode(asked.neighbour).decode(),
    )
    return locks.Sample(request=request, answer=found)


def environment(spec: EndpointSpec, lock: locks.Lock) -> dict[str, str]:
    """The container's environment, with one worker: this machine serves one request at a time."""
    planned = derive.worker_environment(spec, lock)
    kept = {key: value for key, value in planned.items() if key.startswith("ENDPOINT_")}
    del kept[derive.MANIFEST_VARIABLE]  # of the target's artifact, which the CPU's has other graphs than
    return {**kept, "ENDPOINT_WORKERS": "1", "ENDPOINT_PROCESSES": "1", "ENDPOINT_SERVER": "native"}


def recorded(answer: Answer) -> locks.SampleAnswer:
    """An answer as the lock keeps it: 64 values of an array, or the whole JSON."""
    kind = answer.content_type.partition(";")[0].strip()
    if kind == "application/x-npy":
        return _array(answer)
    if kind == "application/json":
        value = json.loads(answer.body)
        tolerance = RELATIVE_TOLERANCE * max(map(abs, numbers(value)), default=0.0)
        content = {"content_type": answer.content_type, "json": value, "tolerance": tolerance}
        return locks.SampleAnswer.model_validate(content)
    raise CompileError(
        f"The sample was answered as {answer.content_type}, which cannot be compared by value.",
        "Give a sample whose accept is application/x-npy or application/json.",
    )


def _array(answer: Answer) -> locks.SampleAnswer:
    array = np.load(io.BytesIO(answer.body), allow_pickle=False)
    count = min(_VALUES, array.size)
    positions = np.sort(np.random.default_rng(_SEED).choice(array.size, count, replace=False))
    return locks.SampleAnswer(
        content_type=answer.content_type,
        shape=list(array.shape),
        dtype=str(array.dtype),
        positions=[int(position) for position in positions],
        values=[float(value) for value in array.reshape(-1)[positions]],
        tolerance=RELATIVE_TOLERANCE * float(np.abs(array.astype(np.float64)).max(initial=0.0)),
    )


def numbers(value: Any) -> list[float]:
    """Every number in a JSON value."""
    if isinstance(value, (list, dict)):
        children = value.values() if isinstance(value, dict) else value
        return [number for child in children for number in numbers(child)]
    return [float(value)] if _is_number(value) else []


def difference(answer: Answer, expected: locks.SampleAnswer) -> float:
    """The largest absolute difference of an answer from the recorded one; infinite when it is of another form."""
    found = recorded(answer)
    if expected.positions is None:
        return _apart(found.json_value, expected.json_value)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return math.inf
    return _apart(found.values, expected.values)


def _apart(one: Any, other: Any) -> float:
    """The largest difference of two numbers at the same place of two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return math.inf
        return max((_apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return math.inf
        return max((_apart(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if _is_number(one) and _is_number(other):
        return abs(float(one) - float(other))
    return 0.0 if one == other else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
