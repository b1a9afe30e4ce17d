"""What a compile job is given: made by `python -m compile bundle`, read here by its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from endpoint_spec import jobs
from operations.errors import OperationError
from operations.jobs.compiling import compile_command
from operations.jobs.content import Folder


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine."""

    plan: jobs.Plan
    content: Folder


def make(name: str, root: Path, folder: Path, environment: str, *, rehearsal: bool) -> Bundle:
    """Have `python -m compile bundle` make the bundle in `folder`, and read its plan.

    environment: what else decides what comes out of the jobs, for the keys of the compile cache; empty for nothing.

    Raises:
        OperationError: what compile said, or a plan that this version cannot read.
    """
    more = (["--environment", environment] if environment else []) + (["--rehearse"] if rehearsal else [])
    compile_command(root, "bundle", name, "--to", str(folder), *more)
    try:
        plan = jobs.read_plan(folder / jobs.PLAN)
    except jobs.JobError as error:
        raise OperationError(f"{error} compile and operations must be of one version.") from error
    # A prefix that holds project.tar.gz holds everything: it is uploaded last.
    return Bundle(plan, Folder(folder, jobs.tree_digests(folder), last=jobs.PROJECT))
