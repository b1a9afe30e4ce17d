"""The bundle: everything that a compile job needs of this machine, in one folder that is the same wherever it is made.

start.sh         begins a job
archives.py      unpacks project.tar.gz
project.tar.gz   code/ (the rooms spec, compile, inference_code) and project/ (the spec and the user's own files)
plan.json        the variants with their keys, and the sha256 of every other file
weights/         the weights file, at the path that it has in the project
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compile.analysis import capacity
from compile.errors import CompileError, UsageError
from compile.files import copy, link, staging
from compile.frontend import weights
from compile.packaging import archive as package
from compile.pipeline import plan as plans
from compile.pipeline.cache_key import here
from compile.progress import Reporter
from compile.targets import Target
from endpoint_spec import archives, jobs, platforms
from endpoint_spec.digests import definition_code, local_sources, rewrites_code, text_digest
from endpoint_spec.places import INSTALLED
from endpoint_spec.weights import INDEX, RandomWeights, shards

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_ROOMS = ("endpoint_spec", "compile", "inference_code")
_SCRIPT = Path(__file__).with_name(jobs.START)
_READER = Path(archives.__file__)


def make(spec: EndpointSpec, to: Path, *, rehearse: bool, reporter: Reporter, environment: str = "") -> jobs.Plan:
    """Makes the bundle in `to`, a folder that is empty or not there yet, and returns its plan.

    environment: words that tell one machine that compiles from another, such as an AMI id; they enter the keys.
    Raises UsageError for a folder that holds something; CompileError for weights that cannot be had, and for a matrix
    that does not fit the instance.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} is not an empty folder.", "Name another one with --to.")
    with reporter.step("make the model"):
        planned = plans.plan(spec, rehearse=rehearse, check=False)
    if not rehearse:
        capacity.require_fit(spec, plans.survey(planned, reporter).variants)
    known = _environment(planned.target, spec, environment)
    resolved = plans.resolve(planned, reporter, known)
    with staging(to.absolute().parent) as scratch, reporter.step("bundle"):
        folder = scratch / "bundle"
        folder.mkdir()
        _project(spec, scratch / "tree", folder / jobs.PROJECT)
        shutil.copyfile(_SCRIPT, folder / jobs.START)
        shutil.copyfile(_READER, folder / _READER.name)
        _weights(spec, folder / jobs.WEIGHTS)
        plan = _plan(resolved, known, jobs.tree_digests(folder))
        (folder / jobs.PLAN).write_text(jobs.dump(plan), encoding="utf-8", newline="\n")
        folder.replace(to)
    return plan


def _plan(resolved: plans.ResolvedPlan, environment: dict[str, str], files: dict[str, str]) -> jobs.Plan:
    planned, spec = resolved.plan, resolved.plan.spec
    variants = [
        jobs.VariantJob(
            index=index,
            role=variant.role,
            bucket={axis: size if isinstance(size, int) else list(size) for axis, size in variant.bucket.items()},
            batch=variant.batch,
            label=str(variant),
            key=resolved.keys[variant.file],
        )
        for index, variant in enumerate(planned.variants)
    ]
    return jobs.Plan(
        name=spec.name,
        build_digest=resolved.digest,
        target=spec.compile.target,
        rehearsal=planned.target.rehearsal,
        where=spec.job.where if spec.job else "processing",
        environment=environment,
        variants=variants,
        files=files,
    )


def _environment(target: Target, spec: EndpointSpec, more: str) -> dict[str, str]:
    """What is known here of the machine that will compile: in a rehearsal its versions, otherwise what brings them."""
    known = {"environment": more} if more else {}
    if target.rehearsal:
        return here(target) | known
    image = platforms.image(spec.compile.target, "torchserve")
    known |= {"image": f"{image.repository}:{image.tag}", "stand_in": str(stand_in(target))}
    wheels = INSTALLED / "requirements" / f"job-{spec.compile.target}.txt"
    return known | ({"wheels": text_digest(wheels)} if wheels.is_file() else {})


def stand_in(target: Target) -> bool:
    """Whether a test's stand-in answers for the compiler here; without a compiler nothing does."""
    try:
        return target.stand_in
    except CompileError:
        return False


def _project(spec: EndpointSpec, tree: Path, archive: Path) -> None:
    for room in _ROOMS:
        for source in _code(INSTALLED / room):
            copy(source, tree / "code" / source.relative_to(INSTALLED))
    copy(spec.path, tree / "project" / "endpoints" / spec.path.name)
    for name in _own_files(spec):
        copy(spec.root / name, tree / "project" / name)
    package.write_archive(tree, archive)


def _code(room: Path) -> Iterator[Path]:
    """The files of a room but what Python and editors leave lying."""
    for path in sorted(room.rglob("*")):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(room).parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield path


def _own_files(spec: EndpointSpec) -> set[str]:
    """The user's files, relative to the root: entry, rewrites and handler with their local modules."""
    names = set(rewrites_code(spec))
    if spec.model.entry is not None:
        names |= set(definition_code(spec))
    if spec.serve.handler is not None:
        home = spec.root.resolve()
        sources = local_sources(spec.root / spec.serve.handler, spec.root)
        names |= {source.relative_to(home).as_posix() for source in sources}
    return names


def _weights(spec: EndpointSpec, folder: Path) -> None:
    """The weights file, or an index with its files, at its path in the project. A link where the disk can have one."""
    source = spec.model.weights
    if isinstance(source, RandomWeights):
        return
    path, place = weights.locate(spec, source), folder / weights.carried(spec, source).relative_to(spec.root)
    if path.name.endswith(INDEX):
        place = place.with_name(path.name)
        for shard in shards(path):
            link(shard.resolve(), place.with_name(shard.name))
    link(path.resolve(), place)
