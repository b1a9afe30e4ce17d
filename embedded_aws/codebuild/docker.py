"""`docker`, `aws ecr get-login-password` and `aws s3 cp` of a build: no containers, but the same files and commands.

An image is a folder: the files that the Dockerfile copies, and an environment of the machine's job Python that has that
Python's packages but those that the image itself installs. Paths below /opt are the folder's. What a Dockerfile or a
command has beyond that is an error. What the build's role may not do ends with AWS's words, except with the bucket's
key, which is not looked at. Run by builds.py, which sets STAND_IN (the folder of all images), BASE_PYTHON and the role.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import boto3

from .rights import DeniedError, Rights

REFERENCE = re.compile(r"(\d+)\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([a-z0-9._/-]+)[:@]([\w.:-]+)")
# What registries ask of who pulls and who pushes:
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html and .../repository-policy-examples.html
PULL = ("BatchGetImage", "GetDownloadUrlForLayer")
PUSH = ("BatchCheckLayerAvailability", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "PutImage")
# An image that anybody may pull, played as far as its name goes: a Python alone.
PUBLIC = re.compile(r"public\.ecr\.aws/docker/library/python[:@]([\w.:-]+)")
# What a base does not have, of the packages beside torch: the image brings it.
BROUGHT = ("uvicorn", "uvloop", "httptools", "pil", "pillow", "click", "h11")
# What an environment has itself.
OF_VENV = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils")


def fail(text: str) -> NoReturn:
    """End with 1 and one line."""
    sys.exit(f"docker (stand-in): {text}")


@functools.cache
def rights() -> Rights:
    """Of the build's role."""
    return Rights(boto3.client("iam"), os.environ["SERVICE_ROLE"], os.environ["SESSION"])


def check(action: str, resource: str, **context: str) -> None:
    """End, with AWS's words, where the build's role may not."""
    try:
        rights().check(action, resource, **context)
    except DeniedError as error:
        sys.exit(f"denied: {error}")


def check_image(actions: Sequence[str], reference: str) -> None:
    """`check` on the repository of an image; anybody may pull a public one."""
    if PUBLIC.fullmatch(reference):
        return
    account, region, repository, _ = parsed(reference)
    for action in actions:
        check(f"ecr:{action}", f"arn:aws:ecr:{region}:{account}:repository/{repository}")


def parsed(reference: str) -> tuple[str, str, str, str]:
    """Account, region, repository, and tag or digest."""
    found = REFERENCE.fullmatch(reference)
    if found is None:
        fail(f"{reference} is no image of Amazon ECR")
    account, region, repository, which = found.groups()
    return account, region, repository, which


def digest_of(reference: str) -> str:
    """The digest of an image in a registry; ends where there is none. Of a public one it is made from its tag."""
    if public := PUBLIC.fullmatch(reference):
        tag = public[1]
        return tag if tag.startswith("sha256:") else f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
    account, region, repository, which = parsed(reference)
    wanted = {"imageDigest": which} if which.startswith("sha256:") else {"imageTag": which}
    ecr = boto3.client("ecr", region_name=region)
    try:
        found = ecr.describe_images(registryId=account, repositoryName=repository, imageIds=[wanted])
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        fail(f"manifest for {reference} not found: manifest unknown")
    return str(found["imageDetails"][0]["imageDigest"])


def folder_of(reference: str) -> Path:
    """Where an image that was built here lies."""
    return Path(os.environ["STAND_IN"]) / hashlib.sha256(reference.encode()).hexdigest()[:16]


def login(_: argparse.Namespace) -> None:
    """Take the password from standard input."""
    if not sys.stdin.read().strip():
        fail("no password on standard input")


def pull(options: argparse.Namespace) -> None:
    """Find an image in its registry."""
    check_image(PULL, options.image)
    print(f"{options.image} {digest_of(options.image)}")


def inspect(options: argparse.Namespace) -> None:
    """`image inspect --format '{{index .RepoDigests 0}}'`."""
    if options.format != "{{index .RepoDigests 0}}":
        fail(f"inspect --format {options.format} is not played")
    print(f"{re.split('[:@]', options.image, maxsplit=1)[0]}@{digest_of(options.image)}")


