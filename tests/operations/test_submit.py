"""Submitting: what is uploaded and started, what is fetched, what is refused; moto's Step Functions really runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from endpoint_spec import jobs
from operations.account import Account
from operations.commands import jobs as command
from operations.errors import OperationError
from operations.jobs import compile_stack, record
from operations.jobs.compile_stack import find
from operations.jobs.submit import find as find_run
from tests.operations import machines
from tests.operations.conftest import write_lock

Run = Callable[..., tuple[int, str, str]]


class Compile:
    """The room compile, as far as operations asks it: it writes bundles, and makes artifact and lock of variants."""

    def __init__(self) -> None:
        self.adopted: list[dict[str, Any]] = []
        self.bundled: list[tuple[str, ...]] = []
        self.refusal: str | None = None

    def __call__(self, root: Path, verb: str, name: str, *arguments: str) -> None:
        rehearsal = "--rehearse" in arguments
        if verb == "bundle":
            self.bundled.append(arguments)
            machines.write_bundle(root, Path(arguments[1]), name, rehearsal=rehearsal)
            return
        assert verb == "adopt"
        if self.refusal:
            raise OperationError(self.refusal)
        folder = Path(arguments[1])
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        self.adopted.append({"name": name, "files": found, "rehearse": rehearsal})
        write_lock(root, rehearsal=rehearsal, spec_name=name)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compile:
    """In place of the subprocess."""
    fake = Compile()
    monkeypatch.setattr("operations.jobs.submit.compile_command", fake)
    monkeypatch.setattr("operations.jobs.record.compile_command", fake)
    return fake


@pytest.fixture
def ready(project: Path, bucket: str, compiler: Compile) -> Path:
    """A project whose stacks are deployed, and which is not locked."""
    machines.write_spec(project)
    (project / "build/rehearsal/depth.lock.json").unlink()
    return project


def put_variants(name: str = "depth") -> None:
    """What the jobs leave in the cache."""
    for key in machines.KEYS:
        boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=jobs.variant_key(name, key), Body=key[:3].encode())


def run_of(project: Path, number: int = 1, name: str = "depth") -> str:
    """The name of a spec's run."""
    spec = machines.specs.load(project / "endpoints" / f"{name}.yaml", root=project)
    return jobs.run_name(name, machines.build_digest(spec), number)


def submit(run: Run, project: Path, *more: str) -> tuple[int, str, str]:
    """`operations submit depth --rehearsal`."""
    return run("submit", "depth", "--rehearsal", "--root", str(project), *more)


def keys(prefix: str = "jobs/") -> list[str]:
    """The keys under a prefix of the artifact bucket."""
    rows = boto3.client("s3").list_objects_v2(Bucket=machines.BUCKET, Prefix=prefix).get("Contents", [])
    return [row["Key"] for row in rows]


def test_a_run_is_told_what_to_do_and_what_it_compiled_is_made_an_artifact(
    ready: Path, run: Run, compiler: Compile
) -> None:
    arn = machines.deploy(*machines.succeeding())
    put_variants()
    said = f"{jobs.run_prefix('depth', run_of(ready))}record/1/main-b2/compile.log"
    boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=said, Body=b"whole\n")
    code, out, err = submit(run, ready, "--json")
    assert code == 0, err
    assert (ready / "build/record/depth/main-b2/compile.log").read_text() == "whole\n"
    record = json.loads(out)
    locked = json.loads((ready / "build/rehearsal/depth.lock.json").read_text())
    made = [record[key] for key in ("run", "status", "sha256", "key", "bytes")]
    assert made == [run_of(ready), "SUCCEEDED", locked["digests"]["artifact"], *locked["artifact"].values()]
    assert keys("models/") == [locked["artifact"]["key"]]
    assert [variant["state"] for variant in record["variants"]] == ["cached", "cached"]
    (adopted,) = compiler.adopted
    variants = {f"variants/{key}/{jobs.VARIANT}": key[:3].encode() for key in machines.KEYS}
    plan = adopted["files"].pop(jobs.PLAN)
    assert adopted == {"name": "depth", "files": variants, "rehearse": True}
    assert list((ready / "build/jobs").iterdir()) == []

    client = boto3.client("stepfunctions")
    execution = client.list_executions(stateMachineArn=arn)["executions"][0]
    given = json.loads(client.describe_execution(executionArn=execution["executionArn"])["input"])
    assert given.keys() == {"run", "submission", "bucket", "build_digest", "project", "wheels", "variants"}
    assert given["variants"][1] == {"index": "1", "key": machines.KEYS[1], "label": "main batch 2"}
    there = {key.removeprefix(given["project"]) for key in keys(given["project"])}
    assert there == {f"{jobs.GRAPH}/graph.json", jobs.TRIALS, jobs.PLAN}
    assert keys(given["wheels"]) == [given["wheels"] + jobs.REQUIREMENTS]
    uploaded = boto3.client("s3").get_object(Bucket=machines.BUCKET, Key=given["project"] + jobs.PLAN)
    assert uploaded["Body"].read() == plan


