"""Ask the account, before anything costs, whether an endpoint and its compile jobs can be deployed. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

import endpoint_spec as specs
from endpoint_spec import derive, platforms
from endpoint_spec.lock import Lock, LockError

from .account import ARTIFACTS_STACK, Account, code_of, stack_of, stack_status
from .errors import OperationError
from .images import state as image_state
from .publish import stored_sha256

if TYPE_CHECKING:
    from endpoint_spec.endpoint import Job

# Of the modern bootstrap stack, which the stacks' synthesizer asks for (aws-cdk-lib, DefaultStackSynthesizer).
BOOTSTRAP_LEAST = 6
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


@dataclass(frozen=True)
class Finding:
    """One answer. status: ok; problem: something later fails; note: nothing does; unknown: the account did not say.

    later: the step that would have failed. remedy: what to do.
    """

    check: str
    status: Literal["ok", "problem", "note", "unknown"]
    found: str
    remedy: str = ""
    later: str = ""


@dataclass(frozen=True)
class Subject:
    """What is asked for: a spec, its lock if there is one, and the account that is meant, if one was named."""

    spec: specs.EndpointSpec
    lock: Lock | None
    problems: list[str]
    account: str | None
    qualifier: str = "hnb659fds"


def preflight(subject: Subject, account: Account) -> list[Finding]:
    """Every finding. Of another account than the named one nothing else is asked."""
    identity = _identity(subject, account)
    if identity.status == "problem":
        return [identity]
    found = [identity]
    for check in (_bootstrap, _region_and_image, _quotas, _service_roles, _what_is_there, _artifact):
        found += _asked(check, subject, account)
    return found


def _asked(
    check: Callable[[Subject, Account], Iterator[Finding]], subject: Subject, account: Account
) -> Iterator[Finding]:
    """A check's findings; one that may not ask, or whose service does not answer, says so and hides no other."""
    try:
        yield from check(subject, account)
    except ClientError as error:
        name, action = check.__name__.strip("_").replace("_", " "), error.operation_name
        remedy = "See `inferentia policies --role deployer`." if code_of(error) in DENIED else ""
        yield Finding(name, "unknown", f"{action}: {error.response['Error'].get('Message', code_of(error))}", remedy)


def _identity(subject: Subject, account: Account) -> Finding:
    found = account.client("sts").get_caller_identity()
    shown = f"{found['Account']} as {found['Arn']}"
    if subject.account in (None, found["Account"]):
        return Finding("identity", "ok", shown)
    return Finding(
        "identity",
        "problem",
        f"{shown}, not of account {subject.account}",
        "Take other credentials (AWS_PROFILE), or name the account that is meant.",
        "cdk deploy would put the endpoint into another account",
    )


def _bootstrap(subject: Subject, account: Account) -> Iterator[Finding]:
    name = f"/cdk-bootstrap/{subject.qualifier}/version"
    remedy, later = "Run: cdk bootstrap", "cdk deploy"
    try:
        version = int(account.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    except ClientError as error:
        if code_of(error) != "ParameterNotFound":
            raise
        yield Finding("bootstrap", "problem", f"there is no {name}: the region is not bootstrapped", remedy, later)
        return
    if version < BOOTSTRAP_LEAST:
        yield Finding("bootstrap", "problem", f"version {version}, {BOOTSTRAP_LEAST} is needed", remedy, later)
    else:
        yield Finding("bootstrap", "ok", f"version {version}")


def _region_and_image(subject: Subject, account: Account) -> Iterator[Finding]:
    spec, region = subject.spec, account.sagemaker.meta.region_name
    image, later = derive.container_image(spec), "CreateEndpoint, minutes into cdk deploy"
    if image.registry == "own":
        yield from _own_image(subject, account)
        return
    request: dict[str, Any] = {"repositoryName": image.repository, "imageIds": [{"imageTag": image.tag}]}
    try:
        request["registryId"] = platforms.registry_account(region, spec.compile.target)
    except platforms.UnknownPlatform as error:
        yield Finding("image", "problem", str(error), "Deploy to another region (AWS_REGION).", "cdk deploy")
        return
    try:
        account.client("ecr").describe_images(**request)
    except ClientError as error:
        if code_of(error) not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        text = f"{image.repository}:{image.tag} is not in {region}"
        yield Finding("image", "problem", text, "Take another region.", later)
        return
    yield Finding("image", "ok", f"{image.repository}:{image.tag} in {region}")


def _own_image(subject: Subject, account: Account) -> Iterator[Finding]:
    if subject.lock is not None and subject.lock.rehearsal:
        yield Finding("image", "ok", "none: a rehearsal runs the server in the project's own Python")
        return
    try:
        found = image_state(subject.spec, account)
    except LockError as error:
        yield Finding("image", "problem", str(error), "Mend the file.", "cdk deploy")
        return
    if found.problem:
        yield Finding("image", "problem", found.problem, found.remedy, "cdk deploy")
    else:
        yield Finding("image", "note" if found.note else "ok", found.note or f"{found.built and found.built.digest}")


def _quotas(subject: Subject, account: Account) -> Iterator[Finding]:
    """An update may hold the old and the new fleet at once, so the endpoint needs twice its maximum.

    https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-blue-green.html
    """
    spec, client = subject.spec, account.client("service-quotas")
    wanted = [("sagemaker", f"{spec.serve.instance_type} for endpoint usage", 2 * spec.scale.max, spec.scale.max)]
    if spec.job is not None:
        wanted.append(_job_quota(spec.job))
    for service, name, least, needed in wanted:
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode=service)
        value = next((row["Value"] for page in pages for row in page["Quotas"] if row["QuotaName"] == name), None)
        remedy = f'Ask for {least}: Service Quotas, "{name}". Granting takes from minutes to days.'
        step = "CreateEndpoint" if name.endswith("endpoint usage") else "inferentia submit"
        if value is None:
            yield Finding("quota", "unknown", f"{name}: not among the quotas of {service}", remedy, step)
        elif value < needed:
            yield Finding("quota", "problem", f"{name}: {value:g}, {needed} are needed", remedy, step)
        elif value < least:
            text = f"{name}: {value:g}, an update at the maximum needs {least}"
            yield Finding("quota", "problem", text, remedy, "the first update of the endpoint")
        else:
            yield Finding("quota", "ok", f"{name}: {value:g}")