def build(options: argparse.Namespace) -> None:
    """The instructions of a Dockerfile, as far as ours has them."""
    root, given = folder_of(options.tag), dict(pair.split("=", 1) for pair in options.build_arg)
    shutil.rmtree(root, ignore_errors=True)
    (root / "opt").mkdir(parents=True)
    arguments: dict[str, str] = {}
    entrypoint: list[str] = []
    for line in (options.folder / "Dockerfile").read_text(encoding="utf-8").splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#") or word in ("USER", "CMD"):
            continue
        if word == "ARG":
            arguments[rest] = given.get(rest, "")
        elif word == "FROM":
            base = re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], rest)
            digest_of(base)
            if PUBLIC.fullmatch(base):
                make_python(root, given["PYTHON"])
            else:
                make_base(root)
        elif word == "COPY":
            source, target = shlex.split(rest)
            shutil.copytree(options.folder / source, moved(root, target), dirs_exist_ok=True)
            keep_inside(root, Path(moved(root, target)))
        elif word == "RUN":
            run_in(root, json.loads(rest), arguments)
        elif word == "ENTRYPOINT":
            entrypoint = json.loads(rest)
        else:
            fail(f"instruction {word} is not played")
    (root / "entrypoint.json").write_text(json.dumps(entrypoint))


def make_base(root: Path) -> None:
    """The base's Python: the job Python's packages, but what images bring themselves."""
    python = os.environ["BASE_PYTHON"]
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    packages = root / "base"
    packages.mkdir()
    for entry in site.iterdir():
        name = re.split(r"[-.]", entry.name.lower(), maxsplit=1)[0]
        if name not in (*BROUGHT, *OF_VENV) and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    subprocess.run([python, "-m", "venv", str(root / "python")], check=True)
    (own,) = (root / "python" / "lib").glob("python*/site-packages")
    (own / "base.pth").write_text(f"{packages}\n")


def make_python(root: Path, version: str) -> None:
    """A base of Python alone; ends where this machine has no such Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}" == version
    python = sys.executable if own else shutil.which(f"python{version}")
    if python is None:
        fail(f"there is no python{version} here to play the base with")
    subprocess.run([python, "-m", "venv", str(root / "python")], check=True)


def keep_inside(root: Path, folder: Path) -> None:
    """Paths of a container in its scripts are those of this folder."""
    for path in folder.rglob("*"):
        if path.suffix in (".sh", ".py"):
            path.write_text(path.read_text(encoding="utf-8").replace("/opt/ml", str(root / "opt" / "ml")))


def moved(root: Path, text: str) -> str:
    """A text in which paths below /opt are the folder's."""
    return re.sub(r"^/opt/", f"{root}/opt/", text)


def run_in(root: Path, command: list[str], more: dict[str, str]) -> None:
    """Run a command of the image to its end; ends with its exit code where that is not 0."""
    path = os.pathsep.join([str(root / "python" / "bin"), "/usr/bin", "/bin"])
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_", "REQUESTS_", "HTTP"))}
    environment = {**kept, "HOME": str(root), "LANG": "C.UTF-8", **more, "PATH": path}
    done = subprocess.run([moved(root, part) for part in command], env=environment, cwd=root, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def run(options: argparse.Namespace) -> None:
    """Start a container: the image's entrypoint, or the one named."""
    root = folder_of(options.image)
    if not root.is_dir():
        fail(f"there is no image {options.image} here")
    command = [options.entrypoint] if options.entrypoint else json.loads((root / "entrypoint.json").read_text())
    command += options.command
    for volume in options.volume:
        here, there = volume.split(":")[:2]
        command = [here if part == there else part for part in command]
    run_in(root, command, {})


def push(options: argparse.Namespace) -> None:
    """Put the image into its registry; its digest is that of what it holds."""
    root = folder_of(options.image)
    files = sorted(path for path in (root / "opt" / "inferentia").rglob("*") if path.is_file())
    held = hashlib.sha256("".join(f"{path.name} {path.read_bytes()!r}" for path in files).encode()).hexdigest()
    put(options.image, held)
    print(options.image)


def put(reference: str, held: str, digest: str = "") -> None:
    """Register an image by what it holds. digest: of a copy, the original's."""
    check_image(PUSH, reference)
    _, region, repository, tag = parsed(reference)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": f"sha256:{held}"},
        "layers": [],
    }
    text = json.dumps(manifest)
    boto3.client("ecr", region_name=region).put_image(
        repositoryName=repository,
        imageTag=tag,
        imageManifest=text,
        imageDigest=digest or f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
    )


