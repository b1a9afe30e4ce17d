"""Start a run: have compile make the bundle, upload it with the wheels, and start the state machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endpoint_spec as specs
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from endpoint_spec.lock import load_checked

from ..account import Account
from ..errors import OperationError, WrongUseError
from . import compile_stack, content, wheels
from .compiling import compile_command
from .content import Folder, Uploading
from .run import Run


@dataclass(frozen=True)
class Reporter:
    """What a submission reports while it works: a step's beginning, and an upload."""

    step: Callable[[str], None]
    uploading: Uploading


def submit(
    spec: specs.EndpointSpec, account: Account, folder: Path | None, reporter: Reporter, *, rehearsal: bool
) -> Run:
    """Start a run for a spec; `folder` holds the wheels to install (None: the machine's own compiler is used).

    Raises:
        WrongUseError: no job section, a set of wheels that is not whole.
        OperationError: a stack that is not there or does not fit, a run of this build that is running, a bundle that
            cannot be made, a bucket that cannot be written. Nothing was started then.
    """
    compile_stack.job_of(spec)
    if rehearsal:
        account.guard(what=f"{spec.name} is a rehearsal and")
    parent = spec.root / "build" / "jobs"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{spec.name}-") as scratch:
        installed = wheels.chosen(folder, Path(scratch) / "wheels")
        stack = compile_stack.find(spec, account)
        bucket = account.artifact_bucket
        refuse_second(spec, account, stack)
        reporter.step(f"{spec.name}: capturing and bundling here")
        # They bring the compiler: one of another version must not find in the cache what this one made.
        brought = [f"wheels {installed.digest}", *filter(None, [stack.machine_image])]
        environment = "" if rehearsal else " ".join(brought)
        made = make_bundle(spec.name, spec.root, Path(scratch) / "bundle", environment, rehearsal=rehearsal)
        _upload(account, bucket, jobs.wheels_prefix(spec.name, installed.digest), installed, reporter)
        _upload(account, bucket, jobs.inputs_prefix(spec.name, made.content.digest), made.content, reporter)
        reporter.step(f"{spec.name}: starting")
        execution = compile_stack.start(account, stack, made.plan, _input(bucket, made, installed))
    return Run(account, stack, spec.name, execution)


def refuse_second(spec: specs.EndpointSpec, account: Account, stack: compile_stack.CompileStack) -> None:
    """Before anything is bundled: a run of this build that is running would only refuse this one later."""
    stem = jobs.run_stem(spec.name, build_digest(spec))
    for one in compile_stack.runs(account, stack):
        if one.running and one.run.startswith(stem):
            raise compile_stack.already_running(one)


def _upload(account: Account, bucket: str, prefix: str, folder: Folder, reporter: Reporter) -> None:
    with reporter.uploading(f"s3://{bucket}/{prefix}", sum(folder.sizes.values())) as sent:
        content.upload(account, bucket, prefix, folder, sent)


def _input(bucket: str, made: Bundle, installed: Folder) -> dict[str, Any]:
    """The input of the state machine, but for the run's name."""
    plan = made.plan
    return {
        "bucket": bucket,
        "build_digest": plan.build_digest,
        "project": jobs.inputs_prefix(plan.name, made.content.digest),
        "wheels": jobs.wheels_prefix(plan.name, installed.digest),
        "variants": [
            {"index": str(variant.index), "key": variant.key, "label": variant.label} for variant in plan.variants
        ],
    }


def find(spec: specs.EndpointSpec, account: Account, name: str | None) -> Run:
    """The run that `attach` means: the one named, else the newest that is running, else the newest.

    Raises:
        WrongUseError: no job section.
        OperationError: no such run.
    """
    stack = compile_stack.find(spec, account)
    known = compile_stack.runs(account, stack)
    chosen = [one for one in known if one.run == name] if name else [*(one for one in known if one.running), *known]
    if not chosen:
        there = ", ".join(one.run for one in known[:5]) or "none yet"
        raise OperationError(
            f"there is no run {name or f'of {spec.name}'} (runs: {there}). Start one: inferentia submit {spec.name}"
        )
    return Run(account, stack, spec.name, compile_stack.describe(account, chosen[0].arn))


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine."""

    plan: jobs.Plan
    content: Folder


def make_bundle(name: str, root: Path, folder: Path, environment: str, *, rehearsal: bool) -> Bundle:
    """Have `inferentia bundle` capture and prove the model, make the bundle in `folder`, and read its plan.

    environment: what else decides what comes out of the jobs, for the keys of the compile cache; empty for nothing.

    Raises:
        OperationError: what compile reported, or a plan that this version cannot read.
    """
    more = (["--environment", environment] if environment else []) + (["--rehearse"] if rehearsal else [])
    compile_command(root, "bundle", name, "--to", str(folder), *more)
    try:
        plan = jobs.read_plan(folder / jobs.PLAN)
    except jobs.JobError as error:
        raise OperationError(f"{error} compile and operations must be of one version.") from error
    # A prefix that holds the plan holds everything: it is uploaded last.
    return Bundle(plan, Folder(folder, jobs.tree_digests(folder), last=jobs.PLAN))


@dataclass(frozen=True)
class Choice:
    """One file of endpoints/. spec is None where it is faulty; reason says why it is, or is not, submitted."""

    name: str
    spec: specs.EndpointSpec | None
    submitted: bool
    reason: str


def choices(root: Path, *, rehearsal: bool) -> list[Choice]:
    """Every spec of endpoints/ with the decision on it.

    Raises:
        WrongUseError: where there is no spec at all.
    """
    files = sorted((root / "endpoints").glob("*.yaml"))
    if not files:
        raise WrongUseError(f"{root / 'endpoints'} holds no spec; there is nothing to submit.")
    return [_choice(file, root, rehearsal) for file in files]


def _choice(file: Path, root: Path, rehearsal: bool) -> Choice:
    try:
        spec = specs.load(file, root=root)
        wanted = build_digest(spec)
    except specs.SpecErrors as error:
        return Choice(file.stem, None, False, f"is faulty: {str(error).splitlines()[0]}")
    if spec.job is None:
        return Choice(spec.name, spec, False, "has no section job:, so it is not compiled in an account")
    locked = _locked(spec, rehearsal)
    if locked == wanted:
        return Choice(spec.name, spec, False, f"is locked: build {wanted[:12]}")
    return Choice(spec.name, spec, True, f"is built {locked[:12]}, wanted {wanted[:12]}" if locked else "has no lock")


def _locked(spec: specs.EndpointSpec, rehearsal: bool) -> str | None:
    """The build digest of the lock, None where no lock counts."""
    lock, _ = load_checked(spec, rehearsal)  # one that is damaged or of an older format is replaced by what a run makes
    counts = lock is not None and lock.name == spec.name and lock.rehearsal == rehearsal
    return lock.digests.build if counts and lock is not None else None
