"""The state machines in moto's interpreter, with services made up: cache, retries, failures, cleanup."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from cdk.states.cleanup import cleanup_machine
from cdk.states.instance import InstanceMachine, instance_states
from cdk.states.instance import stop_states as stop_instances
from cdk.states.job import WAITS, JobContext, job_name_pattern
from cdk.states.processing import ProcessingMachine, processing_states
from cdk.states.processing import stop_states as stop_processing
from cdk.states.run import EVENTS_PER_LOOK, Workflow, run_machine
from endpoint_spec import jobs
from tests.cdk.interpreter import Ended, Services, refused, run

NAME = "depth-anything-v2-base-of-the-whole-house"
RUN = f"{NAME}-0123456789ab-7"
KEYS = ("a" * 64, "b" * 64)
CONTEXT = JobContext(
    partition="aws",
    bucket="bucket",
    name=NAME,
    kms_key="arn:key",
    poll=0,
    limit=100,
    patience=1,
    waits=(0,) * len(WAITS),
    tags={"team": "documents"},
)
TOPICS = ["arn:aws:sns:us-east-1:123456789012:first", "arn:aws:sns:us-east-1:123456789012:second"]
CLEANUP = "arn:aws:states:us-east-1:123456789012:stateMachine:cleanup"
PROCESSING = ProcessingMachine(image="image", instance_type="ml.c5.4xlarge", volume=100, role="arn:role")
INSTANCES = InstanceMachine(template="lt-1", version="4", subnets=("subnet-a", "subnet-b", "subnet-c"))


def given() -> dict[str, Any]:
    """What operations submit writes for two variants."""
    return {
        "run": RUN,
        "submission": "5ubm1ss10n",
        "bucket": "bucket",
        "build_digest": "0123456789ab" + "c" * 52,
        "project": jobs.inputs_prefix(NAME, "d" * 64),
        "wheels": jobs.wheels_prefix(NAME, "e" * 64),
        "variants": [{"index": str(index), "key": key, "label": f"variant {index}"} for index, key in enumerate(KEYS)],
    }


def workflows() -> dict[str, Workflow]:
    return {
        "processing": Workflow(job=processing_states(CONTEXT, PROCESSING)),
        "ec2": Workflow(job=instance_states(CONTEXT, INSTANCES), data={"subnets": INSTANCES.subnet_of_try()}),
    }


def machine(where: str) -> dict[str, Any]:
    return run_machine(CONTEXT, workflows()[where], time_limit=100, max_parallel=2, topics=TOPICS, cleanup=CLEANUP)


def cleanup(where: str) -> dict[str, Any]:
    stops = {
        "processing": stop_processing(CONTEXT, "All stopped"),
        "ec2": stop_instances(CONTEXT, "All stopped"),
    }
    return cleanup_machine(CONTEXT, stops[where], TOPICS, settle=0)


class Aws(Services):
    """Services in which everything works: jobs store their variant at their start and are over at the second look.

    failures: by operation, exceptions that its first calls raise. ends: how a job ended, by a part of its name.
    """

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.objects: set[str] = set()
        self.failures: dict[str, list[Exception]] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.looks: defaultdict[str, int] = defaultdict(int)
        self.bodies: dict[str, str] = {}
        usual: dict[str, Callable[..., Any]] = {
            "list_objects_v2": self._list,
            "get_object": lambda Bucket, Key: {"Body": self.bodies[Key]},  # noqa: N803
            "publish": lambda **_: {"MessageId": "1"},
            "start_execution": lambda **_: {"executionArn": "arn"},
            "create_processing_job": self._create,
            "describe_processing_job": self._describe,
            "run_instances": self._launch,
            "describe_instances": self._instances,
        }
        super().__init__({**usual, **answers})

    def _fail(self, operation: str) -> None:
        if self.failures.get(operation):
            raise self.failures[operation].pop(0)

    def _list(self, **asked: Any) -> dict[str, Any]:
        self._fail("list_objects_v2")
        return {"KeyCount": sum(key.startswith(asked["Prefix"]) for key in self.objects)}

    def _create(self, **asked: Any) -> dict[str, Any]:
        self._fail("create_processing_job")
        name = asked["ProcessingJobName"]
        if not any(part in name for part in self.ends):
            for output in asked["ProcessingOutputConfig"]["Outputs"]:
                if output["OutputName"] == "variant":
                    self.objects.add(f"{output['S3Output']['S3Uri'].removeprefix('s3://bucket/')}{jobs.VARIANT}")
        return {"ProcessingJobArn": "arn"}

    def _describe(self, **asked: Any) -> dict[str, Any]:
        name = asked["ProcessingJobName"]
        self._fail("describe_processing_job")
        self.looks[name] += 1
        if self.looks[name] < 2:
            return {"ProcessingJobStatus": "InProgress"}
        for part, end in self.ends.items():
            if part in name:
                return end
        return {"ProcessingJobStatus": "Completed"}

    def _launch(self, **asked: Any) -> dict[str, Any]:
        self._fail("run_instances")
        tags = {tag["Key"]: tag["Value"] for tag in asked["TagSpecifications"][0]["Tags"]}
        if not any(part in tags["Name"] for part in self.ends):
            status = f"{jobs.run_prefix(NAME, RUN)}record/{tags['inferentia:index']}/status.json"
            self.objects |= {status, jobs.variant_key(NAME, tags["inferentia:key"])}
            self.bodies[status] = json.dumps({"exit_code": 0, "message": ""})
        return {"Instances": [{"InstanceId": f"i-{tags['Name']}"}]}

    def _instances(self, **asked: Any) -> dict[str, Any]:
        self._fail("describe_instances")
        (name,) = asked["InstanceIds"]
        self.looks[name] += 1
        found: dict[str, Any] = {"InstanceId": name, "State": {"Name": "running"}}
        if self.looks[name] > 1:
            reason = {"Code": "Client.InstanceInitiatedShutdown", "Message": "Instance initiated shutdown"}
            found |= {"State": {"Name": "terminated"}, "StateReason": reason}
            found |= next((end for part, end in self.ends.items() if part in name), {})
        return {"Reservations": [{"Instances": [found]}]}


def go(where: str, aws: Aws) -> Ended:
    return run(machine(where), given(), aws, RUN)


def machines() -> Iterator[tuple[str, dict[str, Any]]]:
    for where in ("processing", "ec2"):
        yield f"run {where}", machine(where)
        yield f"cleanup {where}", cleanup(where)


def scopes(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The machine, and every branch and iteration in it."""
    yield definition
    for state in definition["States"].values():
        for inner in [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]:
            yield from scopes(inner)


