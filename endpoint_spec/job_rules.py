"""What the keys of a compile job must be together, and with the compile section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from . import platforms
from .endpoint import EndpointSpec
from .findings import Finding, Rules
from .quantities import format_duration

_LONGEST_JOB = timedelta(days=5)
RULES = Rules()
rule = RULES.register


@rule("job")
def job_machine_exists(spec: EndpointSpec) -> Iterator[Finding]:
    """A Processing job takes ml. types without a chip, an instance takes EC2's names."""
    job = spec.job
    if job is None or job.instance_type is None:
        return
    key, kind, known = "job.instance_type", job.instance_type, platforms.job_instance_types(job.where)
    if kind not in known:
        other = kind.removeprefix("ml.") if job.where == "ec2" else f"ml.{kind}"
        problem = f"is not a machine for where: {job.where}"
        if job.where == "processing" and re.fullmatch(r"(ml\.)?inf[12]\..*", kind):
            problem += ": processing jobs have no Inferentia instances, and compiling needs none"
        meant = f"Did you mean {other}? " if other in known else ""
        yield Finding(key, kind, problem, f"{meant}The machines are {', '.join(known)}.")


@rule("job", "compile.target")
def job_machine_has_the_target(spec: EndpointSpec) -> Iterator[Finding]:
    """A machine with the other chip compiles no better and costs more: its driver and its image are the other ones."""
    job, target = spec.job, spec.compile.target
    row = platforms.job_machines().get(job.instance_type or "") if job is not None and job.where == "ec2" else None
    if row and row.family not in ("cpu", target):
        problem = f"has the {row.family} chip, but compile.target is {target}"
        yield Finding(
            "job.instance_type", row.name, problem, f"Write a CPU type such as c5.4xlarge, or an {target} one."
        )


@rule("job")
def spot_is_for_instances(spec: EndpointSpec) -> Iterator[Finding]:
    """SageMaker's processing jobs have no spot capacity."""
    if spec.job is not None and spec.job.spot and spec.job.where != "ec2":
        problem = f"is not possible with where: {spec.job.where}: only EC2 instances are bought as spot capacity"
        yield Finding("job.spot", "true", problem, "Leave it out, or write where: ec2.")


@rule("job")
def network_is_for_instances(spec: EndpointSpec) -> Iterator[Finding]:
    """Processing jobs have no network at all, and a security group belongs to the network of the subnets."""
    job = spec.job
    if job is None:
        return
    given = {
        "subnets": ", ".join(job.subnets or ()),
        "security_group": job.security_group or "",
        "session_manager": "true" if job.session_manager else "",
    }
    if job.where != "ec2":
        for key, value in [(key, value) for key, value in given.items() if value][:1]:
            problem = f"is not possible with where: {job.where}: its jobs have no network"
            yield Finding(f"job.{key}", value, problem, "Leave it out, or write where: ec2.")
        return
    if (job.subnets is None) != (job.security_group is None):
        key, other = ("subnets", "security_group") if job.subnets else ("security_group", "subnets")
        problem = f"is given without job.{other}"
        yield Finding(f"job.{key}", given[key], problem, f"Write {other} too, of the same network, or neither.")
    for key, ids in (("subnets", job.subnets or ()), ("security_group", (job.security_group or "sg-00000000",))):
        wrong = [one for one in ids if not _NETWORK_IDS[key].fullmatch(one)]
        if wrong:
            example = "subnet-0a1b2c3d" if key == "subnets" else "sg-0a1b2c3d"
            yield Finding(f"job.{key}", wrong[0], "is no id of that kind", f"Write the id, such as {example}.")


_NETWORK_IDS = {
    "subnets": re.compile(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})"),
    "security_group": re.compile(r"sg-([0-9a-f]{8}|[0-9a-f]{17})"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions: instance metadata shows tags
# under their keys, and takes no others.
_TAG_KEY = re.compile(r"[A-Za-z0-9+=.,_:@-]+")


@rule("job", "tags")
def an_instance_can_carry_the_tags(spec: EndpointSpec) -> Iterator[Finding]:
    """A compile job on EC2 reads the tags of its instance from the metadata service."""
    if spec.job is None or spec.job.where != "ec2":
        return
    for key in sorted(spec.tags):
        if not _TAG_KEY.fullmatch(key) or key in (".", "..", "_index"):
            problem = "is a tag that an EC2 instance which reads its own tags cannot carry"
            yield Finding("tags", key, problem, "Use letters, digits and +=.,_:@- alone, or job.where: processing.")


@rule("job", "compile.timeout")
def job_outlives_the_compiler(spec: EndpointSpec) -> Iterator[Finding]:
    """A run that ends before one graph may take its time ends without the compiler's own message."""
    job = spec.job
    if job is None:
        return
    key, text = "job.time_limit", format_duration(job.time_limit)
    if job.time_limit % timedelta(seconds=1):
        yield Finding(key, text, "is finer than a second", "Write whole seconds, such as 3h.")
    elif job.time_limit > _LONGEST_JOB:
        problem = "is longer than 5 days, and a job that hangs is paid for until then"
        yield Finding(key, text, problem, "Write less, such as 3h.")
    elif job.time_limit <= spec.compile.timeout:
        one = format_duration(spec.compile.timeout)
        problem = f"is not above compile.timeout, the {one} that one graph may take"
        yield Finding(key, text, problem, "Write a longer time_limit, or a shorter timeout under compile.")
