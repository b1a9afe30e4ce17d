"""SageMaker Processing jobs: what the script is given, what becomes of its output, and how it may end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from embedded_aws.process import isolation
from tests.embedded_aws.helpers import Fleet
from tests.embedded_aws.running import MODULE, ROOT, Aws, running, wait_for
from tests.embedded_aws.work import IMAGE_URI, Work, arm, trust


@pytest.fixture
def work(aws: Aws, name: str) -> Work:
    return Work(aws, name)


def refused(work: Work, **changes: Any) -> tuple[str, str]:
    """Code and message of a CreateProcessingJob that is refused."""
    with pytest.raises(ClientError) as caught:
        work.sagemaker.create_processing_job(**{**work.request("true"), **changes})
    details = caught.value.response["Error"]
    return details["Code"], details["Message"]


def with_type(work: Work, instance_type: str, count: int = 1) -> dict[str, Any]:
    cluster = {"InstanceCount": count, "InstanceType": instance_type, "VolumeSizeInGB": 30}
    return {"ProcessingResources": {"ClusterConfig": cluster}}


def test_a_job_reads_its_inputs_and_leaves_its_outputs(work: Work) -> None:
    work.put("code/lib/helper.sh", "echo helped")
    work.put("cache/one/variant.tar", b"\x001")
    work.put("cache/two/variant.tar", b"\x002")
    work.put("cache/three/variant.tar", b"not asked for")
    manifest = [{"prefix": f"s3://{work.bucket}/cache/"}, "one/variant.tar", "two/variant.tar"]
    work.put("runs/variants.manifest", json.dumps(manifest))
    script = """set -eu
        echo "arguments $*"; echo "greeting $GREETING"; sh "$3/project/lib/helper.sh"
        cat "$3"/variants/*/variant.tar > "$4/variant/all.bin"; find "$3/variants" -type f | wc -l
        mkdir "$4/variant/deep"; echo nested > "$4/variant/deep/file"; ln -s deep/file "$4/variant/link"
        base="${3%/processing/input}"; cp "$base"/config/*.json "$4/record/"
        echo done well > "$INFERENTIA_MESSAGE_FILE"; command -v python3; echo on stderr >&2"""
    sources = [work.source("project", "code/"), work.source("variants", "runs/variants.manifest", "ManifestFile")]
    environment = {"GREETING": "hello", "INFERENTIA_MESSAGE_FILE": "/opt/ml/output/message"}
    ended = work.run(script, ProcessingInputs=sources, Environment=environment)
    assert ended["ProcessingJobStatus"] == "Completed", (ended, work.log())
    assert ended["ExitMessage"] == "done well\n"
    assert ended["CreationTime"] <= ended["ProcessingStartTime"] <= ended["ProcessingEndTime"]
    assert ended["Environment"] == environment, "what was asked for comes back as it was"
    assert work.keys("out/variant/") == ["out/variant/all.bin", "out/variant/deep/file"], "links are not followed"
    assert work.read("out/variant/all.bin") == b"\x001\x002"
    config = json.loads(work.read("out/record/processingjobconfig.json"))
    assert (config["ProcessingJobArn"], config["Environment"]) == (ended["ProcessingJobArn"], environment)
    assert json.loads(work.read("out/record/resourceconfig.json"))["current_host"] == "algo-1"
    log = work.log()
    for line in ("greeting hello", "helped", "2\n", "on stderr", "/python3"):
        assert line in log
    assert "/opt/ml/processing/input" in log, "the scratch folder ends like the container's"
    assert list((work.aws.directory / "jobs" / work.name).iterdir()) == [], "the disk is gone with the job"


def test_jobs_and_instances_have_the_python_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3.10"
    python.write_text(f'#!/bin/sh\nNAMED=yes exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "servers.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    say = "python3 -c \"import os; print('named', os.environ['NAMED'], os.environ.get('PYTHONPATH'))\""
    with running(tmp_path / "aws", "--job-python", str(python)) as aws:
        work = Work(aws, "named")
        work.put("code/code/sent.py", "print('what was sent')")
        path = "/opt/ml/processing/input/project/code"
        ended = work.run(
            f"{say}; python -c 'import sent' && ! python -c 'import servers'", Environment={"PYTHONPATH": path}
        )
        assert ended["ProcessingJobStatus"] == "Completed", work.log()
        assert "what was sent" in work.log()
        assert f"{path}\n" in work.log()
        assert "No module named 'servers'" in work.log()
        fleet = Fleet(aws, "fleet")
        instance = fleet.run(f"{say}; shutdown -h now")
        fleet.ended(instance)
        assert "named yes None" in fleet.console(instance)
    again = [*MODULE, "up", "--job-python", str(tmp_path / "none"), "--directory", str(tmp_path / "aws")]
    assert subprocess.run(again, cwd=ROOT, check=False, capture_output=True).returncode == 2


def test_the_log_and_continuous_outputs_appear_while_it_runs(work: Work) -> None:
    work.start("echo first line; echo one > $4/record/log; echo half > $4/variant/half; while :; do sleep 0.2; done")
    wait_for(lambda: "first line" in work.log() and work.keys("out/record/"), "a line and an output")
    assert work.status() == "InProgress"
    assert work.keys("out/variant/") == []
    work.sagemaker.stop_processing_job(ProcessingJobName=work.name)
    ended = work.ended()
    assert ended["ProcessingJobStatus"] == "Stopped"
    assert work.keys("out/variant/") == [], "what a stopped job had begun is not stored"
    with pytest.raises(ClientError, match="the processing job is in status Stopped"):
        work.sagemaker.stop_processing_job(ProcessingJobName=work.name)


def test_a_failing_job_says_why(work: Work) -> None:
    said = "echo 'neuron-cc was killed' > $INFERENTIA_MESSAGE_FILE"
    ended = work.run(f"echo half > $4/variant/variant.tar; echo log > $4/record/log; {said}; exit 3")
    assert (ended["ProcessingJobStatus"], ended["FailureReason"]) == ("Failed", "AlgorithmError: , exit code: 3")
    assert ended["ExitMessage"] == "neuron-cc was killed\n"
    assert work.keys("out/") == ["out/record/log"]


def test_the_message_is_cut_at_a_kilobyte_and_must_be_text(work: Work) -> None:
    ended = work.run("python3 -c \"print('é' * 1000)\" > $INFERENTIA_MESSAGE_FILE", ProcessingJobName=f"{work.name}-a")
    assert ended["ExitMessage"] == "é" * 512
    ended = work.run("printf '\\377' > $INFERENTIA_MESSAGE_FILE", ProcessingJobName=f"{work.name}-b")
    assert ended["FailureReason"].startswith("ClientError: /opt/ml/output/message is not UTF-8")


def test_a_job_that_runs_too_long_is_stopped(work: Work) -> None:
    ended = work.run("trap '' TERM; sleep 60 & wait", StoppingCondition={"MaxRuntimeInSeconds": 60})
    assert ended["ProcessingJobStatus"] == "Stopped"
    assert (ended["ProcessingEndTime"] - ended["ProcessingStartTime"]).total_seconds() < 45
    assert "MaxRuntimeInSeconds (60) is over" in work.log()


def test_network_isolation(work: Work) -> None:
    port = work.aws.url.rsplit(":", 1)[1]
    connect = f'import socket; socket.create_connection(("127.0.0.1", {port}), 2)'
    script = f"env; python3 -c '{connect}' && echo REACHED"
    work.run(script + "; true", NetworkConfig={"EnableNetworkIsolation": True}, ProcessingJobName=f"{work.name}-cut")
    log = work.log(f"{work.name}-cut")
    assert "AWS_ENDPOINT_URL" not in log
    assert "AWS_SECRET_ACCESS_KEY" not in log
    assert "AWS_REGION=us-east-1" in log
    assert ("REACHED" not in log) == isolation.possible()
    work.run(script + "; true", ProcessingJobName=f"{work.name}-open")
    assert "REACHED" in work.log(f"{work.name}-open")
    assert f"AWS_ENDPOINT_URL={work.aws.url.replace('localhost', '127.0.0.1')}" in work.log(f"{work.name}-open")


@pytest.mark.parametrize(
    "uri",
    [
        IMAGE_URI + "-nightly",
        IMAGE_URI.replace(IMAGE_URI[:12], "111122223333"),
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1",
    ],
)
def test_an_image_that_cannot_be_pulled(work: Work, uri: str) -> None:
    request = work.request("touch $4/variant/ran")
    request["AppSpecification"]["ImageUri"] = uri
    work.sagemaker.create_processing_job(**request)
    ended = work.ended()
    assert ended["ProcessingJobStatus"] == "Failed"
    assert ended["FailureReason"] == (
        f"ClientError: API error (404): manifest for {uri} not found: manifest unknown: Requested image not found"
    )
    assert work.keys("out/") == []


def test_missing_inputs_are_named(work: Work) -> None:
    for source, said in (
        (work.source("a", "nothing/"), f'No S3 objects found under S3 URL "s3://{work.bucket}/nothing/"'),
        (work.source("a", "no.manifest", "ManifestFile"), "NoSuchKey"),
        ({**work.source("a", "x/")}, "NoSuchBucket"),
    ):
        if said == "NoSuchBucket":
            source["S3Input"]["S3Uri"] = f"s3://{work.name}-other/x/"
        job = f"{work.name}-{said[:12].strip().replace(' ', '-')}"
        ended = work.run("true", ProcessingInputs=[work.source("project", "code/"), source], ProcessingJobName=job)
        assert ended["ProcessingJobStatus"] == "Failed"
        assert said in ended["FailureReason"]


def test_a_manifest_cannot_lead_out_of_its_folder(work: Work) -> None:
    work.put("evil", b"x")
    work.put("m", json.dumps([{"prefix": f"s3://{work.bucket}/"}, "../../../../evil"]))
    ended = work.run("true", ProcessingInputs=[work.source("project", "m", "ManifestFile")])
    assert ended["ProcessingJobStatus"] == "Failed"
    assert not list(work.aws.directory.rglob("evil"))


def test_requests_that_sagemaker_refuses(work: Work) -> None:
    assert refused(work, **with_type(work, "ml.inf1.xlarge"))[0] == "ValidationException"
    assert "enum value set" in refused(work, **with_type(work, "ml.inf2.xlarge"))[1]
    assert "regular expression pattern" in refused(work, ProcessingJobName="under_score")[1]
    assert "less than or equal to 63" in refused(work, ProcessingJobName="n" * 64)[1]
    many = [work.source(f"i{index}", "code/") for index in range(11)]
    assert "'processingInputs'" in refused(work, ProcessingInputs=many)[1]
    assert "Could not assume role" in refused(work, RoleArn="arn:aws:iam::123456789012:role/nobody")[1]
    work.aws.client("iam").update_assume_role_policy(
        RoleName=f"{work.name}-role", PolicyDocument=trust("ec2.amazonaws.com")
    )
    assert "allows principal 'sagemaker.amazonaws.com'" in refused(work)[1]


def test_what_is_not_honoured_is_refused_by_its_name(work: Work) -> None:
    assert "InstanceCount must be 1" in refused(work, **with_type(work, "ml.c5.xlarge", 2))[1]
    assert "ContainerEntrypoint" in refused(work, AppSpecification={"ImageUri": IMAGE_URI})[1]
    pipe = work.source("project", "code/")
    pipe["S3Input"]["S3InputMode"] = "Pipe"
    assert "S3InputMode File, not Pipe" in refused(work, ProcessingInputs=[pipe])[1]
    outside = work.source("project", "code/")
    outside["S3Input"]["LocalPath"] = "/opt/program"
    assert "must begin with /opt/ml/processing/" in refused(work, ProcessingInputs=[outside])[1]


def test_a_name_is_used_once(work: Work) -> None:
    assert work.run("true")["ProcessingJobStatus"] == "Completed"
    code, message = refused(work)
    assert (code, "Job name must be unique" in message) == ("ResourceInUse", True)
    with pytest.raises(work.sagemaker.exceptions.ResourceNotFound):
        work.sagemaker.describe_processing_job(ProcessingJobName="nobody")


def test_lists_and_tags(work: Work) -> None:
    tags = [{"Key": "team", "Value": "documents"}]
    work.run("true", ProcessingJobName=f"{work.name}-b", Tags=tags)
    work.run("exit 1", ProcessingJobName=f"{work.name}-a")
    found = work.sagemaker.list_processing_jobs(NameContains=work.name, SortBy="Name", SortOrder="Ascending")
    rows = [(row["ProcessingJobName"], row["ProcessingJobStatus"]) for row in found["ProcessingJobSummaries"]]
    assert rows == [(f"{work.name}-a", "Failed"), (f"{work.name}-b", "Completed")]
    page = work.sagemaker.list_processing_jobs(NameContains=work.name, MaxResults=1)
    assert page["ProcessingJobSummaries"][0]["ProcessingJobName"] == f"{work.name}-a", "the newest comes first"
    rest = work.sagemaker.list_processing_jobs(NameContains=work.name, MaxResults=1, NextToken=page["NextToken"])
    assert (len(rest["ProcessingJobSummaries"]), "NextToken" in rest) == (1, False)
    arn = rest["ProcessingJobSummaries"][0]["ProcessingJobArn"]
    assert work.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags


@pytest.mark.slow
def test_the_quota_of_an_instance_type(aws: Aws, name: str) -> None:
    work = Work(aws, name)
    request = work.request("sleep 60", **with_type(work, "ml.m5.large"))
    names = [f"{name}-{index}" for index in range(4)]
    try:
        for job in names:
            work.sagemaker.create_processing_job(**{**request, "ProcessingJobName": job})
        with pytest.raises(work.sagemaker.exceptions.ResourceLimitExceeded) as caught:
            work.sagemaker.create_processing_job(**request)
        said = "'ml.m5.large for processing job usage' is 4 Instances, with current utilization of 4 Instances"
        assert said in str(caught.value)
        assert work.run("true", **with_type(work, "ml.m5.xlarge"))["ProcessingJobStatus"] == "Completed"
    finally:
        for job in names:
            work.sagemaker.stop_processing_job(ProcessingJobName=job)
    for job in names:
        work.ended(job)


@pytest.mark.parametrize(
    ("action", "status", "reason"),
    [
        ("fail", "Failed", "AlgorithmError: , exit code: 1"),
        ("kill", "Failed", "AlgorithmError: , exit code: 137"),
        ("stop", "Stopped", None),
        ("no-capacity", "Failed", "CapacityError: Unable to provision requested ML compute capacity."),
        ("internal-error", "Failed", "InternalServerError: We encountered an internal error."),
    ],
)
def test_injected_ends(work: Work, action: str, status: str, reason: str | None) -> None:
    arm(work.aws, kind="job", action=action, where=f"^{work.name}$")
    ended = work.run("sleep 1; echo variant > $4/variant/variant.tar")
    assert ended["ProcessingJobStatus"] == status
    assert (ended.get("FailureReason") or "").startswith(reason or "")
    assert work.keys("out/variant/") == []
    assert work.run("true", ProcessingJobName=f"{work.name}-next")["ProcessingJobStatus"] == "Completed"


@pytest.mark.slow
def test_a_job_that_hangs_is_bounded_by_its_limit(work: Work) -> None:
    arm(work.aws, kind="job", action="hang", where=work.name)
    work.start("while :; do sleep 0.1; done", StoppingCondition={"MaxRuntimeInSeconds": 120})  # here 2 s
    assert work.ended()["ProcessingJobStatus"] == "Stopped"


@pytest.mark.parametrize(("error", "said"), [("AccessDenied", "AccessDenied"), ("drop", "Connection")])
def test_an_upload_that_is_interrupted_publishes_nothing_of_a_file(work: Work, error: str, said: str) -> None:
    script = "head -c 20000000 /dev/zero > $4/variant/variant.tar"  # three parts of a multipart upload
    fault = {"action": "drop"} if error == "drop" else {"action": "error", "error": error}
    arm(work.aws, kind="call", operation="s3:UploadPart", where="partNumber=2", **fault)
    ended = work.run(script)
    assert ended["ProcessingJobStatus"] == "Failed"
    assert ended["FailureReason"].startswith("ClientError: Failed to upload data.")
    assert said in ended["FailureReason"]
    assert work.keys("out/") == []
    assert "Uploads" not in work.s3.list_multipart_uploads(Bucket=work.bucket), "and it leaves no parts behind"
    assert work.run(script, ProcessingJobName=f"{work.name}-again")["ProcessingJobStatus"] == "Completed"


def test_a_bucket_that_cannot_be_written(work: Work) -> None:
    below = f"arn:aws:s3:::{work.bucket}/out/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": below}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    work.s3.put_bucket_policy(Bucket=work.bucket, Policy=policy)
    ended = work.run("echo variant > $4/variant/variant.tar")
    assert ended["ProcessingJobStatus"] == "Failed"
    assert "403" in ended["FailureReason"]
    assert f"s3://{work.bucket}/out/variant/variant.tar" in ended["FailureReason"]


def test_neo_is_not_rehearsed(work: Work) -> None:
    with pytest.raises(ClientError, match="does not rehearse Neo"):
        work.sagemaker.create_compilation_job(
            CompilationJobName=work.name,
            RoleArn=work.role,
            InputConfig={"S3Uri": "s3://b/m.tar.gz", "Framework": "PYTORCH", "DataInputConfig": "{}"},
            OutputConfig={"S3OutputLocation": "s3://b/out/", "TargetDevice": "ml_inf1"},
            StoppingCondition={"MaxRuntimeInSeconds": 900},
        )


@pytest.mark.slow
def test_jobs_die_with_the_server(tmp_path: Any) -> None:
    with running(tmp_path / "aws") as aws:
        work = Work(aws, "dies")
        work.start("sleep 600 & sleep 600")
        workers = wait_for(lambda: found if len(found := aws.workers()) >= 3 else None, "the job's processes")
        aws.end()
        gone, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []
        assert len(gone) >= 3
