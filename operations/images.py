"""Container images of your own registry: built by CodeBuild, found by digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from endpoint_spec import EndpointSpec, built_images, derive, digests, platforms
from endpoint_spec.built_images import MIRROR, SBOMS, BuiltImage
from endpoint_spec.jobs import REQUIREMENTS, kept_wheels_prefix

from .account import Account, code_of
from .errors import OperationError, WrongUseError

STACK = "InferentiaImages"
POLL_SECONDS = 5.0
LAST_LINES = 20
# https://docs.aws.amazon.com/codebuild/latest/APIReference/API_Build.html
RUNNING = "IN_PROGRESS"


def build(
    spec: EndpointSpec, account: Account, say: Callable[[str], None], *, poll: float = POLL_SECONDS
) -> BuiltImage:
    """Build the image that an endpoint runs; write its digest to endpoints/images.lock.json, and beside it what the
    image adds to its base.

    The base comes from the mirror, and the packages from the artifact bucket, where they are kept there.
    say: is given each line of the build's log. A build that is interrupted is stopped.

    Raises:
        WrongUseError: where the endpoint runs an image of AWS.
        LockError: where images.lock.json cannot be read.
        OperationError: where the stack is missing or of other sources, or the build fails; with its last lines.
    """
    image = own_image(spec)
    before = built_images.read(spec.root).get(built_images.key(image))
    project, sources = _project(account)
    region, number = _place(account)
    base = _base(image, account, before)
    # Tags are never used twice; the time makes two builds of the same sources two tags.
    tag = f"{image.tag}-{sources[:12]}-{datetime.now(UTC):%Y%m%d%H%M%S}"
    bucket, sbom = account.artifact_bucket, f"{SBOMS}{image.repository}/{tag}.sbom.json"
    variables = {
        "SCRIPT": "build.sh",
        "BASE": base,
        "PYTHON": image.python,
        "TORCH": image.torch,
        "TARGET": image.target,
        "IMAGE": f"{_own(account)}/{image.repository}:{tag}",
        "WHEELS": _wheels(image, account, bucket),
        "SBOM": f"s3://{bucket}/{sbom}",
    }
    found = _run(account, project, variables, say, poll)
    built = BuiltImage(
        digest=_digest(found, "IMAGE_DIGEST"),
        tag=tag,
        base=base.partition("@")[0],
        base_digest=_digest(found, "BASE_DIGEST"),
        sources=sources,
        account=number,
        region=region,
    )
    listed = account.s3.get_object(Bucket=bucket, Key=sbom)["Body"].read()
    now = built_images.read(spec.root)  # another image may have been built meanwhile
    written = built_images.text({**now, built_images.key(image): built}).encode()
    for name, content in ((built_images.sbom_file(image), listed), (built_images.FILE, written)):
        part = (spec.root / name).with_suffix(".part")
        try:
            part.write_bytes(content)
            part.replace(spec.root / name)
        finally:
            part.unlink(missing_ok=True)
    return built


def mirror(spec: EndpointSpec, account: Account, say: Callable[[str], None], *, poll: float = POLL_SECONDS) -> str:
    """Copy the base of an endpoint's image into this account's registry; its digest, which stays what it was.

    A base that is there is left alone. Raises as `build` does, and OperationError where no build has found the digest.
    """
    image = own_image(spec)
    before = built_images.read(spec.root).get(built_images.key(image))
    if before is None:
        raise OperationError(
            f"{built_images.FILE} has no image {built_images.key(image)}, so which base to keep is not known. "
            f"Run: inferentia image build {spec.name}"
        )
    digest = before.base_digest
    if not _is_there(MIRROR, digest, account):
        repository, tag = _origin(image, account)
        variables = {
            "SCRIPT": "mirror.sh",
            "BASE": f"{repository}@{digest}",
            "IMAGE": f"{_own(account)}/{MIRROR}:{tag}-{digest[7:19]}",
        }
        found = _run(account, _project(account)[0], variables, say, poll)
        if _digest(found, "IMAGE_DIGEST") != digest:
            raise OperationError(f"the build copied {found['IMAGE_DIGEST']}, not {digest}. See images/mirror.sh.")
    return digest


def own_image(spec: EndpointSpec) -> platforms.Image:
    """The image of your own registry that an endpoint runs. Raises WrongUseError where it runs one of AWS."""
    image = derive.container_image(spec)
    if image.registry == "aws":
        raise WrongUseError(f"{spec.name} runs {image.repository}:{image.tag} of AWS: there is nothing to build.")
    return image


def _project(account: Account) -> tuple[str, str]:
    """The CodeBuild project, and the sha256 of its sources, which have to be those that are here."""
    outputs = account.outputs(STACK, "ImageProject", "ImageSources")
    sources = digests.image_sources()
    if outputs["ImageSources"] != sources:
        raise OperationError(
            f"stack {STACK} has other sources ({outputs['ImageSources'][:12]}) than images/ and inference_code/ here "
            f'({sources[:12]}). Deploy it again: "cdk deploy {STACK}".'
        )
    return outputs["ImageProject"], sources


def _place(account: Account) -> tuple[str, str]:
    """Region and account."""
    number = account.client("sts").get_caller_identity()["Account"]
    return account.sagemaker.meta.region_name, str(number)


def _own(account: Account) -> str:
    """The address of this account's registry."""
    region, number = _place(account)
    return f"{number}.dkr.ecr.{region}.amazonaws.com"


