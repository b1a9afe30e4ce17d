"""The whole way with the stock CDK CLI and boto3: two endpoints, one of them a user's own model and handler.

Each test runs alone on what the fixture deployed, in any order but for the last, which takes it down.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from tests.compile.projects import TINY
from tests.embedded_aws.running import wait_for
from tests.end_to_end.rehearsal import ROOT, Rehearsal, copy_example

PHOTOGRAPH = (ROOT / "examples" / "photographs" / "coffee.jpg").read_bytes()
STACK = "InferentiaEndpoint-depth"


def write_depth(folder: Path, *, weights: str = "random:0", more: str = "") -> None:
    """The spec of a tiny Depth Anything V2."""
    model = f'{{family: depth_anything_v2, variant: vits, weights: "{weights}", options: {TINY}}}'
    (folder / "endpoints").mkdir(exist_ok=True)
    (folder / "endpoints" / "depth.yaml").write_text(f"name: depth\nmodel: {model}\n{more}")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Two endpoints, built, published and deployed."""
    rehearsal = Rehearsal(tmp_path_factory.mktemp("rehearsal"))
    write_depth(rehearsal.folder)
    copy_example(rehearsal.folder)
    try:
        rehearsal.start()
        for name in ("depth", "vibration"):
            rehearsal.python("compile", "build", name, "--rehearse")
        rehearsal.must(ROOT / ".venv" / "bin" / "cdk", "bootstrap", "aws://123456789012/us-east-1")
        rehearsal.deploy("InferentiaArtifacts")
        for name in ("depth", "vibration"):
            rehearsal.python("operations", "publish", name, "--rehearsal")
        rehearsal.deploy("--all", synthesized=True)
        yield rehearsal
    finally:
        rehearsal.stop()


def ask(rehearsal: Rehearsal, body: bytes, content_type: str, accept: str = "application/x-npy", **more: Any) -> Any:
    """Invoke depth."""
    runtime = rehearsal.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="depth", Body=body, ContentType=content_type, Accept=accept, **more)
    return answer["Body"].read(), answer["ContentType"]


def npy(body: bytes) -> np.ndarray:
    """A .npy body as an array."""
    array: np.ndarray = np.load(io.BytesIO(body), allow_pickle=False)
    return array