def test_a_second_submission_uploads_nothing_and_takes_the_next_number(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding())
    for number in (1, 2):
        put_variants()
        code, out, err = submit(run, ready, "--json")
        assert code == 0, err
        assert json.loads(out)["run"] == run_of(ready, number)
    versions = boto3.client("s3").list_object_versions(Bucket=machines.BUCKET, Prefix="jobs/depth/inputs/")["Versions"]
    assert len(versions) == len({row["Key"] for row in versions}) == 3


def test_a_half_uploaded_bundle_is_completed_and_the_plan_comes_last(
    ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    sent: list[str] = []
    whole, account = False, Account()
    real = account.s3.upload_file

    def breaking(path: str, bucket: str, key: str, **more: Any) -> None:
        if key.endswith(jobs.PLAN) and not whole:
            raise ClientError({"Error": {"Code": "RequestTimeout", "Message": "the line is cut"}}, "PutObject")
        sent.append(key)
        real(path, bucket, key, **more)

    monkeypatch.setattr(account.s3, "upload_file", breaking)
    monkeypatch.setattr(command, "Account", lambda: account)
    code, _, err = submit(run, ready)
    assert code == 1
    assert "the line is cut" in err
    assert "No run was started" in err
    assert "not sent again" in err
    assert [key for key in keys("jobs/depth/inputs/") if key.endswith(jobs.PLAN)] == []

    whole, before = True, len(sent)
    assert submit(run, ready)[0] == 0
    assert before == 3  # requirements.txt, the graph, the trials: not sent again
    assert [Path(key).name for key in sent[before:]] == [jobs.PLAN, "model.tar.gz"]


def test_an_object_of_another_size_is_sent_again(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    assert submit(run, ready)[0] == 0
    damaged = next(key for key in keys("jobs/depth/inputs/") if key.endswith("graph.json"))
    boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=damaged, Body=b"")
    put_variants()
    assert submit(run, ready)[0] == 0
    assert boto3.client("s3").get_object(Bucket=machines.BUCKET, Key=damaged)["Body"].read() == b"{}\n"


def test_an_unwritable_bucket_says_what_is_needed(ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.deploy(*machines.succeeding())
    account = Account()

    def denied(*_: Any, **__: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    monkeypatch.setattr(account.s3, "upload_file", denied)
    monkeypatch.setattr(command, "Account", lambda: account)
    code, _, err = submit(run, ready)
    assert code == 1
    assert "AccessDenied" in err
    assert "s3:PutObject" in err
    assert boto3.client("stepfunctions").list_executions(
        stateMachineArn=find(machines.write_spec(ready), account).state_machine
    )["executions"] == []  # fmt: skip


def test_of_two_at_once_one_wins_and_the_other_says_who(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding(wait=3))
    put_variants()
    assert submit(run, ready, "--detach")[0] == 0
    code, _, err = submit(run, ready)
    assert code == 1
    assert run_of(ready) in err
    assert "inferentia attach depth" in err
    code, out, err = run("attach", "depth", "--json", "--root", str(ready))
    assert code == 0, err
    assert json.loads(out)["run"] == run_of(ready)


def test_a_race_is_decided_by_step_functions(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked and seen nobody; exactly one start succeeds."""
    spec = machines.write_spec(ready)
    machines.deploy(*machines.succeeding(wait=3))
    account = Account()
    stack = find(spec, account)
    plan = machines.write_bundle(ready, ready / "build/bundle")
    together, ended, real = threading.Barrier(2, timeout=10), list[object](), compile_stack.runs

    def look(*given: Any) -> list[compile_stack.Execution]:
        found = real(*given)
        together.wait()
        return found

    monkeypatch.setattr(compile_stack, "runs", look)

    def one() -> None:
        try:
            ended.append(compile_stack.start(account, stack, plan, {"variants": []}).run)
        except OperationError as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    refused = [str(found) for found in ended if isinstance(found, OperationError)]
    assert [found for found in ended if isinstance(found, str)] == [run_of(ready)]
    assert len(refused) == 1
    assert f"run {run_of(ready)} of this very build is running" in refused[0]
    assert "inferentia attach depth" in refused[0]


def failing() -> tuple[dict[str, Any], str]:
    """The second variant's job fails, as the compile stack words it."""
    choice = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.index", "StringEquals": "1", "Next": "Bad"}],
        "Default": "Good",
    }
    cause = "depth-0123-1-0: neuron-cc ended with -9: out of memory"
    bad = {"Type": "Fail", "Error": "CompileJobFailed", "Cause": cause}
    variants = machines.variants_map({"One": choice, "Bad": bad, "Good": {"Type": "Pass", "End": True}}, "Done")
    return {"Variants": variants, "Done": {"Type": "Pass", "End": True}}, "Variants"


def test_a_failed_job_gives_its_reason_and_its_record(ready: Path, run: Run, compiler: Compile) -> None:
    machines.deploy(*failing())
    record = f"{jobs.run_prefix('depth', run_of(ready))}record/1/compile.log"
    boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=record, Body=b"killed\n")
    code, out, err = submit(run, ready, "--json")
    assert code == 1
    assert "neuron-cc ended with -9: out of memory" in err
    assert "main batch 2: failed" in err
    assert f"build/record/depth/{run_of(ready)}/" in err
    assert (ready / f"build/record/depth/{run_of(ready)}/1/compile.log").read_text() == "killed\n"
    assert [variant["state"] for variant in json.loads(out)["variants"]] == ["cached", "failed"]
    assert compiler.adopted == []


def test_a_record_with_a_foreign_path_is_not_written_outside(ready: Path, run: Run) -> None:
    machines.deploy(*failing())
    record = f"{jobs.run_prefix('depth', run_of(ready))}record/../../../../evil"
    boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=record, Body=b"x")
    code, _, err = submit(run, ready)
    assert code == 1
    assert "evil" in err
    assert not list(ready.rglob("evil"))


def test_a_stopped_run_is_called_stopped(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding(wait=60))
    assert submit(run, ready, "--detach")[0] == 0
    account = Account()
    stack = find(machines.write_spec(ready), account)
    client = boto3.client("stepfunctions")
    client.stop_execution(executionArn=compile_stack.runs(account, stack)[0].arn, error="x", cause="enough")
    code, _, err = run("attach", "depth", "--root", str(ready))
    assert code == 1
    assert "was stopped" in err


def test_a_hanging_run_is_ended_by_its_limit(ready: Path, run: Run) -> None:
    """The machine's own TimeoutSeconds, as the compile stack sets it from job.time_limit."""
    states, first = machines.succeeding(wait=60)
    machines.deploy(states, first)
    client = boto3.client("stepfunctions")
    arn = find(machines.write_spec(ready), Account()).state_machine
    definition = json.dumps({"StartAt": first, "States": states, "TimeoutSeconds": 1})
    client.update_state_machine(stateMachineArn=arn, definition=definition)
    code, _, err = submit(run, ready)
    assert code == 1
    assert "its time limit is 2h (job.time_limit)" in err


def test_what_compile_refuses_is_kept_with_the_way_on(ready: Path, run: Run, compiler: Compile) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    compiler.refusal = "depth changed since it was sent: 0123, the spec is now 4567"
    code, _, err = submit(run, ready)
    assert code == 1
    assert "depth changed since it was sent: 0123, the spec is now 4567" in err
    (folder,) = (ready / "build/jobs").iterdir()
    assert (folder / "variants" / machines.KEYS[0] / jobs.VARIANT).read_bytes() == b"aaa"
    again = f"inferentia adopt depth --from {folder} --rehearse, then inferentia publish depth --rehearsal"
    assert f"Nothing was locked; what the run compiled stays in {folder}. Again: {again}" in err
    assert not (ready / "build/rehearsal/depth.lock.json").exists()
    assert keys("models/") == []


def test_a_variant_that_is_gone_is_named(ready: Path, run: Run, compiler: Compile) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    boto3.client("s3").delete_object(Bucket=machines.BUCKET, Key=jobs.variant_key("depth", machines.KEYS[1]))
    code, _, err = submit(run, ready)
    assert code == 1
    assert f"{jobs.variant_key('depth', machines.KEYS[1])} cannot be read" in err
    assert "Nothing was locked. Again: inferentia attach depth" in err
    assert compiler.adopted == []
    assert list((ready / "build/jobs").iterdir()) == []


def test_an_artifact_that_cannot_be_published_says_how_later(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    write_lock(ready, rehearsal=True)  # the same artifact as that of Compile
    key = json.loads((ready / "build/rehearsal/depth.lock.json").read_text())["artifact"]["key"]
    boto3.client("s3").put_object(Bucket=machines.BUCKET, Key=key, Body=b"another")
    code, _, err = submit(run, ready)
    assert code == 1
    assert "depth is locked, but not published: " in err
    assert "Somebody replaced it" in err
    assert "Again: inferentia publish depth --rehearsal" in err


def test_ctrl_c_leaves_the_run_going(ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.deploy(*machines.succeeding(wait=2))
    put_variants()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("operations.jobs.follow.time.sleep", interrupted)
        code, _, err = submit(run, ready)
    assert code == command.INTERRUPTED
    assert "inferentia attach depth" in err
    code, out, err = run("attach", "depth", "--json", "--root", str(ready))
    assert code == 0, err
    assert json.loads(out)["status"] == "SUCCEEDED"


def test_two_who_follow_one_run_do_not_disturb_each_other(ready: Path, run: Run, compiler: Compile) -> None:
    machines.deploy(*machines.succeeding())
    put_variants()
    assert submit(run, ready)[0] == 0
    boto3.client("s3").delete_object(Bucket=machines.BUCKET, Key=keys("models/")[0])  # so that there is an upload
    account = Account()
    spec = machines.write_spec(ready)
    ours, theirs = find_run(spec, account, None), find_run(spec, account, None)
    for one in (ours, theirs):
        one.refresh(lambda *_: None)
    inner: list[record.Adopted] = []

    @contextmanager
    def meanwhile(*_: object) -> Iterator[Callable[[int], None]]:
        if not inner:
            inner.append(record.fetch_result(theirs, ready, lambda *_: nullcontext(lambda _: None)))
        yield lambda _: None

    assert record.fetch_result(ours, ready, meanwhile) == inner[0]
    assert len(compiler.adopted) == 3
    assert list((ready / "build/jobs").iterdir()) == []


def test_detach_returns_at_once(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding(wait=30))
    code, out, err = submit(run, ready, "--detach", "--json")
    assert (code, json.loads(out)["status"]) == (0, "RUNNING")
    assert "attach depth" in err


def test_all_means_the_specs_that_are_not_locked(ready: Path, run: Run, compiler: Compile) -> None:
    machines.write_spec(ready, "without", machines.SPEC.partition("job:")[0])
    machines.write_spec(ready, "other")
    (ready / "endpoints/faulty.yaml").write_text("name: faulty\n")
    write_lock(ready, rehearsal=True)  # depth
    machines.deploy(*machines.succeeding(), name="other")
    put_variants("other")
    code, out, err = run("submit", "--all", "--rehearsal", "--json", "--root", str(ready))
    assert [record["name"] for record in json.loads(out)] == ["other"]
    assert "depth left out: is locked" in err
    assert "without left out: has no section job:" in err
    assert "other submitted: has no lock" in err
    assert code == 1  # because of this one:
    assert "faulty is faulty" in err
    assert [row["name"] for row in compiler.adopted] == ["other"]

    spec = ready / "endpoints/depth.yaml"  # depth's lock does not fit any more
    spec.write_text(spec.read_text().replace("random:0", "random:1"))
    (ready / "endpoints/faulty.yaml").unlink()
    (ready / "endpoints/other.yaml").unlink()
    machines.deploy(*machines.succeeding())
    put_variants()
    code, out, err = run("submit", "--all", "--rehearsal", "--json", "--root", str(ready))
    assert (code, [record["name"] for record in json.loads(out)]) == (0, ["depth"]), err


def test_without_a_job_section_it_is_wrong_use(project: Path, bucket: str, run: Run) -> None:
    code, _, err = submit(run, project)
    assert code == 2
    assert "endpoints/depth.yaml has no section job:" in err


def test_a_stack_that_is_not_deployed(ready: Path, run: Run) -> None:
    code, _, err = submit(run, ready)
    assert code == 1
    assert 'cdk deploy InferentiaCompile-depth"' in err


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"CostLimit": ""}, "has no output CostLimit"),
        ({"Where": "ec2"}, "deployed with job.where ec2, the spec says processing"),
        ({"TimeLimitSeconds": "60"}, "deployed with job.time_limit 1min, the spec says 2h"),
        ({"TimeLimitSeconds": "two hours"}, "'two hours', not a number of seconds"),
    ],
)
def test_a_stack_of_another_version_or_section(ready: Path, run: Run, outputs: dict[str, str], said: str) -> None:
    machines.deploy(*machines.succeeding(), **outputs)
    code, _, err = submit(run, ready)
    assert code == 1
    assert said in err
    assert "cdk deploy InferentiaCompile-depth" in err