def _origin(image: platforms.Image, account: Account) -> tuple[str, str]:
    """Where an image's base comes from: the repository's address, and the tag."""
    if image.base is not None:
        repository, _, tag = image.base.partition(":")
        return repository, tag
    base, region = platforms.base_of(image), account.sagemaker.meta.region_name
    try:
        registry = platforms.registry_account(region, image.target)
    except platforms.UnknownPlatform as error:
        raise OperationError(str(error)) from None
    return f"{registry}.dkr.ecr.{region}.amazonaws.com/{base.repository}", base.tag


def _base(image: platforms.Image, account: Account, before: BuiltImage | None) -> str:
    """What to build on: the digest that was found the first time, from the mirror if that has it; else AWS's tag."""
    repository, tag = _origin(image, account)
    if before is None:
        return f"{repository}:{tag}"
    mirrored = _is_there(MIRROR, before.base_digest, account)
    return f"{f'{_own(account)}/{MIRROR}' if mirrored else repository}@{before.base_digest}"


def _wheels(image: platforms.Image, account: Account, bucket: str) -> str:
    """The address of the kept wheels of an image; "" where none are."""
    prefix = kept_wheels_prefix(built_images.requirements(image))
    found = account.s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}{REQUIREMENTS}")  # it comes last
    return f"s3://{bucket}/{prefix}" if found["KeyCount"] else ""


def _run(
    account: Account, project: str, variables: Mapping[str, str], say: Callable[[str], None], poll: float
) -> dict[str, str]:
    """Start a build and follow it to its end; the variables that it exports."""
    client = account.client("codebuild")
    given = [{"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()]
    try:
        number = client.start_build(projectName=project, environmentVariablesOverride=given)["build"]["id"]
    except ClientError as error:
        if code_of(error) != "AccessDeniedException":
            raise
        raise OperationError(
            f"you may not start builds of {project}: {error}. What it takes: inferentia policies --role deployer"
        ) from error
    log = _Log(account, say)
    try:
        while True:
            row = client.batch_get_builds(ids=[number])["builds"][0]
            log.read(row.get("logs", {}))
            if row["buildStatus"] != RUNNING:
                break
            time.sleep(poll)
    except BaseException:
        try:
            client.stop_build(id=number)
        except ClientError as error:  # the first error is the one that is raised
            say(f"build {number} could not be stopped: {error}")
        raise
    if row["buildStatus"] != "SUCCEEDED":
        log.read_whole(row.get("logs", {}))
        # What CodeBuild itself could not do is in no log.
        said = [one["message"] for phase in row.get("phases", []) for one in phase.get("contexts", [])]
        last = [*log.lines[-LAST_LINES:], *(text for text in said if text)]
        raise OperationError("\n".join([f"build {number} ended with {row['buildStatus']}. Its last lines:", *last]))
    return {pair["name"]: pair["value"] for pair in row.get("exportedEnvironmentVariables", [])}


class _Log:
    """The log of one build, as far as CloudWatch Logs has it."""

    def __init__(self, account: Account, say: Callable[[str], None]) -> None:
        self.account, self.say, self.lines, self._token = account, say, list[str](), ""

    def read(self, where: Mapping[str, Any]) -> bool:
        """Say what is new; whether there was anything."""
        if not where.get("streamName"):
            return False
        request: dict[str, Any] = {"logGroupName": where["groupName"], "logStreamName": where["streamName"]}
        if self._token:
            request["nextToken"] = self._token
        try:
            page = self.account.logs.get_log_events(startFromHead=True, **request)
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":  # the stream comes with its first line
                raise
            return False
        self._token = page["nextForwardToken"]
        new = [event.get("message", "").rstrip() for event in page["events"]]
        self.lines += new
        for line in new:
            self.say(line)
        return bool(new)

    def read_whole(self, where: Mapping[str, Any]) -> None:
        """What came between the last look and the end."""
        while self.read(where):
            pass


def _digest(found: Mapping[str, str], name: str) -> str:
    value = found.get(name, "")
    if "@sha256:" not in value:
        raise OperationError(f"the build exported {name}={value!r}, which has no digest. See images/buildspec.yml.")
    return value.partition("@")[2]


@dataclass(frozen=True)
class State:
    """The image that an endpoint runs. problem, remedy: why it cannot be deployed, and the way out.

    note: what else to know. mirrored: whether its base is in this account's registry.
    """

    built: BuiltImage | None
    mirrored: bool = False
    problem: str = ""
    remedy: str = ""
    note: str = ""


def state(spec: EndpointSpec, account: Account) -> State:
    """What images.lock.json has for an endpoint, and whether it is in the registry.

    Raises WrongUseError and LockError as `build` does.
    """
    image = own_image(spec)
    built = built_images.read(spec.root).get(built_images.key(image))
    again = f"Run: inferentia image build {spec.name}"
    if built is None:
        return State(None, problem="not built", remedy=again)
    mirrored = _is_there(MIRROR, built.base_digest, account)
    if not _is_there(image.repository, built.digest, account):
        where = f"{image.repository} of {account.sagemaker.meta.region_name}"
        return State(built, mirrored, f"{built.digest} is not in {where}", again)
    if built.sources != digests.image_sources():
        note = f"images/ or inference_code/ changed since it was built. {again}, if that matters."
        return State(built, mirrored, note=note)
    return State(built, mirrored)


def _is_there(repository: str, digest: str, account: Account) -> bool:
    """Whether this account's registry has an image."""
    try:
        account.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageDigest": digest}])
    except ClientError as error:
        if code_of(error) not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        return False
    return True