def saved(array: np.ndarray, **options: Any) -> bytes:
    """An array as .npy."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_a_photograph_becomes_a_depth_map_of_its_size(rehearsal: Rehearsal) -> None:
    body, content_type = ask(rehearsal, PHOTOGRAPH, "image/jpeg")
    depth = npy(body)
    assert content_type == "application/x-npy"
    assert (depth.dtype, depth.shape) == (np.float32, (400, 600))
    assert float(depth.std()) > 0.01 * abs(float(depth.mean()))


def test_the_png_reads_back_as_the_array(rehearsal: Rehearsal) -> None:
    depth = npy(ask(rehearsal, PHOTOGRAPH, "image/jpeg")[0])
    picture = Image.open(io.BytesIO(ask(rehearsal, PHOTOGRAPH, "image/jpeg", "image/png")[0]))
    assert isinstance(picture.text, dict)
    low, high = float(picture.text["minimum"]), float(picture.text["maximum"])
    back = low + np.asarray(picture).astype(np.float64) / 65535 * (high - low)
    assert np.abs(back - depth).max() <= (high - low) / 65535


def test_the_models_own_size_through_custom_attributes(rehearsal: Rehearsal) -> None:
    body, _ = ask(rehearsal, PHOTOGRAPH, "image/jpeg", CustomAttributes="size=model")
    assert npy(body).shape == (56, 56)


def test_smoke_passes_for_both(rehearsal: Rehearsal) -> None:
    for name in ("depth", "vibration"):
        assert "smoke passed" in rehearsal.python("operations", "smoke", name, "--rehearsal")


def test_the_users_own_handler_answers(rehearsal: Rehearsal) -> None:
    lock = json.loads((rehearsal.folder / "build/rehearsal/vibration.lock.json").read_text())
    request = lock["sample"]["request"]
    answer = rehearsal.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="vibration",
        Body=base64.b64decode(request["body"]),
        ContentType=request["content_type"],
        Accept=request["accept"],
    )
    found = json.loads(answer["Body"].read())
    assert found.keys() == lock["sample"]["answer"]["json"].keys()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"this is no picture", "image/jpeg", 400),
        (PHOTOGRAPH[:2000], "image/jpeg", 400),
        (b"just text", "text/plain", 415),
        (saved(np.array([{"a": 1}], dtype=object), allow_pickle=True), "application/x-npy", 400),
        (b"", "image/png", 400),
    ],
    ids=["no picture", "truncated", "text", "pickle", "empty"],
)
def test_what_cannot_be_read_is_a_model_error_in_json(
    rehearsal: Rehearsal, body: bytes, content_type: str, status: int
) -> None:
    with pytest.raises(ClientError) as caught:
        ask(rehearsal, body, content_type)
    response: Any = caught.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert response["OriginalStatusCode"] == status
    message = json.loads(response["OriginalMessage"])
    assert message.keys() == {"error", "detail"}
    assert "Traceback" not in response["OriginalMessage"]


def test_a_picture_of_forty_megapixels_names_its_alternatives(rehearsal: Rehearsal) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8000, 5000), (90, 120, 30)).save(stream, "JPEG")
    with pytest.raises(ClientError) as caught:
        ask(rehearsal, stream.getvalue(), "image/jpeg")
    response: Any = caught.value.response
    assert response["OriginalStatusCode"] == 413
    assert "size=model" in response["OriginalMessage"]
    assert npy(ask(rehearsal, stream.getvalue(), "image/jpeg", CustomAttributes="size=model")[0]).shape == (56, 56)


def test_a_rehearsal_says_that_it_is_one(rehearsal: Rehearsal) -> None:
    body, _ = ask(rehearsal, PHOTOGRAPH, "image/jpeg", "application/json; size=model")
    assert json.loads(body)["rehearsal"] is True


def test_calls_show_in_cloudwatch(rehearsal: Rehearsal) -> None:
    ask(rehearsal, PHOTOGRAPH, "image/jpeg")
    with pytest.raises(ClientError):
        ask(rehearsal, b"this is no picture", "image/jpeg")
    names = {
        row["MetricName"] for row in rehearsal.client("cloudwatch").list_metrics(Namespace="AWS/SageMaker")["Metrics"]
    }
    assert {"Invocations", "ModelLatency", "OverheadLatency", "Invocation4XXErrors"} <= names


def test_deploying_again_changes_nothing(rehearsal: Rehearsal) -> None:
    said = rehearsal.deploy("--all")
    assert said.count("no changes") == 3


def latency_threshold(rehearsal: Rehearsal) -> float:
    """The latency alarm's threshold, in CloudWatch's microseconds."""
    alarms = rehearsal.client("cloudwatch").describe_alarms()["MetricAlarms"]
    found = [row["Threshold"] for row in alarms if STACK in row["AlarmName"] and "AlarmsLatency" in row["AlarmName"]]
    assert len(found) == 1
    return float(found[0])


def test_a_changed_alarm_needs_no_new_lock(rehearsal: Rehearsal) -> None:
    write_depth(rehearsal.folder, more="alarms: {p99_latency: 321ms}\n")
    rehearsal.deploy(STACK)
    assert latency_threshold(rehearsal) == 321_000


def fleet(rehearsal: Rehearsal) -> tuple[str, int]:
    """Type and number of the instances."""
    sagemaker = rehearsal.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName="depth")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    return config["ProductionVariants"][0]["InstanceType"], endpoint["ProductionVariants"][0]["CurrentInstanceCount"]


@pytest.mark.slow  # test_hosting has the same of a template that is written out
def test_a_fleet_is_fixed_then_of_another_type_then_scaled_again(rehearsal: Rehearsal) -> None:
    small = "serve: {instance_type: ml.inf1.xlarge}\n"
    for more, found in (
        ("scale: {min: 2, max: 3}\n", ("ml.inf1.2xlarge", 2)),  # the scalable target brings one instance to the least
        ("scale: {min: 3, max: 3}\n", ("ml.inf1.2xlarge", 3)),
        ("scale: {min: 3, max: 3}\n" + small, ("ml.inf1.xlarge", 3)),
        ("scale: {min: 1, max: 2}\n", ("ml.inf1.2xlarge", 2)),
    ):
        write_depth(rehearsal.folder, more=more)
        rehearsal.deploy(STACK)
        assert fleet(rehearsal) == found
    assert "InService" in rehearsal.python("operations", "wait", "depth", "--json")


@pytest.mark.slow
def test_a_bad_update_is_taken_back_by_the_stacks_alarms(rehearsal: Rehearsal) -> None:
    """`guard` gives the triggers to the stock CLI; the error alarm rings while CloudFormation watches."""
    write_depth(rehearsal.folder, more="alarms: {min_requests: 1}\ntags: {step: one}\n")
    rehearsal.deploy(STACK)
    command = rehearsal.python("operations", "guard", "depth", "--minutes", "10", "--rehearsal").split()
    write_depth(rehearsal.folder, more="alarms: {min_requests: 1}\ntags: {step: two}\n")
    cloudformation = rehearsal.client("cloudformation")
    stack = lambda: cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]  # noqa: E731
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(rehearsal.cdk, *command[1:-2], "--require-approval", "never")
        wait_for(lambda: stack()["StackStatus"] == "UPDATE_IN_PROGRESS", "the update runs")
        found = rehearsal.client("cloudwatch").describe_alarms()["MetricAlarms"]
        (alarm,) = [row for row in found if STACK in row["AlarmName"] and "ErrorRate" in row["AlarmName"]]
        dimensions = [{"Name": "EndpointName", "Value": "depth"}, {"Name": "VariantName", "Value": "main"}]
        for minutes in range(3):
            when = datetime.now(timezone.utc) - timedelta(minutes=minutes)
            data = [
                {"MetricName": metric, "Dimensions": dimensions, "Timestamp": when, "Value": 50.0}
                for metric in ("Invocations", "Invocation5XXErrors")
            ]
            rehearsal.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=data)
        done = deploying.result()
    assert done.returncode != 0
    assert f"The rollback trigger {alarm['AlarmArn']} is in the state ALARM" in done.stdout.replace("\n", " ")
    assert stack()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def test_a_changed_model_is_refused_until_it_is_built_and_published(rehearsal: Rehearsal) -> None:
    before = npy(ask(rehearsal, PHOTOGRAPH, "image/jpeg")[0])
    write_depth(rehearsal.folder, weights="random:1")
    refused = rehearsal.cdk("deploy", "--require-approval", "never", STACK)
    assert refused.returncode != 0
    assert "inferentia build depth --rehearse" in refused.stdout
    assert "no changes" in rehearsal.deploy("InferentiaArtifacts", synthesized=True)

    rehearsal.python("compile", "build", "depth", "--rehearse")
    rehearsal.python("operations", "publish", "depth", "--rehearsal")
    rehearsal.deploy(STACK)
    after = npy(ask(rehearsal, PHOTOGRAPH, "image/jpeg")[0])
    assert np.abs(after - before).max() > 1e-3


def test_everything_is_gone_after_destroy(rehearsal: Rehearsal) -> None:
    workers = rehearsal.workers()
    assert workers
    rehearsal.python("operations", "empty-bucket", "--yes")
    answer = rehearsal.cdk("destroy", "--all", "--force", synthesized=True)
    assert answer.returncode == 0, answer.stdout
    assert rehearsal.client("sagemaker").list_endpoints()["Endpoints"] == []
    psutil.wait_procs(workers, timeout=30)
    assert not [process for process in workers if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    left = rehearsal.client("cloudformation").describe_stacks()["Stacks"]
    assert [row["StackName"] for row in left if row["StackStatus"] != "DELETE_COMPLETE"] == ["CDKToolkit"]