def targets(state: dict[str, Any]) -> set[str]:
    rules = [*state.get("Choices", []), *state.get("Catch", []), state]
    return {rule["Next"] for rule in rules if "Next" in rule} | ({state["Default"]} if "Default" in state else set())


@pytest.mark.parametrize(("name", "definition"), list(machines()))
def test_every_state_is_reached_and_every_way_leads_somewhere(name: str, definition: dict[str, Any]) -> None:
    names: list[str] = []
    for scope in scopes(definition):
        states = scope["States"]
        names += states
        reached = {scope["StartAt"]}.union(*(targets(state) for state in states.values()))
        assert reached == set(states)
        for state in states.values():
            assert len([key for key in ("Next", "End") if key in state]) == (
                0 if state["Type"] in ("Choice", "Fail", "Succeed") else 1
            )
    assert len(names) == len(set(names))  # unique in the whole machine, as AWS wants
    assert all(len(name) <= 80 for name in names)


def test_variants_are_compiled_and_announced() -> None:
    aws = Aws()
    ended = go("processing", aws)
    assert ended.status == "SUCCEEDED"
    assert ended.output == {
        "run": RUN,
        "variants": [{"index": str(index), "key": key, "cached": False} for index, key in enumerate(KEYS)],
    }
    assert [row["TopicArn"] for row in aws.of("publish")] == TOPICS
    operations = {operation for operation, _ in aws.calls}
    assert operations == {"list_objects_v2", "create_processing_job", "describe_processing_job", "publish"}


