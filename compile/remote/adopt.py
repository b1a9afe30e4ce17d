"""`adopt`: variants that jobs compiled become the build of this project, on the proofs of the graphs that were sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import CompileError, UsageError
from compile.files import staging
from compile.pipeline.build import Result, finish
from compile.pipeline.cache import Cache, unpack
from compile.pipeline.capture import capture
from compile.pipeline.compiling import completed, lowered
from compile.pipeline.graph import Places
from compile.progress import Reporter
from compile.remote.bundle import planned
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from endpoint_spec.lock import artifact_path

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


def adopt(spec: EndpointSpec, folder: Path, *, rehearse: bool, reporter: Reporter, cache: Cache) -> Result:
    """Assembles artifact and lock from `folder`: plan.json and variants/KEY/variant.tar.

    Raises CompileError, and changes nothing: a rehearsal where none is wanted, or the reverse; another endpoint; a
    spec, weights or code that changed meanwhile; graphs that come out otherwise here; a variant that is missing,
    damaged, or not what the spec accepts; variants of different compilers.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", "Name the one with plan.json and variants/.")
    plan = jobs.read_plan(folder / jobs.PLAN)
    _require_wanted(spec, plan, folder, rehearse)
    resolved = planned(spec, rehearse, reporter)
    with staging(artifact_path(spec, rehearse).parent) as scratch:
        places = Places.inside(scratch, resolved.plan.record)
        captured, _ = capture(resolved, places, reporter, cache)
        sent = {job.label: job for job in plan.variants}
        made = []
        for one in captured:
            job = sent.get(str(one.variant))
            if job is None or job.graph != one.graph:
                raise CompileError(
                    f"{one.variant}: the graph that is captured here is {one.graph}, the run was given "
                    f"{job.graph if job else 'none'}.",
                    "Adopt it on the machine that submitted it, with the libraries of then, or submit it again.",
                )
            ready = lowered(resolved, one, places)
            with reporter.step(f"compiled: {one.variant}"):
                unpack(folder / "variants" / job.key / jobs.VARIANT, job.key, ready.work)
            made.append(completed(resolved, one, resolved.plan.target.judged(ready), job.key, places))
        return finish(resolved, made, places, scratch, reporter)


def _require_wanted(spec: EndpointSpec, plan: jobs.Plan, folder: Path, rehearse: bool) -> None:
    if plan.name != spec.name:
        raise CompileError(f"The run is of {plan.name}, not of {spec.name}.", "Nothing was changed.")
    if plan.rehearsal and not rehearse:
        raise CompileError(
            f"The run is a rehearsal of {spec.name}, not compiled for {spec.compile.target}.",
            "Nothing was changed. Add --rehearse to take it as one.",
        )
    if rehearse and not plan.rehearsal:
        raise CompileError(
            f"The run is no rehearsal of {spec.name}: it was compiled for {spec.compile.target}.",
            "Nothing was changed. Leave out --rehearse to take it.",
        )
    wanted = build_digest(spec)
    if plan.build_digest != wanted:
        command = f"inferentia adopt {spec.name} --from {folder}" + (" --rehearse" if rehearse else "")
        raise CompileError(
            f"{spec.name} changed since it was sent: the run built {plan.build_digest}, the spec is now {wanted}.",
            f"Nothing was changed. Submit it again, or undo the change and run: {command}",
        )
