"""The bundle: everything that a compile job needs of this machine, in one folder that is the same wherever it is made.

plan.json           the variants with keys and what the driver is asked of each, and the sha256 of every other file
graph/              the graphs with their reference inputs and outputs: graph.json and tensors.safetensors
trials.safetensors  what a chip is asked, where one is
code/               compile/portable: what reads the graphs, replays and compiles them

Nothing of the user's code, and no library, is in it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import CompileError, UsageError
from compile.files import copy, staging
from compile.pipeline.cache import Cache
from compile.pipeline.cache_key import compiled_key, driver_files
from compile.pipeline.capture import capture
from compile.pipeline.compiling import request
from compile.pipeline.graph import CapturedVariant, Places
from compile.pipeline.plan import ResolvedPlan, plan, resolve
from compile.portable.tensors import TensorStore
from compile.progress import Reporter
from endpoint_spec import archives, derive, jobs
from endpoint_spec.places import INSTALLED

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_GRAPH = "model.graph"


def make(
    spec: EndpointSpec, to: Path, *, rehearse: bool, reporter: Reporter, cache: Cache, environment: str = ""
) -> jobs.Plan:
    """Captures and proves the model, makes the bundle in `to`, a folder that is empty or not there yet, and returns its
    plan. What was captured stays in the cache, where `adopt` finds it.

    environment: words that tell one machine that compiles from another, such as an AMI id; they enter the keys.
    Raises UsageError for a folder that holds something; CompileError for what a build refuses before it compiles.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} is not an empty folder.", "Name another one with --to.")
    resolved = planned(spec, rehearse, reporter)
    with staging(to.absolute().parent) as scratch:
        places = Places.inside(scratch, resolved.plan.record)
        captured, _ = capture(resolved, places, reporter, cache)
        with reporter.step("bundle"):
            folder = scratch / "bundle"
            places.captures.write(scratch / _GRAPH, resolved.header, [one.variant.file for one in captured])
            archives.extract(scratch / _GRAPH, folder / jobs.GRAPH, compressed=False)
            store = TensorStore()
            variants = _variants(resolved, captured, places, store, environment)
            store.write(folder / jobs.TRIALS)
            for source in (INSTALLED / "compile" / "__init__.py", *driver_files()):
                copy(source, folder / jobs.CODE / source.relative_to(INSTALLED))
            made = jobs.Plan(
                name=spec.name,
                build_digest=resolved.digest,
                target=spec.compile.target,
                rehearsal=rehearse,
                where=spec.job.where if spec.job else "processing",
                timeout=spec.compile.timeout / timedelta(seconds=1),
                environment=_environment(spec, environment),
                variants=variants,
                files=jobs.tree_digests(folder),
            )
            (folder / jobs.PLAN).write_text(jobs.dump(made), encoding="utf-8", newline="\n")
            folder.replace(to)
    return made


def planned(spec: EndpointSpec, rehearse: bool, reporter: Reporter) -> ResolvedPlan:
    """The build of a spec that jobs compile: with the target's versions of the container's image.

    Raises CompileError for the target cpu, which no compiler is asked for.
    """
    if spec.compile.target == "cpu":
        raise CompileError(
            f"{spec.name} is for the target cpu, of which nothing is compiled elsewhere.",
            f"Run: inferentia build {spec.name}",
        )
    with reporter.step("make the model"):
        made = plan(spec, rehearse=rehearse, check=False, elsewhere=derive.container_image(spec, "torchserve"))
    return resolve(made, reporter)


def _variants(
    resolved: ResolvedPlan, captured: list[CapturedVariant], places: Places, store: TensorStore, environment: str
) -> list[jobs.VariantJob]:
    found, known = [], _environment(resolved.plan.spec, environment)
    for index, one in enumerate(captured):
        asked = request(resolved, one, places, store)
        found.append(
            jobs.VariantJob(
                index=index,
                label=str(one.variant),
                slug=one.variant.slug,
                key=compiled_key(one.graph, asked, known),
                graph=one.graph,
                request=asked,
            )
        )
    return found


def _environment(spec: EndpointSpec, more: str) -> dict[str, str]:
    """What is known here of the machine that will compile."""
    image = derive.container_image(spec, "torchserve")
    return {"image": f"{image.repository}:{image.tag}", **({"environment": more} if more else {})}