def test_a_job_is_asked_for_as_the_contract_says() -> None:
    aws = Aws()
    go("processing", aws)
    started = {row["AppSpecification"]["ContainerArguments"][0]: row for row in aws.of("create_processing_job")}
    assert sorted(started) == ["0", "1"]
    job = started["0"]
    assert job["AppSpecification"]["ContainerEntrypoint"] == ["python3", "-m", "compile.portable.job"]
    assert job["AppSpecification"]["ContainerArguments"] == ["0", jobs.INPUTS, jobs.OUTPUTS]
    assert job["Environment"] == {
        "INFERENTIA_RUN": RUN,
        "INFERENTIA_MESSAGE_FILE": jobs.MESSAGE_FILE,
        "PYTHONPATH": "/opt/ml/processing/input/project/code",
    }
    inputs = {row["InputName"]: row["S3Input"] for row in job["ProcessingInputs"]}
    assert {name: row["S3Uri"].removeprefix("s3://bucket/") for name, row in inputs.items()} == {
        "project": given()["project"],
        "wheels": given()["wheels"],
    }
    outputs = [row["S3Output"] for row in job["ProcessingOutputConfig"]["Outputs"]]
    assert [(row["S3Uri"], row["S3UploadMode"]) for row in outputs] == [
        (f"s3://bucket/{jobs.cache_prefix(NAME)}{KEYS[0]}/", "EndOfJob"),
        (f"s3://bucket/{jobs.record_prefix(NAME, RUN, 0)}", "Continuous"),
    ]


def test_the_longest_names_of_jobs_are_taken() -> None:
    aws = Aws()
    aws.failures["create_processing_job"] = [refused("ThrottlingException", "Rate exceeded")] * (len(WAITS) - 1)
    go("processing", aws)
    names = [row["ProcessingJobName"] for row in aws.of("create_processing_job")]
    stem = job_name_pattern(NAME).rstrip("-*").rstrip("?")
    assert len(names) == len(set(names))
    assert all(name.startswith(stem) and len(name) <= 63 for name in names)
    assert len(f"{names[0].rpartition('-')[0].rpartition('-')[0]}-9999-{len(WAITS) - 1}") <= 63


def test_what_is_in_the_cache_is_not_compiled_again() -> None:
    aws = Aws()
    aws.objects |= {jobs.variant_key(NAME, KEYS[0])}
    ended = go("processing", aws)
    assert [variant["cached"] for variant in ended.output["variants"]] == [True, False]
    assert len(aws.of("create_processing_job")) == 1


@pytest.mark.parametrize(
    "failure",
    [
        refused("ThrottlingException", "Rate exceeded"),
        refused("ResourceLimitExceeded", "The account-level service limit 'x for processing job usage' is 2 Instances"),
    ],
)
def test_a_start_that_is_refused_for_a_while_is_tried_again(failure: Exception) -> None:
    aws = Aws()
    aws.failures["create_processing_job"] = [failure] * 3
    assert go("processing", aws).status == "SUCCEEDED"
    assert len(aws.of("create_processing_job")) == 3 + len(KEYS)


def test_capacity_that_is_missing_while_the_job_starts_is_tried_again_under_another_name() -> None:
    aws = Aws()
    aws.ends["-0-0"] = {"ProcessingJobStatus": "Failed", "FailureReason": "CapacityError: Unable to provision ..."}
    assert go("processing", aws).status == "SUCCEEDED"
    names = [row["ProcessingJobName"] for row in aws.of("create_processing_job")]
    assert [name[-4:] for name in names if "-0-" in name[-5:]] == ["-0-0", "-0-1"]