def _job_quota(job: Job) -> tuple[str, str, int, int]:
    """Service, name, and how much a compile run needs; docs/compiling.md has the table.

    EC2's names: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html, and
    ec2-on-demand-instances.html beside it.
    """
    kind = str(job.instance_type)
    if job.where == "processing":
        return "sagemaker", f"{kind} for processing job usage", job.max_parallel, 1
    machine = platforms.job_machines()[kind]
    family = "Standard (A, C, D, H, I, M, R, T, Z)" if machine.family == "cpu" else "Inf"
    name = f"All {family} Spot Instance Requests" if job.spot else f"Running On-Demand {family} instances"
    return "ec2", name, job.max_parallel * machine.vcpu, machine.vcpu


def _service_roles(subject: Subject, account: Account) -> Iterator[Finding]:
    """https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html"""
    job = subject.spec.job
    wanted = {"AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint": ""}
    if job is not None and job.spot:
        wanted["AWSServiceRoleForEC2Spot"] = "spot.amazonaws.com"
    for name, service in wanted.items():
        try:
            account.client("iam").get_role(RoleName=name)
        except ClientError as error:
            if code_of(error) != "NoSuchEntity":
                raise
            if service:
                remedy = f"Run: aws iam create-service-linked-role --aws-service-name {service}"
                yield Finding("service role", "problem", f"{name} is not there", remedy, "inferentia submit")
            else:
                text = f"{name} is not there; the first deployment makes it, if it may iam:CreateServiceLinkedRole"
                yield Finding("service role", "note", text, "", "cdk deploy")
        else:
            yield Finding("service role", "ok", name)


def _what_is_there(subject: Subject, account: Account) -> Iterator[Finding]:
    """Names that are taken, while no stack of ours has them."""
    name, later = subject.spec.name, "cdk deploy"
    if stack_status(name, account):
        yield Finding("endpoint", "ok", f"{stack_of(name)} is there: cdk deploy updates it")
        return
    try:
        status = account.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        yield Finding("endpoint", "ok", f"the name {name} is free")
    else:
        text = f"endpoint {name} is there ({status}), and not of stack {stack_of(name)}"
        yield Finding("endpoint", "problem", text, "Delete it, or give the spec another name.", later)
    group = f"/aws/sagemaker/Endpoints/{name}"
    pages = account.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=group)
    there = any(row.get("logGroupName") == group for page in pages for row in page["logGroups"])
    if there == subject.spec.logs.existing:
        yield Finding("log group", "ok", f"{group} is {'there' if there else 'free'}")
    elif there:
        remedy = "Write logs: {existing: true}, or deploy with --import-existing-resources, or delete it."
        yield Finding("log group", "problem", f"{group} is there, of an earlier endpoint", remedy, later)
    else:
        remedy = "Leave out logs.existing: the stack makes it."
        yield Finding("log group", "problem", f"{group} is not there, but logs.existing says so", remedy, later)


def _artifact(subject: Subject, account: Account) -> Iterator[Finding]:
    lock, name = subject.lock, subject.spec.name
    for problem in subject.problems:
        text, _, remedy = problem.partition(" Run: ")
        yield Finding("lock", "problem", text, f"Run: {remedy}" if remedy else "", "cdk deploy")
    try:
        bucket = account.artifact_bucket
    except OperationError as error:
        remedy = f"Run: cdk deploy {ARTIFACTS_STACK}"
        yield Finding("bucket", "problem", str(error).partition(" Deploy it")[0], remedy, f"inferentia publish {name}")
        return
    yield Finding("bucket", "ok", bucket)
    if lock is None:
        return
    found, where = stored_sha256(account, bucket, lock.artifact.key), f"s3://{bucket}/{lock.artifact.key}"
    if found is None:
        remedy, later = f"Run: inferentia publish {name}", "CreateModel: could not find model data"
        yield Finding("artifact", "problem", f"{where} is not there", remedy, later)
    elif found != lock.digests.artifact:
        text, remedy = (
            f"{where} was overwritten: its sha256 is {found}",
            "Look at the object's versions; restore the first.",
        )
        yield Finding("artifact", "problem", text, remedy, "the endpoint would serve something else, or not start")
    else:
        yield Finding("artifact", "ok", f"{where}, as the lock says")