def test_without_wheels_the_machines_own_compiler_is_used(ready: Path, run: Run, compiler: Compile) -> None:
    machines.deploy(*machines.succeeding(wait=30))
    code, _, err = run("submit", "depth", "--detach", "--root", str(ready))
    assert code == 0, err
    (wheels,) = keys("jobs/depth/wheels/")
    assert boto3.client("s3").get_object(Bucket=machines.BUCKET, Key=wheels)["Body"].read().startswith(b"# nothing")


def test_what_brings_the_compiler_enters_the_keys(ready: Path, run: Run, compiler: Compile) -> None:
    spec = ready / "endpoints/depth.yaml"
    spec.write_text(spec.read_text().replace("processing", "ec2"))
    machines.deploy(*machines.succeeding(), Where="ec2", MachineImage="ami-0123")
    (ready / "wheels").mkdir()
    (ready / "wheels" / jobs.REQUIREMENTS).write_text("")
    code, _, err = run("submit", "depth", "--wheels", str(ready / "wheels"), "--detach", "--root", str(ready))
    assert code == 0, err
    (asked,) = compiler.bundled
    said = asked[asked.index("--environment") + 1]
    (wheels,) = keys("jobs/depth/wheels/")
    assert said == f"wheels {wheels.split('/')[3]} ami-0123"
    assert "--rehearse" not in asked


def test_neither_or_both_of_name_and_all(ready: Path, run: Run) -> None:
    assert run("submit", "--root", str(ready))[0] == 2
    assert run("submit", "depth", "--all", "--root", str(ready))[0] == 2


def test_attach_without_a_run(ready: Path, run: Run) -> None:
    machines.deploy(*machines.succeeding())
    code, _, err = run("attach", "depth", "--root", str(ready))
    assert code == 1
    assert "there is no run of depth (runs: none yet)" in err
    code, _, err = run("attach", "depth", "--run", "depth-x-1", "--root", str(ready))
    assert (code, "there is no run depth-x-1" in err) == (1, True)


@pytest.mark.parametrize("service", ["SFN", "CLOUDWATCH_LOGS", "EC2"])
def test_a_rehearsal_never_leaves_the_machine(
    ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", "http://elsewhere.example.invalid")
    code, _, err = submit(run, ready)
    assert code == 1
    assert "refused" in err
    assert "elsewhere.example.invalid" in err
