"""The command line: loopback only, one server a directory, what it prints."""

from __future__ import annotations

import ctypes
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.helpers import run
from tests.embedded_aws.running import Aws, running


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.com"])
def test_any_other_host_is_refused(tmp_path: Path, host: str) -> None:
    done = run("serve", "--directory", str(tmp_path), "--host", host)
    assert done.returncode == 2
    assert f"--host {host}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "server.json").exists()


def test_it_listens_on_loopback_only(aws: Aws) -> None:
    found = psutil.Process(aws.process.pid).net_connections(kind="inet")
    assert {item.laddr.ip for item in found if item.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_second_server_for_a_directory_and_a_taken_port_are_refused(aws: Aws, tmp_path: Path) -> None:
    again = run("serve", "--directory", str(aws.directory))
    assert (again.returncode, aws.url in again.stderr) == (1, True)
    other = run("up", "--directory", str(aws.directory), "--job-python", sys.executable)
    assert (other.returncode, "runs already, with the Python that it was started" in other.stderr) == (2, True)
    port = json.loads((aws.directory / "server.json").read_text())["port"]
    taken = run("serve", "--directory", str(tmp_path), "--port", str(port))
    assert (taken.returncode, f"port {port} is taken" in taken.stderr) == (1, True)


def test_a_folder_that_cannot_be_made_and_an_impossible_port_are_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (("--directory", str(tmp_path / "file" / "aws")), "cannot be made"),
        (("--directory", str(tmp_path / "aws"), "--port", "99999"), "--port"),
    ):
        done = run("serve", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_damaged_state_file_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("{")
    done = run("stop", "--directory", str(tmp_path))
    assert (done.returncode, "nothing runs" in done.stderr) == (0, True)


def test_the_environment_points_clients_to_it(aws: Aws, tmp_path: Path) -> None:
    variables = aws.environment()
    assert variables["AWS_ENDPOINT_URL"] == aws.url
    assert aws.url.startswith("http://localhost:")
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["AWS_EC2_METADATA_DISABLED"] == variables["CDK_DISABLE_CLI_TELEMETRY"] == "true"
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"
    nothing = run("environment", "--directory", str(tmp_path))
    assert nothing.returncode == 1
    assert "inferentia rehearsal up" in nothing.stderr


def test_stop_ends_it_and_takes_its_state_file_away(tmp_path: Path) -> None:
    with running(tmp_path) as aws:
        done = run("stop", "--directory", str(tmp_path))
        assert done.returncode == 0
        assert aws.process.wait(20) == 0
        assert not (tmp_path / "server.json").exists()
    assert run("stop", "--directory", str(tmp_path)).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a signal to one thread of another process")
def test_a_signal_that_another_thread_receives_ends_it(tmp_path: Path) -> None:
    """The kernel may choose any thread (signal(7)); Python's handler runs in the first one alone."""
    with running(tmp_path / "aws") as aws:
        process = psutil.Process(aws.process.pid)
        thread = next(one.id for one in process.threads() if one.id != process.pid)
        tgkill = {"x86_64": 234, "aarch64": 131}[platform.machine()]
        ctypes.CDLL(None).syscall(tgkill, process.pid, thread, int(signal.SIGTERM))
        assert aws.process.wait(30) == 0


def test_a_state_file_of_a_dead_server_does_not_count(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://localhost:1", "pid": process.pid, "port": 1}))
    assert run("environment", "--directory", str(tmp_path)).returncode == 1


def test_faults_are_armed_listed_and_cleared(tmp_path: Path) -> None:
    where = "--directory", str(tmp_path)
    assert run("fault", "list", *where).returncode == 1, "nothing runs yet"
    with running(tmp_path) as aws:
        assert run("fault", "call", "s3:PutObject", "AccessDenied", *where, "--where", "models/").returncode == 0
        assert run("fault", "job", "kill", *where, "--after", "2").returncode == 0
        assert run("fault", "instance", "interrupt", *where, "--times", "3").returncode == 0
        rows = [json.loads(line) for line in run("fault", "list", *where).stdout.splitlines()]
        assert [(row["kind"], row["action"], row["times"]) for row in rows] == [
            ("call", "error", 1),
            ("job", "kill", 1),
            ("instance", "interrupt", 3),
        ]
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="models-bucket")
        s3.put_object(Bucket="models-bucket", Key="other", Body=b"")
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.put_object(Bucket="models-bucket", Key="models/x", Body=b"")
        s3.put_object(Bucket="models-bucket", Key="models/x", Body=b"")
        for wrong in (("job", "explode"), ("call", "PutObject", "AccessDenied"), ("job", "kill", "--where", "(")):
            done = run("fault", *wrong, *where)
            assert (done.returncode, "Traceback" in done.stderr) == (2, False), wrong
        assert run("fault", "clear", *where).returncode == 0
        assert run("fault", "list", *where).stdout == ""
        assert json.loads(run("clock", *where, "--wait-speed", "50").stdout) == {"waits": 50.0, "limits": 1.0}
        assert run("clock", *where, "--limit-speed", "0.5").returncode == 2


def test_an_unknown_operation_says_so(aws: Aws) -> None:
    with pytest.raises(ClientError, match=r"the embedded AWS \(sagemaker\)") as caught:
        aws.client("sagemaker").list_inference_experiments()
    assert caught.value.response["Error"]["Code"] == "NotImplemented"


@pytest.mark.parametrize("service", ["cloudcontrol", "sts"])
def test_a_hotswap_is_refused_with_what_to_run_instead(aws: Aws, service: str) -> None:
    """What `cdk deploy --hotswap` and `cdk watch` ask: Cloud Control, or any service by the CLI's name for a swap."""
    client = aws.client(service)
    swap = "aws-sdk-js/3.1 cdk-hotswap/success-states-state-machine"
    client.meta.events.register("before-send.*", lambda request, **_: request.headers.update({"User-Agent": swap}))
    asked = {"TypeName": "AWS::CloudWatch::Alarm", "Identifier": "one", "PatchDocument": "[]"}
    with pytest.raises(ClientError, match=r"the embedded AWS has no hotswap, .* nor of cdk watch: run cdk deploy"):
        client.update_resource(**asked) if service == "cloudcontrol" else client.get_caller_identity()


def test_cloudtrail_answers_the_question_of_the_cdk_cli(aws: Aws) -> None:
    assert aws.client("cloudtrail").lookup_events(MaxResults=1)["Events"] == []


def test_a_tls_only_bucket_is_kept_as_written_and_used_over_loopback(aws: Aws, name: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{name}/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    s3.put_object(Bucket=name, Key="k", Body=b"y")
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"y"
    assert json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"] == [deny]
    whole = {key: value for key, value in deny.items() if key != "Condition"}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [whole]}))
    with pytest.raises(s3.exceptions.ClientError, match="403"):
        s3.get_object(Bucket=name, Key="k")