def ends_with(aws: Aws, key: str, **_: Any) -> dict[str, Any]:
    """DescribeProcessingJob of a job that has left an object."""
    aws.objects.add(key)
    return {"ProcessingJobStatus": "Completed"}


def test_an_answer_that_was_lost_is_the_job_itself() -> None:
    aws = Aws()
    aws.objects |= {jobs.variant_key(NAME, KEYS[1])}
    aws.answers["describe_processing_job"] = partial(ends_with, aws, jobs.variant_key(NAME, KEYS[0]))
    aws.failures["create_processing_job"] = [refused("ResourceInUse", "Job name must be unique within an account")]
    assert go("processing", aws).status == "SUCCEEDED"
    assert len(aws.of("create_processing_job")) == 1


def test_a_quota_of_zero_is_not_waited_for() -> None:
    aws = Aws()
    reason = "The account-level service limit 'ml.c5.4xlarge for processing job usage' is 0 Instances"
    aws.failures["create_processing_job"] = [refused("ResourceLimitExceeded", reason)] * 9
    ended = go("processing", aws)
    assert (ended.status, ended.error) == ("FAILED", "CompileJobFailed")
    assert reason in str(ended.cause)
    assert len(aws.of("create_processing_job")) <= 2  # one a variant


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"ProcessingJobStatus": "Failed", "ExitMessage": "0 % compiled: InternalServerError"}, "0 % compiled"),
        ({"ProcessingJobStatus": "Failed", "FailureReason": "AlgorithmError: , exit code: 1"}, "exit code: 1"),
        ({"ProcessingJobStatus": "Failed", "FailureReason": "ClientError: Image does not exist"}, "Image does not"),
        ({"ProcessingJobStatus": "Stopped"}, "was stopped, by somebody or at its limit of 100 seconds"),
        ({"ProcessingJobStatus": "Failed"}, "Failed, without a reason"),
    ],
)
def test_a_job_that_fails_is_named_with_its_reason_and_the_rest_is_stopped(end: dict[str, Any], reason: str) -> None:
    aws = Aws()
    aws.ends["-1-0"] = end
    ended = go("processing", aws)
    assert (ended.status, ended.error) == ("FAILED", "CompileJobFailed")
    assert "-1-0: " in str(ended.cause)
    assert reason in str(ended.cause)
    (started,) = aws.of("start_execution")
    event = json.loads(started["Input"])
    assert (started["StateMachineArn"], event["name"], event["status"]) == (CLEANUP, RUN, "FAILED")
    assert json.loads(event["input"])["submission"] == "5ubm1ss10n"
    assert reason in aws.of("publish")[0]["Message"]
    assert len([row for row in aws.of("create_processing_job") if "-1-" in row["ProcessingJobName"][-5:]]) == 1


def test_a_job_that_leaves_nothing_is_a_failure() -> None:
    aws = Aws(create_processing_job=lambda **_: {})
    ended = go("processing", aws)
    assert (ended.status, ended.error) == ("FAILED", "CompiledVariantMissing")


def test_looking_survives_faults() -> None:
    aws = Aws()
    aws.failures["describe_processing_job"] = [refused("ThrottlingException", "Rate exceeded")]
    assert go("processing", aws).status == "SUCCEEDED"


def test_a_look_takes_as_many_events_as_the_pause_is_reckoned_with() -> None:
    aws, patient = Aws(), Aws()
    patient.looks.default_factory = lambda: -5  # five looks more at each job
    few, many = (go("processing", services).events for services in (aws, patient))
    assert many - few == 5 * EVENTS_PER_LOOK * len(KEYS)


def test_nobody_who_can_be_told_is_no_failure() -> None:
    def silent(**_: Any) -> Any:
        raise refused("NotFound", "Topic does not exist")

    assert go("processing", Aws(publish=silent)).status == "SUCCEEDED"


