"""What stands for the AWS CLI on an instance: the few commands that user data needs, by boto3.

s3 cp (also --recursive, and - for standard input or output), s3 sync, s3api head-object, get-object, put-object,
sts get-caller-identity. Anything else ends with exit code 252, as the CLI does for what it cannot parse.
Source: https://docs.aws.amazon.com/cli/latest/reference/s3/ and .../userguide/cli-usage-returncodes.html
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

WRONG_USE = 252


class Parser(argparse.ArgumentParser):
    """Ends with the CLI's exit code."""

    def error(self, message: str) -> NoReturn:
        """One line, then the end."""
        sys.stderr.write(f"aws (the embedded AWS's): {message}\n")
        sys.exit(WRONG_USE)


def parser() -> Parser:
    """The commands and options that there are."""
    top = Parser(prog="aws", allow_abbrev=False)
    top.add_argument("--region")
    services = top.add_subparsers(dest="service", required=True)
    s3 = services.add_parser("s3").add_subparsers(dest="command", required=True)
    for name in ("cp", "sync"):
        command = s3.add_parser(name, allow_abbrev=False)
        command.add_argument("source")
        command.add_argument("target")
        for option in ("--only-show-errors", "--quiet", "--no-progress"):
            command.add_argument(option, action="store_true")
        if name == "cp":
            command.add_argument("--recursive", action="store_true")
    api = services.add_parser("s3api").add_subparsers(dest="command", required=True)
    for name in ("head-object", "get-object", "put-object"):
        command = api.add_parser(name, allow_abbrev=False)
        command.add_argument("--bucket", required=True)
        command.add_argument("--key", required=True)
        if name == "get-object":
            command.add_argument("outfile")
        if name == "put-object":
            command.add_argument("--body")
    services.add_parser("sts").add_subparsers(dest="command", required=True).add_parser("get-caller-identity")
    return top


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def copy(client: Any, options: argparse.Namespace) -> None:
    """s3 cp and s3 sync."""
    source, target = options.source, options.target
    many = options.command == "sync" or options.recursive
    if source.startswith("s3://") == target.startswith("s3://"):
        parser().error("one of source and target must be s3://BUCKET/KEY, the other a path")
    if source.startswith("s3://"):
        (download_all if many else download)(client, *split(source), target)
    else:
        (upload_all if many else upload)(client, source, *split(target))


def download(client: Any, bucket: str, key: str, target: str) -> None:
    """One object to a file, a folder or standard output."""
    if target == "-":
        sys.stdout.buffer.write(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        return
    path = Path(target)
    if target.endswith("/") or path.is_dir():
        path = path / key.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    client.download_file(bucket, key, str(path))


def download_all(client: Any, bucket: str, prefix: str, target: str) -> None:
    """Everything below a folder-like prefix."""
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                download(client, bucket, item["Key"], str(Path(target) / item["Key"][len(folder) :]))


def upload(client: Any, source: str, bucket: str, key: str) -> None:
    """A file, or standard input, to one object."""
    if source == "-":
        client.put_object(Bucket=bucket, Key=key, Body=sys.stdin.buffer.read())
        return
    name = key + Path(source).name if not key or key.endswith("/") else key
    client.upload_file(source, bucket, name)


def upload_all(client: Any, source: str, bucket: str, prefix: str) -> None:
    """Every file below a folder; the CLI follows symbolic links."""
    root = Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"The user-provided path {source} does not exist.")
    for path in sorted(root.rglob("*")):
        if path.is_file():
            key = "/".join(part for part in (prefix.rstrip("/"), path.relative_to(root).as_posix()) if part)
            client.upload_file(str(path), bucket, key)


def run(options: argparse.Namespace) -> Any:
    """One command; what is printed as JSON."""
    if options.service == "sts":
        who = boto3.client("sts", region_name=options.region).get_caller_identity()
        return {"UserId": who["UserId"], "Account": who["Account"], "Arn": who["Arn"]}
    client: Any = boto3.client("s3", region_name=options.region)
    if options.service == "s3":
        copy(client, options)
        return None
    where = {"Bucket": options.bucket, "Key": options.key}
    if options.command == "head-object":
        answer = client.head_object(**where)
    elif options.command == "get-object":
        answer = client.get_object(**where)
        Path(options.outfile).write_bytes(answer.pop("Body").read())
    else:
        answer = client.put_object(**where, **({"Body": Path(options.body).read_bytes()} if options.body else {}))
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def main(arguments: list[str]) -> int:
    """0, 252 for wrong use, 254 when the service refuses, 255 for anything else."""
    try:
        answer = run(parser().parse_args(arguments))
    except ClientError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1 if arguments[0] == "s3" else 254
    except (BotoCoreError, S3UploadFailedError, OSError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1 if arguments[0] == "s3" else 255
    if answer is not None:
        sys.stdout.write(json.dumps(answer, default=str, indent=4) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