def copy(options: argparse.Namespace) -> None:
    """`buildx imagetools create`: an image of another registry as it is, in this one."""
    if options.prefer_index != "false":
        fail("without --prefer-index=false an index may be made, of another digest; that is not played")
    check_image(PULL, options.image)
    digest = digest_of(options.image)
    put(options.tag, digest.removeprefix("sha256:"), digest)


def show(options: argparse.Namespace) -> None:
    """`buildx imagetools inspect`: the digest of an image in its registry."""
    if options.format != "{{.Manifest.Digest}}":
        fail(f"inspect --format {options.format} is not played")
    check_image(PULL[:1], options.image)
    print(digest_of(options.image))


def aws(arguments: list[str]) -> None:
    """`aws ecr get-login-password` and `aws s3 cp`; for the latter the stand-in of instances' AWS CLI."""
    if arguments == ["ecr", "get-login-password"]:
        check("ecr:GetAuthorizationToken", "*")
        print(boto3.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"])
        return
    if arguments[:2] != ["s3", "cp"]:
        sys.exit(f"aws (stand-in): {shlex.join(arguments)} is not played")
    source, target = [one for one in arguments[2:] if not one.startswith("--")]
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        if "--recursive" in arguments:
            check("s3:ListBucket", f"arn:aws:s3:::{bucket}", s3_prefix=key)
        check("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
    else:
        check("s3:PutObject", f"arn:aws:s3:::{target.removeprefix('s3://')}")
    cli = Path(__file__).parents[1] / "ec2" / "aws_cli.py"
    sys.exit(subprocess.run([sys.executable, "-I", str(cli), *arguments], check=False).returncode)


def main() -> None:
    """`docker.py docker ARGUMENT...` or `docker.py aws ARGUMENT...`."""
    if sys.argv[1] == "aws":
        aws(sys.argv[2:])
        return
    parser = argparse.ArgumentParser("docker")
    commands = parser.add_subparsers(required=True)
    tools = commands.add_parser("buildx").add_subparsers(required=True).add_parser("imagetools")
    imagetools = tools.add_subparsers(required=True)

    def command(name: str, function: Any, *arguments: tuple[str, dict[str, Any]], among: Any = commands) -> None:
        one = among.add_parser(name)
        one.set_defaults(function=function)
        for flag, how in arguments:
            one.add_argument(flag, **how)

    image = ("image", {})
    quiet = ("--quiet", {"action": "store_true"})
    command("login", login, ("--username", {}), ("--password-stdin", {"action": "store_true"}), ("registry", {}))
    command("pull", pull, quiet, image)
    command("push", push, quiet, image)
    command("image", inspect, ("verb", {"choices": ["inspect"]}), ("--format", {}), image)
    command("build", build, ("--build-arg", {"action": "append"}), ("--tag", {}), ("folder", {"type": Path}))
    command("create", copy, ("--prefer-index", {}), ("--tag", {}), image, among=imagetools)
    command("inspect", show, ("--format", {}), image, among=imagetools)
    rest = ("command", {"nargs": argparse.REMAINDER})
    volume, entry = ("--volume", {"action": "append", "default": []}), ("--entrypoint", {})
    command("run", run, ("--rm", {"action": "store_true"}), volume, entry, image, rest)
    options = parser.parse_args(sys.argv[2:])
    options.function(options)


if __name__ == "__main__":
    main()