def test_a_run_for_another_bucket_is_refused() -> None:
    ended = run(machine("processing"), {**given(), "bucket": "another"}, Aws(), RUN)
    assert (ended.status, ended.error) == ("FAILED", "CompileRunRefused")
    assert "another" in str(ended.cause)


def test_instances_compile() -> None:
    aws = Aws()
    ended = go("ec2", aws)
    assert ended.status == "SUCCEEDED"
    assert [variant["cached"] for variant in ended.output["variants"]] == [False, False]
    started = aws.of("run_instances")
    tags = [{tag["Key"]: tag["Value"] for tag in row["TagSpecifications"][0]["Tags"]} for row in started]
    (first,) = [row for row in tags if row["inferentia:index"] == "0"]
    assert first == {
        "team": "documents",
        "Name": first["Name"],
        "inferentia:endpoint": NAME,
        "inferentia:bucket": "bucket",
        "inferentia:project": given()["project"],
        "inferentia:wheels": given()["wheels"],
        "inferentia:index": "0",
        "inferentia:key": KEYS[0],
        "inferentia:run": RUN,
    }
    patterns = {
        "project": jobs.INPUTS_KEY_PATTERN,
        "wheels": jobs.WHEELS_KEY_PATTERN,
        "run": jobs.RUN_PATTERN,
        "index": jobs.INDEX_PATTERN,
        "key": jobs.SHA256_PATTERN,
    }
    for name, pattern in patterns.items():
        assert jobs.is_full(pattern, first[f"inferentia:{name}"])
    assert sorted(row["ClientToken"] for row in started) == sorted(row["Name"] for row in tags)
    assert started[0]["LaunchTemplate"] == {"LaunchTemplateId": "lt-1", "Version": "4"}
    assert all(len(row["ClientToken"]) <= 64 for row in started)


@pytest.mark.parametrize(
    "message",
    [
        "We currently do not have sufficient c5.4xlarge capacity in the Availability Zone you requested (us-east-1a).",
        "There is no Spot capacity available that matches your request.",
        "Your requested instance type (inf1.xlarge) is not supported in your requested Availability Zone (us-east-1e).",
        "Request limit exceeded.",
    ],
)
def test_an_instance_that_cannot_be_had_is_asked_for_in_the_next_zone(message: str) -> None:
    aws = Aws()
    aws.objects |= {jobs.variant_key(NAME, KEYS[1])}
    aws.failures["run_instances"] = [refused("Any", message)] * 2
    assert go("ec2", aws).status == "SUCCEEDED"
    assert [row["SubnetId"] for row in aws.of("run_instances")] == ["subnet-a", "subnet-b", "subnet-c"]


def test_interrupted_spot_capacity_is_replaced() -> None:
    aws = Aws()
    aws.ends["-0-0"] = {
        "StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "Spot instance termination"}
    }
    assert go("ec2", aws).status == "SUCCEEDED"
    assert len(aws.of("run_instances")) == 3


