"""One variant compiled by the driver in the compiler's Python, and what the driver left of it in its folder."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from compile.errors import CompileError
from compile.files import shown, write_json
from compile.portable import diagnosis
from compile.portable import tensors as tensor_files
from compile.portable.diagnosis import Finding
from compile.portable.kept import ANSWERS
from compile.portable.process import COST, LOG, REQUEST, RESULT, Cost, watch
from compile.targets.base import CompilerInput, LoweredVariant
from compile.targets.sdk import environment
from endpoint_spec import archives
from endpoint_spec.quantities import format_duration

_LOG = logging.getLogger(__name__)
# The SDK's own timeout (compiler_timeout) comes first where there is one: its message is more precise than ours.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Finished:
    """A variant that was compiled. neuron_nodes: calls of compiled code in the graph. operators: the other ones.
    found: the Python that compiled, as driver.found has it. replayed, answers: as CompilerOutput has them."""

    text: str
    cost: Cost
    found: dict[str, Any]
    neuron_nodes: int
    operators: dict[str, int]
    replayed: dict[str, float]
    answers: list[list[Tensor]] | None


def run(lowered: LoweredVariant, given: CompilerInput, python: Path) -> None:
    """Compiles a variant in `lowered.work`, with a Python that has the compiler. Raises CompileError with the log's own
    line, the cause and the way out when that fails."""
    shutil.rmtree(lowered.work, ignore_errors=True)  # the record of the build before
    workdir = lowered.work / "compiler"
    workdir.mkdir(parents=True)
    unpacked = lowered.work / "graph"
    archives.extract(given.graph, unpacked, compressed=False)
    trials = unpacked / "trials.safetensors"
    given.trials.write(trials)
    paths = {"graph": unpacked, "workdir": workdir, "trial_file": trials}
    request = {**given.request, "variant": 0, **{name: str(path.resolve()) for name, path in paths.items()}}
    write_json(lowered.work / REQUEST, request)
    log, timeout = lowered.work / LOG, lowered.spec.compile.timeout
    try:
        limit = timeout / timedelta(seconds=1) + GRACE_SECONDS
        code, timed_out, cost = watch(str(python), lowered.work, log, limit, environment(python))
    finally:
        shutil.rmtree(unpacked)
    _LOG.info("%s: compiler's exit code %d after %.1f s, see %s", lowered.variant, code, cost.seconds, log)
    if code != 0 or not (lowered.work / RESULT).is_file():
        text = log.read_text(encoding="utf-8", errors="replace")
        finding = diagnosis.ended(text, code, timed_out, format_duration(timeout), cost)
        raise failure(lowered, text, finding)


def finished(lowered: LoweredVariant) -> Finished:
    """What the driver left in `lowered.work`."""
    made = json.loads((lowered.work / RESULT).read_text(encoding="utf-8"))
    answers = None
    if made["answers"] is not None:
        tensors = tensor_files.read(lowered.work / ANSWERS)
        answers = [[tensors[digest] for digest in answer] for answer in made["answers"]]
    return Finished(
        text=(lowered.work / LOG).read_text(encoding="utf-8", errors="replace"),
        cost=Cost(**json.loads((lowered.work / COST).read_text(encoding="utf-8"))),
        found=made["found"],
        neuron_nodes=made["neuron_nodes"],
        operators=made["operators"],
        replayed={one["output"]: one["error"] for one in made["replayed"]},
        answers=answers,
    )


def failure(lowered: LoweredVariant, text: str, finding: Finding) -> CompileError:
    """The error for a finding in a variant's log; log and work directory are kept."""
    fallback = diagnosis.line_with(text, r"falling back to native python function call")
    also = f"\n    and then: {fallback}" if fallback and fallback != finding.line else ""
    cause = str(finding).removeprefix(f"{lowered.variant}: ")
    record = f"\n    record: {shown(lowered.work, lowered.spec.root)} (log: {LOG})" if finding.line else ""
    return CompileError(f"{lowered.variant}: {cause}{also}{record}", f"{finding.remedy} No artifact was written.")
