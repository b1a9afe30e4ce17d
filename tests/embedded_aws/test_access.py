"""Whom the server answers: no web page, nobody without a key of this very server."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from embedded_aws.access import AccessError, private_directory
from embedded_aws.ec2.metadata import SHUTDOWN, TOKEN, TTL, Metadata
from tests.embedded_aws.asking import Reply, ask, signed
from tests.embedded_aws.helpers import Fleet, run
from tests.embedded_aws.running import Aws, running, wait_for
from tests.embedded_aws.work import Work

FORM = ("Content-Type", "application/x-www-form-urlencoded")
PLAIN, JSON = ("Content-Type", "text/plain"), ("Content-Type", "application/json")
EVIL = "http://evil.example"
IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"
# what a page in a browser sends of its own accord, and cannot leave out
PAGES = [
    ("Origin", EVIL),
    ("Origin", "null"),
    ("Origin", "http://127.0.0.1"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Site", "none"),
    ("sec-fetch-site", ""),
]


def identity(aws: Aws, *headers: tuple[str, str], host: str | None = "") -> Reply:
    """GetCallerIdentity with the right key."""
    given = [signed(aws.access_key, "sts"), FORM, *headers]
    return ask(aws.port, "POST", "/", given, IDENTITY, host=host)


def run_instances(marker: Path) -> bytes:
    """The body of a RunInstances whose user data makes a file."""
    data = base64.b64encode(f"#!/bin/sh\nid > {marker}\n".encode()).decode()
    given = {"Action": "RunInstances", "Version": "2016-11-15", "ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1}
    return urlencode({**given, "UserData": data}).encode()


def code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str, int]:
    """HTTP status, code and retries of a refused call."""
    meta = caught.value.response["ResponseMetadata"]
    return meta["HTTPStatusCode"], caught.value.response["Error"]["Code"], meta["RetryAttempts"]


# -- Host ----------------------------------------------------------------------------------------------------------


def test_this_machine_by_name_and_by_number_is_answered(aws: Aws) -> None:
    for host in (f"localhost:{aws.port}", f"127.0.0.1:{aws.port}", f"LocalHost:{aws.port}"):
        found = identity(aws, host=host)
        assert (found.status, found.cors) == (200, []), found


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{}", "localhost", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{}",
     "[::1]:{}", "bucket.localhost:{}", "localhost.:{}", "localhost:{}, evil.example", "evil:{}@localhost:{}",
     "0:{}"],
)  # fmt: skip
def test_a_foreign_host_is_refused_whatever_key_it_has(aws: Aws, host: str) -> None:
    found = identity(aws, host=host.replace("{}", str(aws.port)))
    assert found.status == 403
    assert "AccessDenied" in found.text
    assert f"localhost:{aws.port}" in found.text, "it says which Host would be answered"
    assert found.cors == []


def test_no_host_two_hosts_and_a_whole_address_are_refused(aws: Aws) -> None:
    assert identity(aws, host=None).status == 403
    twice = identity(aws, ("Host", f"127.0.0.1:{aws.port}"))
    assert (twice.status, "2 Host headers" in twice.text) == (403, True)
    whole = ask(aws.port, "POST", f"http://localhost:{aws.port}/", [signed(aws.access_key, "sts"), FORM], IDENTITY)
    assert (whole.status, "is no path" in whole.text) == (403, True)


def test_a_client_of_boto3_learns_that_it_must_use_path_addressing(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    mine = lambda host, *more, **named: resolve("127.0.0.1" if host.endswith(".localhost") else host, *more, **named)  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", mine)
    config = Config(s3={"addressing_style": "virtual"}, proxies={})
    s3 = boto3.client("s3", endpoint_url=aws.url, region_name="us-east-1", aws_access_key_id=aws.access_key,
                      aws_secret_access_key=aws.secret_key, config=config)  # fmt: skip
    with pytest.raises(ClientError, match="path addressing"):
        s3.list_objects_v2(Bucket="some-bucket")


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", PAGES)
def test_what_a_page_sends_is_refused_whatever_key_it_has(aws: Aws, header: tuple[str, str]) -> None:
    for method, target in (("POST", "/"), ("OPTIONS", "/"), ("GET", "/some-bucket"), ("PUT", "/some-bucket/key"),
                           ("POST", "/endpoints/depth/invocations"), ("POST", "/_embedded_aws/clock"),
                           ("POST", "/moto-api/reset")):  # fmt: skip
        given = [signed(aws.access_key, "s3"), header, ("Access-Control-Request-Method", "POST")]
        found = ask(aws.port, method, target, given)
        assert (found.status, found.cors) == (403, []), (method, target)


def test_a_page_runs_no_code(aws: Aws, name: str, tmp_path: Path) -> None:
    """What a page could do before: cross-origin with and without a preflight, after rebinding, with a made-up key."""
    marker, body = tmp_path / "marker", run_instances(tmp_path / "marker")
    made_up, own = signed("x", "ec2"), signed(aws.access_key, "ec2")
    attempts = [
        ("", [("Origin", EVIL), made_up, FORM]),
        (f"evil.example:{aws.port}", [made_up, FORM]),
        (f"evil.example:{aws.port}", [own, FORM]),
        ("", [made_up, FORM]),
        ("", [FORM]),
        ("", [PLAIN]),
        ("", [("Origin", EVIL), own, FORM]),
        ("", [("Sec-Fetch-Site", "cross-site"), own, PLAIN]),
    ]
    fleet = Fleet(aws, name)
    before = len(fleet.ec2.describe_instances()["Reservations"])
    for host, headers in attempts:
        for target in ("/", "/ec2_us-east-1/"):
            found = ask(aws.port, "POST", target, headers, body, host=host)
            assert (found.status, found.cors) == (403, []), headers
    assert len(fleet.ec2.describe_instances()["Reservations"]) == before
    assert not marker.exists()
    found = ask(aws.port, "POST", "/", [own, FORM], body)
    assert found.status == 200, "the very same request of a program"
    wait_for(marker.exists, "the user data of a program runs")
    instance = found.text.split("<instanceId>")[1].split("<")[0]
    fleet.ec2.terminate_instances(InstanceIds=[instance])
    fleet.ended(instance)


def test_no_answer_carries_cors_headers(aws: Aws, name: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="key", Body=b"text")
    rule = {
        "AllowedOrigins": ["*"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
    }
    s3.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": [rule]})
    assert s3.get_bucket_cors(Bucket=name)["CORSRules"][0]["AllowedOrigins"] == ["*"]
    mine = signed(aws.access_key, "s3")
    for method, target, header, status in (
        ("GET", f"/{name}/key", mine, 200),
        ("OPTIONS", f"/{name}/key", mine, None),
        ("GET", f"/{name}/nothing", mine, 404),
        ("GET", "/", ("X-Nothing", "signed"), 403),
        ("GET", "/_embedded_aws/clock", ("X-Nothing", "signed"), 401),
    ):
        found = ask(aws.port, method, target, [header])
        assert found.status == status or status is None
        assert found.cors == []


# -- moto's own interfaces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/moto-api/reset", "/moto-api/reset-auth", "/moto-api/", "/moto-api", "/moto-api/data.json", "//moto-api/reset",
     "/%6doto-api/reset", "/moto%2Dapi/reset", "/%2Fmoto-api/reset", "/moto-api//reset", "/moto-api/config?x=y",
     "/moto-api/./reset", "/./moto-api/reset", "/x/../moto-api/reset", "/moto-api/seed?a=1", "/favicon.ico",
     "/latest/meta-data/", "/latest/api/token"],
)  # fmt: skip
def test_motos_own_interfaces_are_closed_with_and_without_a_key(aws: Aws, name: str, target: str) -> None:
    aws.client("s3").create_bucket(Bucket=name)
    for headers in ([], [signed(aws.access_key, "s3")], [signed(aws.access_key, "motoapi")]):
        for method in ("POST", "GET"):
            found = ask(aws.port, method, target, headers)
            if headers and "/." in target:
                assert found.status >= 400, "to moto this is a path of the service, and none that it has"
            else:
                assert found.status == 403, (method, found)
    assert name in {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}


@pytest.mark.parametrize(
    "target",
    ["/us-east-1_abc/.well-known/jwks.json", "/s3_us-east-1/", "/sts_us-east-1/", "/v2/apis", "/2015-03-31/functions/",
     "/some-bucket?list-type=2", "/restapis"],
)  # fmt: skip
def test_what_aws_answers_without_a_signature_is_refused_too(aws: Aws, target: str) -> None:
    assert ask(aws.port, "GET", target, []).status == 403
    body = b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=r&RoleSessionName=s&WebIdentityToken=t"
    assert ask(aws.port, "POST", "/", [FORM], body).status == 403
    pool = [("X-Amz-Target", "AWSCognitoIdentityService.GetId"), ("Content-Type", "application/x-amz-json-1.1")]
    assert ask(aws.port, "POST", "/", pool, b"{}").status == 403


# -- access keys ---------------------------------------------------------------------------------------------------

CALLS = [
    ("s3", "list_buckets", {}, "InvalidAccessKeyId"),
    ("ec2", "describe_instances", {}, "InvalidClientTokenId"),
    ("sts", "get_caller_identity", {}, "InvalidClientTokenId"),
    ("iam", "list_users", {}, "InvalidClientTokenId"),
    ("cloudformation", "list_stacks", {}, "InvalidClientTokenId"),
    ("sns", "list_topics", {}, "InvalidClientTokenId"),
    ("cloudwatch", "list_metrics", {}, "UnrecognizedClientException"),
    ("sagemaker", "list_endpoints", {}, "UnrecognizedClientException"),
    ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "x", "Body": b""}, "UnrecognizedClientException"),
    ("logs", "describe_log_groups", {}, "UnrecognizedClientException"),
    ("stepfunctions", "list_state_machines", {}, "UnrecognizedClientException"),
    ("ssm", "describe_parameters", {}, "UnrecognizedClientException"),
    ("ecr", "describe_repositories", {}, "UnrecognizedClientException"),
    ("kms", "list_keys", {}, "UnrecognizedClientException"),
    ("events", "list_rules", {}, "UnrecognizedClientException"),
    ("lambda", "list_functions", {}, "UnrecognizedClientException"),
    ("application-autoscaling", "describe_scalable_targets", {"ServiceNamespace": "sagemaker"},
     "UnrecognizedClientException"),
]  # fmt: skip


def with_key(aws: Aws, service: str, key: str, secret: str = "any", token: str | None = None) -> Any:
    """A client as a user's program makes it: another key, boto3's own retries."""
    return boto3.client(
        service, endpoint_url=aws.url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        aws_session_token=token, config=Config(proxies={}),
    )  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "given", "expected"), CALLS)
def test_an_unknown_key_is_refused_at_once_in_the_services_own_words(
    aws: Aws, service: str, operation: str, given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(with_key(aws, service, "AKIAIOSFODNN7EXAMPLE"), operation)(**given)
    assert code(caught) == (403, expected, 0)
    assert "inferentia rehearsal env" in str(caught.value)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """Another server, in a folder that was open to all users."""
    directory = tmp_path_factory.mktemp("other")
    directory.chmod(0o755)
    with running(directory) as found:
        yield found


def test_the_key_is_random_and_another_servers_is_refused(aws: Aws, other: Aws) -> None:
    assert other.access_key != aws.access_key
    for one in (aws, other):
        assert one.environment()["AWS_ACCESS_KEY_ID"] == one.access_key
        assert one.environment()["AWS_SECRET_ACCESS_KEY"] == one.secret_key
        assert len(one.access_key) == 20
        assert one.access_key.startswith("AKIA")
    role = other.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="one")
    for key in (other.access_key, role["Credentials"]["AccessKeyId"]):
        assert with_key(other, "sts", key).get_caller_identity()["Account"] == "123456789012"
        with pytest.raises(ClientError) as caught:
            with_key(aws, "sts", key).get_caller_identity()
        assert code(caught) == (403, "InvalidClientTokenId", 0)
    stolen = [("Authorization", f"Bearer {other.token}"), JSON]
    assert ask(other.port, "GET", "/_embedded_aws/clock", stolen).status == 200
    assert ask(aws.port, "GET", "/_embedded_aws/clock", stolen).status == 401


def test_a_created_key_works_until_it_is_deactivated_or_deleted(aws: Aws, name: str) -> None:
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    own = with_key(aws, "sts", made["AccessKeyId"], made["SecretAccessKey"])
    assert own.get_caller_identity()["Arn"].endswith(f"user/{name}")
    iam.update_access_key(UserName=name, AccessKeyId=made["AccessKeyId"], Status="Inactive")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        own.get_caller_identity()
    iam.update_access_key(UserName=name, AccessKeyId=made["AccessKeyId"], Status="Active")
    assert own.get_caller_identity()["Account"] == "123456789012"
    iam.delete_access_key(UserName=name, AccessKeyId=made["AccessKeyId"])
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        own.get_caller_identity()


def test_what_sts_issues_works(aws: Aws, name: str) -> None:
    sts = aws.client("sts")
    role = f"arn:aws:iam::123456789012:role/{name}"
    answers = [
        sts.assume_role(RoleArn=role, RoleSessionName="session"),
        sts.get_session_token(),
        sts.get_federation_token(Name="someone"),
    ]
    for answer in answers:
        found = answer["Credentials"]
        own = [found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]]
        assert own[0].startswith("ASIA")
        assert with_key(aws, "sts", *own).get_caller_identity()["Account"] == "123456789012"
        with_key(aws, "s3", *own).list_buckets()
    first = answers[0]["Credentials"]
    arn = with_key(aws, "sts", first["AccessKeyId"], first["SecretAccessKey"], first["SessionToken"])
    assert arn.get_caller_identity()["Arn"] == f"arn:aws:sts::123456789012:assumed-role/{name}/session"


def test_an_instance_and_a_job_have_keys_of_their_roles(aws: Aws, name: str) -> None:
    fleet = Fleet(aws, name)
    instance = fleet.run("aws sts get-caller-identity; shutdown -h now")
    work = Work(aws, f"{name}-job")
    work.run('echo "key $AWS_ACCESS_KEY_ID token $AWS_SESSION_TOKEN"; mkdir -p "$4/variant" "$4/record"')
    assert "key ASIA" in work.log()
    assert aws.access_key not in work.log()
    fleet.ended(instance)
    assert f"assumed-role/{name}/{instance}" in fleet.console(instance)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_works_with_a_right_key_only(aws: Aws, name: str, version: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="key", Body=b"what is in it")
    config = Config(signature_version=version, s3={"addressing_style": "path"})
    signer = boto3.client("s3", endpoint_url=aws.url, region_name="us-east-1", aws_access_key_id=aws.access_key,
                          aws_secret_access_key=aws.secret_key, config=config)  # fmt: skip
    url = signer.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "key"})
    get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    with get(url, timeout=30) as answer:
        assert answer.read() == b"what is in it"
    for wrong in (url.replace(aws.access_key, "AKIAIOSFODNN7EXAMPLE"), url.split("?")[0]):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(wrong, timeout=30)
        assert caught.value.code == 403
        assert b"InvalidAccessKeyId" in caught.value.read()
    target = "/" + url.split("/", 3)[3]
    assert ask(aws.port, "GET", target, []).status == 200
    assert ask(aws.port, "GET", target, [("Authorization", "AWS nobody:0")]).status == 403, "the header counts"
    assert ask(aws.port, "GET", target, [("Sec-Fetch-Site", "cross-site")]).status == 403


# -- control calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/_embedded_aws/clock", "/_embedded_aws/faults"])
def test_control_calls_need_the_token_json_and_a_bounded_body(aws: Aws, path: str) -> None:
    bearer, body = ("Authorization", f"Bearer {aws.token}"), b'{"waits": 1000}'
    assert ask(aws.port, "GET", path, [bearer]).status == 200
    before = ask(aws.port, "GET", path, [bearer]).text
    for headers, status in (
        ([JSON], 401),
        ([JSON, ("Authorization", "Bearer x")], 401),
        ([JSON, ("Authorization", aws.token)], 401),
        ([JSON, signed(aws.access_key, "sts")], 401),
        ([JSON, bearer, ("Origin", EVIL)], 403),
        ([bearer, PLAIN], 415),
        ([bearer], 415),
        ([bearer, FORM], 415),
        ([bearer, JSON, ("Content-Length", "99999999999")], 413),
        ([bearer, JSON, ("Transfer-Encoding", "chunked")], 411),
    ):
        sent = b"" if status in {411, 413} else body
        assert ask(aws.port, "POST", path, headers, sent).status == status, headers
    assert ask(aws.port, "DELETE", path, [("Authorization", "Bearer x")]).status == 401
    assert ask(aws.port, "GET", "/_embedded_aws/other", [bearer]).status == 404
    assert ask(aws.port, "GET", path, [bearer]).text == before


# -- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "target", "size"), [("s3", "/b/k", 99999999999), ("sts", "/", 200_000_000)])
def test_a_body_that_is_too_large_is_refused_before_it_comes(aws: Aws, service: str, target: str, size: int) -> None:
    given = [signed(aws.access_key, service), FORM, ("Content-Length", str(size))]
    found = ask(aws.port, "PUT" if service == "s3" else "POST", target, given)
    assert (found.status, "EntityTooLarge" in found.text) == (413, True)
    chunked = [signed(aws.access_key, "sts"), FORM, ("Transfer-Encoding", "chunked")]
    assert ask(aws.port, "POST", "/", chunked, b"%x\r\n%b\r\n0\r\n\r\n" % (len(IDENTITY), IDENTITY)).status == 200


@pytest.mark.slow
def test_a_body_that_does_not_come_is_given_up(aws: Aws) -> None:
    for target in ("/", "/bucket/key"):
        given = [signed(aws.access_key, "s3" if target != "/" else "sts"), FORM, ("Content-Length", "100")]
        assert ask(aws.port, "POST", target, given, b"begun").status == 400


def test_a_large_object_goes_in_and_comes_out_whole(aws: Aws, name: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    body = os.urandom(1 << 20) * 24
    s3.put_object(Bucket=name, Key="key", Body=body)
    assert s3.get_object(Bucket=name, Key="key")["Body"].read() == body


# -- the folder ----------------------------------------------------------------------------------------------------


def test_the_folder_and_what_lies_in_it_are_for_its_user_alone(other: Aws) -> None:
    assert stat.S_IMODE(other.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((other.directory / "server.json").stat().st_mode) == 0o600


def test_a_folder_of_another_user_or_of_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    done = run("serve", "--directory", str(shared))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "shared by all users (mode 1777)" in done.stderr
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(AccessError, match=f"belongs to user {mine}, and this is user {mine + 1}"):
        private_directory(tmp_path)


# -- instance metadata ---------------------------------------------------------------------------------------------


@pytest.fixture
def metadata() -> Iterator[tuple[Metadata, int, list[list[str]]]]:
    """One that needs no token to read, its port, and the shutdowns that reached it."""
    called: list[list[str]] = []
    made = Metadata(
        lambda: {"/latest/meta-data/ami-id": "ami-1"}, lambda given: called.append(given) or "done", required=False
    )
    yield made, int(made.url.rsplit(":", 1)[1]), called
    made.stop()


def test_metadata_answers_no_page_and_no_foreign_host(metadata: tuple[Metadata, int, list[list[str]]]) -> None:
    _, port, called = metadata
    path = "/latest/meta-data/ami-id"
    assert ask(port, "GET", path, []).text == "ami-1"
    token = ask(port, "PUT", "/latest/api/token", [(TTL, "60")]).text
    assert ask(port, "GET", path, [(TOKEN, token)]).text == "ami-1"
    for host in (f"evil.example:{port}", "169.254.169.254", None):
        for method in ("GET", "PUT", "POST", "OPTIONS"):
            found = ask(port, method, path, [(TOKEN, token)], host=host)
            assert (found.status, found.cors) == (403, [])
    for header in PAGES:
        assert ask(port, "GET", path, [header]).status == 403
        assert ask(port, "PUT", "/latest/api/token", [(TTL, "60"), header]).status == 403
    assert called == []


def test_only_the_double_of_shutdown_shuts_down(metadata: tuple[Metadata, int, list[list[str]]]) -> None:
    served, port, called = metadata
    body = json.dumps(["-h", "now"]).encode()
    secret = ("Authorization", f"Bearer {served.secret}")
    for headers in ([], [("Authorization", "Bearer x")], [("Authorization", served.secret)]):
        assert ask(port, "PUT", SHUTDOWN, headers, body).status == 403
    assert ask(port, "PUT", SHUTDOWN, [secret, ("Origin", EVIL)], body).status == 403
    assert ask(port, "PUT", SHUTDOWN, [secret, ("Content-Length", "99999999999")]).status == 400
    assert ask(port, "PUT", SHUTDOWN, [secret]).status == 400
    assert called == []
    assert ask(port, "PUT", SHUTDOWN, [secret], body).text == "done"
    assert called == [["-h", "now"]]
