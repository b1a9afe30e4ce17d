"""Start a run: bundle, upload, tell the state machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endpoint_spec as specs
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from operations.account import ARTIFACTS_STACK, Account
from operations.errors import OperationError
from operations.jobs import bundle, compile_stack, content, executions, wheels
from operations.jobs.content import Folder
from operations.jobs.run import Run


@dataclass(frozen=True)
class Reporter:
    """What a submission tells while it works: a step's beginning, and an upload's size and bytes sent."""

    step: Callable[[str], None]
    uploading: Callable[[str, int], Callable[[int], None]]


def submit(
    spec: specs.EndpointSpec, account: Account, folder: Path | None, reporter: Reporter, *, rehearsal: bool
) -> Run:
    """Start a run for a spec; `folder` holds the wheels to install (None: an empty set, in a rehearsal only).

    Raises:
        WrongUseError: no job section, no set of wheels, a set that is not whole.
        OperationError: a stack that is not there or does not fit, a run of this build that is going on, a bundle that
            cannot be made, a bucket that cannot be written. Nothing was started then.
    """
    compile_stack.job_of(spec)
    if rehearsal:
        account.guard(what=f"{spec.name} is a rehearsal and")
    home = spec.root / "build" / "jobs"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f"{spec.name}-") as scratch:
        installed = wheels.chosen(folder, Path(scratch) / "wheels", rehearsal=rehearsal)
        stack = compile_stack.find(spec, account)
        bucket = account.output(ARTIFACTS_STACK, "ArtifactBucketName")
        refuse_second(spec, account, stack)
        reporter.step(f"{spec.name}: bundling")
        # They bring the compiler: one of another version must not find in the cache what this one made.
        brought = [f"wheels {installed.digest}", *filter(None, [stack.machine_image])]
        environment = "" if rehearsal else " ".join(brought)
        made = bundle.make(spec.name, spec.root, Path(scratch) / "bundle", environment, rehearsal=rehearsal)
        _upload(account, bucket, jobs.wheels_prefix(spec.name, installed.digest), installed, reporter)
        _upload(account, bucket, jobs.inputs_prefix(spec.name, made.content.digest), made.content, reporter)
        reporter.step(f"{spec.name}: starting")
        execution = executions.start(
            account, stack, made.plan, lambda run: _told(account, bucket, made, installed, run)
        )
    return Run(account, stack, spec.name, execution)


def refuse_second(spec: specs.EndpointSpec, account: Account, stack: compile_stack.CompileStack) -> None:
    """Before anything is bundled: a run of this build that is going on would only refuse this one later."""
    stem = jobs.run_stem(spec.name, build_digest(spec))
    for one in executions.runs(account, stack):
        if one.running and one.run.startswith(stem):
            raise executions.already_running(one)


def _upload(account: Account, bucket: str, prefix: str, folder: Folder, reporter: Reporter) -> None:
    size = sum(folder.sizes.values())
    content.upload(account, bucket, prefix, folder, reporter.uploading(f"s3://{bucket}/{prefix}", size))


def _told(account: Account, bucket: str, made: bundle.Bundle, installed: Folder, run: str) -> dict[str, Any]:
    """What the state machine is told, after the manifest of the run's variants was written."""
    plan = made.plan
    manifest = jobs.variants_manifest_key(plan.name, run)
    body = jobs.variants_manifest(bucket, plan.name, [variant.key for variant in plan.variants])
    content.put(account, bucket, manifest, body.encode())
    return {
        "bucket": bucket,
        "build_digest": plan.build_digest,
        "project": jobs.inputs_prefix(plan.name, made.content.digest),
        "wheels": jobs.wheels_prefix(plan.name, installed.digest),
        "variants": [
            {"index": str(variant.index), "key": variant.key, "label": variant.label} for variant in plan.variants
        ],
        "manifest": manifest,
    }


def find(spec: specs.EndpointSpec, account: Account, name: str | None) -> Run:
    """The run that `attach` means: the one named, else the newest that goes on, else the newest.

    Raises:
        WrongUseError: no job section.
        OperationError: no such run.
    """
    stack = compile_stack.find(spec, account)
    known = executions.runs(account, stack)
    chosen = [one for one in known if one.run == name] if name else [*filter(_goes_on, known), *known]
    if not chosen:
        there = ", ".join(one.run for one in known[:5]) or "none yet"
        raise OperationError(
            f"there is no run {name or f'of {spec.name}'} (runs: {there}). "
            f"Start one: python -m operations submit {spec.name}"
        )
    return Run(account, stack, spec.name, executions.describe(account, chosen[0].arn))


def _goes_on(one: executions.Execution) -> bool:
    return one.running