def test_spot_capacity_that_left_time_for_a_last_word_is_replaced() -> None:
    aws = Aws()
    aws.ends["-0-0"] = {"StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "Spot termination"}}
    status = f"{jobs.run_prefix(NAME, RUN)}record/0/status.json"
    aws.objects.add(status)
    aws.bodies[status] = json.dumps({"exit_code": 143, "message": "ended from outside"})
    assert go("ec2", aws).status == "SUCCEEDED"
    assert len(aws.of("run_instances")) == 3


def test_an_instance_that_says_nothing_is_a_failure_with_ec2s_reason() -> None:
    aws = Aws()
    reason = {"Code": "Client.InstanceInitiatedShutdown", "Message": "Instance initiated shutdown"}
    aws.ends["-0-0"] = {"StateReason": reason}
    ended = go("ec2", aws)
    assert "-0-0: ended without a status: Client.InstanceInitiatedShutdown" in str(ended.cause)


def test_an_instance_whose_job_failed_is_believed_and_not_repeated() -> None:
    aws = Aws()
    aws.ends["-0-0"] = {"StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "too late to matter"}}
    status = f"{jobs.run_prefix(NAME, RUN)}record/0/status.json"
    aws.objects.add(status)
    aws.bodies[status] = json.dumps({"exit_code": 9, "message": "the compiler was killed"})
    ended = go("ec2", aws)
    assert "-0-0: the compiler was killed" in str(ended.cause)


def test_an_unauthorized_start_is_not_repeated() -> None:
    aws = Aws()
    aws.failures["run_instances"] = [refused("Any", "You are not authorized to perform this operation.")] * 9
    ended = go("ec2", aws)
    assert "not authorized" in str(ended.cause)
    assert len(aws.of("run_instances")) <= 2


def ended_badly(status: str) -> dict[str, Any]:
    """The detail of Step Functions' event."""
    return {"name": RUN, "status": status, "input": json.dumps(given()), "stateMachineArn": "arn"}


@pytest.mark.parametrize(("status", "messages"), [("TIMED_OUT", 2), ("ABORTED", 2), ("FAILED", 0)])
def test_cleanup_stops_the_jobs_of_its_run(status: str, messages: int) -> None:
    started = Aws()
    go("processing", started)
    stem = started.of("create_processing_job")[0]["ProcessingJobName"].rpartition("-")[0].rpartition("-")[0]
    left = [{"ProcessingJobName": f"{stem}-0-0"}, {"ProcessingJobName": f"{stem}-1-0"}]
    aws = Aws(list_processing_jobs=lambda **_: {"ProcessingJobSummaries": left})
    aws.answers["stop_processing_job"] = lambda **_: {}
    assert run(cleanup("processing"), ended_badly(status), aws).status == "SUCCEEDED"
    assert aws.of("list_processing_jobs") == [{"NameContains": stem, "StatusEquals": "InProgress", "MaxResults": 100}]
    assert {row["ProcessingJobName"] for row in aws.of("stop_processing_job")} == {f"{stem}-0-0", f"{stem}-1-0"}
    assert len(aws.of("publish")) == messages


def test_cleanup_terminates_the_instances_of_its_run() -> None:
    found = {"Reservations": [{"Instances": [{"InstanceId": "i-1"}, {"InstanceId": "i-2"}]}, {"Instances": []}]}
    aws = Aws(describe_instances=lambda **_: found, terminate_instances=lambda **_: {})
    assert run(cleanup("ec2"), ended_badly("TIMED_OUT"), aws).status == "SUCCEEDED"
    (asked,) = aws.of("describe_instances")
    assert {row["Name"]: row["Values"] for row in asked["Filters"]} == {
        "tag:inferentia:endpoint": [NAME],
        "tag:inferentia:run": [RUN],
        "instance-state-name": ["pending", "running", "stopping", "stopped"],
    }
    assert aws.of("terminate_instances") == [{"InstanceIds": ["i-1", "i-2"]}]


@pytest.mark.parametrize("reservations", [[], [{"Instances": []}]])
def test_cleanup_without_anything_left_ends(reservations: list[Any]) -> None:
    aws = Aws(describe_instances=lambda **_: {"Reservations": reservations})
    assert run(cleanup("ec2"), ended_badly("ABORTED"), aws).status == "SUCCEEDED"


def test_a_job_that_ended_meanwhile_does_not_hold_the_cleanup_up() -> None:
    def over(**_: Any) -> Any:
        raise refused("ValidationException", "The job is in status Completed")

    aws = Aws(list_processing_jobs=lambda **_: {"ProcessingJobSummaries": [{"ProcessingJobName": "x"}]})
    aws.answers["stop_processing_job"] = over
    assert run(cleanup("processing"), ended_badly("ABORTED"), aws).status == "SUCCEEDED"
