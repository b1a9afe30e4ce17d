"""What runs inside a compile job: one variant, or the gathering of all. No network, no other place than here."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import endpoint_spec as specs
from compile.analysis import capacity
from compile.errors import CompileError
from compile.files import link, place, staging
from compile.frontend import weights
from compile.pipeline import assemble
from compile.pipeline import graph as graphs
from compile.pipeline import plan as plans
from compile.pipeline.graph import CompiledVariant, Places
from compile.pipeline.graph_archive import pack, unpack
from compile.pipeline.plan import ResolvedPlan
from compile.progress import Reporter
from compile.remote.bundle import stand_in
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from inference_code.artifact.manifest import file_sha256

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


@dataclasses.dataclass(frozen=True)
class Job:
    """A job's own copy of the project, with the plan that it was sent with."""

    spec: EndpointSpec
    plan: jobs.Plan
    inputs: Path
    outputs: Path


def opened(inputs: Path, outputs: Path, root: Path) -> Job:
    """The job in `root`, with its weights put where the spec has them.

    Raises CompileError or JobError where the plan and the project that came with it are not of one build.
    """
    bundle = inputs / "project"
    plan = jobs.read_plan(bundle / jobs.PLAN)
    carried = bundle / jobs.WEIGHTS  # at the paths that they have in the project
    for source in sorted(path for path in carried.rglob("*") if path.is_file()):
        link(source, root / source.relative_to(carried))
    spec = specs.load(root / "endpoints" / f"{plan.name}.yaml", root=root)
    found = build_digest(spec)
    if found != plan.build_digest:
        raise CompileError(
            f"The project that came with the plan has the build digest {found}, the plan states {plan.build_digest}.",
            "Submit it again.",
        )
    return Job(spec, plan, inputs, outputs)


def compile_variant(job: Job, index: int, reporter: Reporter) -> CompiledVariant:
    """Compiles one variant into OUTPUTS/variant/variant.tar; OUTPUTS/record keeps the compiler's log, also of failures.

    Raises CompileError: no such variant, no compiler here, and whatever a build refuses.
    """
    if index >= len(job.plan.variants):
        raise CompileError(f"The plan has {len(job.plan.variants)} variants, there is none with the index {index}.")
    record = job.outputs / "record"
    record.mkdir(parents=True, exist_ok=True)
    resolved = _resolved(job, record, check=True, reporter=reporter)
    planned, asked = resolved.plan, job.plan.variants[index]
    _require_same(job, resolved, asked)
    with staging(job.spec.root / "build") as scratch:
        places = Places.inside(scratch, record)
        with reporter.step("load the weights"):
            weights.fill(job.spec, planned.definition, resolved.weights)
        ready = planned.analyzed(planned.variants[index], reporter)
        made = graphs.compile_variant(resolved, ready, places, reporter)
        assemble.require_parity([made])
        with reporter.step("pack the variant"):
            pack(made, places, job.outputs / "variant" / jobs.VARIANT)
    return made


def _require_same(job: Job, resolved: ResolvedPlan, asked: jobs.VariantJob) -> None:
    """The key is of what is here: no variant may get under the key of another."""
    plan, planned = job.plan, resolved.plan
    key = resolved.keys[planned.variants[asked.index].file]
    if key != asked.key:
        raise CompileError(
            f"The variant {asked.label} has the key {key} here, the plan states {asked.key}.",
            "Weights or code are not those that the plan was made of; submit it again.",
        )
    planned_with = plan.environment.get("stand_in")
    if planned_with != str(stand_in(planned.target)):
        raise CompileError(
            f"A stand-in for the Neuron SDK: {stand_in(planned.target)} here, {planned_with} where the plan was made.",
            "What a stand-in makes is for tests alone.",
        )


def _resolved(job: Job, record: Path, *, check: bool, reporter: Reporter) -> ResolvedPlan:
    planned = plans.plan(job.spec, rehearse=job.plan.rehearsal, check=check)
    planned = dataclasses.replace(planned, record=record)
    if [str(variant) for variant in planned.variants] != [asked.label for asked in job.plan.variants]:
        raise CompileError("The model has other graphs here than where the plan was made.", "Submit it again.")
    return plans.resolve(planned, reporter, job.plan.environment)


def gather(job: Job, reporter: Reporter) -> jobs.Result:
    """Makes OUTPUTS/result/ (artifact, lock, result.json) from INPUTS/variants/KEY/variant.tar. It compiles nothing.

    Raises CompileError naming a variant that is missing, damaged, or compiled with other versions than the first; and
    whatever a build refuses of finished graphs.
    """
    record, spec = job.outputs / "record", job.spec
    resolved = _resolved(job, record, check=False, reporter=reporter)
    planned = resolved.plan
    with staging(spec.root / "build") as scratch:
        places = Places.inside(scratch, record)
        variants = [_gathered(job, planned, asked, places, reporter) for asked in job.plan.variants]
        _require_one_origin(variants)
        if not planned.target.rehearsal:
            capacity.require_fit(spec, [made.footprint for made in variants if made.footprint is not None])
        lock = assemble.assemble(resolved, variants, scratch, reporter)
        return _write(lock, scratch, job.outputs / "result")


def _gathered(
    job: Job, planned: plans.Plan, asked: jobs.VariantJob, places: Places, reporter: Reporter
) -> CompiledVariant:
    file = job.inputs / "variants" / asked.key / jobs.VARIANT
    with reporter.step(f"variant: {asked.label}"):
        try:
            return unpack(file, asked.key, planned.variants[asked.index], places)
        except CompileError as error:
            raise CompileError(
                f"The variant {asked.label} cannot be gathered: {error.problem}",
                f"Remove jobs/{job.spec.name}/cache/{asked.key}/ from the artifact bucket and submit again.",
            ) from None


def _require_one_origin(variants: list[CompiledVariant]) -> None:
    """One artifact has one set of versions, and is a stand-in's altogether or not at all."""
    first = variants[0]
    for other in variants[1:]:
        found = {**other.versions, "stand-in": other.stand_in, "rehearsal": other.rehearsal}
        expected = {**first.versions, "stand-in": first.stand_in, "rehearsal": first.rehearsal}
        differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
        if differing:
            name = differing[0]
            raise CompileError(
                f"The variants were not made alike: {name} is {expected.get(name)} for {first.variant}, "
                f"{found.get(name)} for {other.variant}.",
                "Compile them in one environment: remove the older variants from the artifact bucket and submit again.",
            )


def _write(lock: specs.lock.Lock, scratch: Path, folder: Path) -> jobs.Result:
    """Artifact, lock and result, each under its name only when all are there; the result comes last."""
    text, described = scratch / jobs.LOCK, scratch / jobs.RESULT
    text.write_text(lock.dump(), encoding="utf-8", newline="\n")
    result = jobs.Result(
        name=lock.name,
        build_digest=lock.digests.build,
        artifact=jobs.ResultArtifact(sha256=lock.digests.artifact, key=lock.artifact.key, bytes=lock.artifact.bytes),
        lock_sha256=file_sha256(text),
        rehearsal=lock.rehearsal,
        stand_in=lock.stand_in,
    )
    described.write_text(jobs.dump(result), encoding="utf-8", newline="\n")
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(scratch / assemble.ARCHIVE, jobs.ARTIFACT), (text, jobs.LOCK), (described, jobs.RESULT)]
    for source, name in pairs:  # OUTPUTS may be another disk than the scratch folder's
        draft = folder / f".{name}.new"
        shutil.move(source, draft)
        place([(draft, folder / name)])
    return result
