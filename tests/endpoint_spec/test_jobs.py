"""The job section, the machines of compile jobs, and the names and files that pass between the rooms."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from endpoint_spec import SpecErrors, derive, jobs, platforms
from endpoint_spec.__main__ import app
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.jobs import JobError, Plan
from endpoint_spec.schema import schema
from tests.endpoint_spec.projects import SMALL, Loader

SHA = "0123456789abcdef" * 4
OTHER = "f" * 64


def test_without_the_section_there_is_no_job(read: Loader) -> None:
    assert read(SMALL).job is None


def test_defaults_of_each_place(read: Loader) -> None:
    job = read(SMALL + "job: {}\n").job
    assert job is not None
    assert (job.where, job.instance_type, job.volume) == ("processing", "ml.c5.4xlarge", 100)
    assert (job.time_limit, job.max_parallel, job.spot) == (timedelta(hours=3), 4, False)
    on_ec2 = read(SMALL + "job: {where: ec2, spot: true, volume: 200GB}\n").job
    assert on_ec2 is not None
    assert (on_ec2.instance_type, on_ec2.spot, on_ec2.volume) == ("c5.4xlarge", True, 200)


@pytest.mark.parametrize(
    "job",
    [
        "{where: ec2, instance_type: inf1.2xlarge}",
        "{instance_type: ml.m5.12xlarge, volume: 1TB, time_limit: 90min, max_parallel: 1}",
    ],
)
def test_what_may_be_written(job: str, read: Loader) -> None:
    assert read(f"{SMALL}job: {job}\n").job is not None


WRONG = {
    "a chip for processing": (
        "job: {instance_type: ml.inf1.xlarge}", "job.instance_type", "have no Inferentia instances", "ml.c5.4xlarge",
    ),
    "EC2's name for processing": (
        "job: {instance_type: c5.4xlarge}", "job.instance_type", "not a machine for where: processing",
        "Did you mean ml.c5.4xlarge?",
    ),
    "SageMaker's name for ec2": (
        "job: {where: ec2, instance_type: ml.c5.4xlarge}", "job.instance_type", "not a machine for where: ec2",
        "Did you mean c5.4xlarge?",
    ),
    "the other chip": (
        "job: {where: ec2, instance_type: inf2.xlarge}", "job.instance_type", "the inf2 chip", "CPU type",
    ),
    "spot for processing": ("job: {spot: true}", "job.spot", "only EC2 instances", "where: ec2"),
    "a place that is none": ("job: {where: lambda}", "job.where", "not possible here", "processing, ec2."),
    "Neo": (
        "job: {where: neo, instance_type: ml.c5.4xlarge}", "job.where", "Neo's runtime", "Write processing, or ec2",
    ),
    "no time for one graph": (
        "job: {time_limit: 45min}", "job.time_limit", "not above compile.timeout", "longer time_limit",
    ),
    "more than five days": ("job: {time_limit: 6d}", "job.time_limit", "longer than 5 days", "Write less"),
    "half a second": ("job: {time_limit: 3600.5s}", "job.time_limit", "finer than a second", "whole seconds"),
    "time without unit": ("job: {time_limit: 3}", "job.time_limit", "has no unit", "Write 3ms"),
    "a disk of gibibytes": ("job: {volume: 100GiB}", "job.volume", "not a size in gigabytes", "100GB"),
    "a disk too small": ("job: {volume: 5}", "job.volume", "too small", "Write 10 or more"),
    "a disk too large": ("job: {volume: 20TB}", "job.volume", "too large", "Write 16384 or less"),
    "no variant at once": ("job: {max_parallel: 0}", "job.max_parallel", "too small", "Write 1 or more"),
    "beyond a map's limit": ("job: {max_parallel: 41}", "job.max_parallel", "too large", "Write 40 or less"),
    "an unknown key": ("job: {instance: c5.4xlarge}", "job.instance", "not a known key", "Did you mean instance_type?"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_one_slip_gives_one_message(case: tuple[str, str, str, str], read: Loader) -> None:
    more, key, reason, remedy = case
    with pytest.raises(SpecErrors) as caught:
        read(SMALL + more + "\n")
    assert [error.key for error in caught.value.errors] == [key], str(caught.value)
    (error,) = caught.value.errors
    assert reason in error.problem
    assert remedy in error.remedy


def test_where_it_is_compiled_is_no_part_of_what_is_built(read: Loader) -> None:
    here = read(SMALL.replace("hub:depth-anything/Depth-Anything-V2-Small-hf", "random:0"))
    there = read(here.path.read_text() + "job: {where: ec2, spot: true}\n")
    assert build_digest(here) == build_digest(there)
    assert handler_digest(here) == handler_digest(there)


@pytest.mark.parametrize("machine", platforms.job_machines().values(), ids=lambda row: row.name)
def test_machines(machine: platforms.JobMachine) -> None:
    assert machine.vcpu >= 4
    assert machine.memory_gib >= 8
    assert machine.name in platforms.job_instance_types("ec2")
    assert (f"ml.{machine.name}" in platforms.job_instance_types("processing")) is (machine.family == "cpu")


def test_the_cost_is_an_upper_bound(read: Loader, project: Path) -> None:
    spec = read(SMALL + "job: {time_limit: 90min, max_parallel: 2}\n")
    assert derive.job_cost_limit(spec) == pytest.approx(0.816 * 1.5 * 2, abs=0.005)
    text = derive.job_cost_text(spec)
    assert text.startswith("at most 2.45 USD a run: 2 x ml.c5.4xlarge for 90min at 0.816 USD an hour (us-east-1, 2026-")
    assert "unofficial" in text
    on_ec2 = read(SMALL + "job: {where: ec2, instance_type: inf1.2xlarge, time_limit: 1h, max_parallel: 1}\n")
    assert derive.job_cost_limit(on_ec2) == 0.36
    (project / "prices.yaml").write_text(
        "date: '2027-01-01'\nregion: eu-west-1\nsagemaker: {source: ours, usd_per_hour: {ml.c5.4xlarge: 1}}\n"
    )
    assert derive.job_cost_limit(spec) == 3.0
    assert "eu-west-1" in derive.job_cost_text(spec)


def test_a_price_that_nobody_knows_is_unknown(read: Loader) -> None:
    spec = read(SMALL + "job: {where: ec2, instance_type: r5.4xlarge}\n")
    assert derive.job_cost_limit(spec) is None
    assert derive.job_cost_text(spec).startswith("unknown: no price of r5.4xlarge")


def test_check_says_what_a_run_can_cost(read: Loader, project: Path) -> None:
    read(SMALL + "job: {max_parallel: 1}\n")
    result = CliRunner().invoke(app, ["check", "--root", str(project)])
    assert result.exit_code == 0
    assert "depth: a compile run costs at most 2.45 USD a run: 1 x ml.c5.4xlarge for 3h" in result.output


@pytest.mark.parametrize(
    ("job", "right"),
    [
        ({}, True),
        (
            {"where": "ec2", "instance_type": "inf1.xlarge", "spot": True, "volume": "200GB", "time_limit": "90min"},
            True,
        ),
        ({"volume": 50, "max_parallel": 40}, True),
        ({"instance_type": "ml.p3.2xlarge"}, False),
        ({"time_limit": 3}, False),
        ({"volume": "100GiB"}, False),
        ({"max_parallel": 41}, False),
        ({"machine": "c5.4xlarge"}, False),
    ],
)
def test_schema(job: dict[str, Any], right: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    model = {"family": "bert", "weights": "random:0"}
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid({"name": "depth", "model": model, "job": job}) is right


def test_schema_gives_the_defaults() -> None:
    fields = schema()["$defs"]["Job"]["properties"]
    assert {name: field.get("default") for name, field in fields.items()} == {
        "where": "processing",
        "instance_type": None,
        "volume": 100,
        "time_limit": "3h",
        "max_parallel": 4,
        "spot": False,
        "subnets": None,
        "security_group": None,
        "session_manager": False,
    }


def test_keys() -> None:
    run = jobs.run_name("depth", SHA, 7)
    assert run == "depth-0123456789ab-7"
    assert run.startswith(jobs.run_stem("depth", SHA))
    assert jobs.inputs_prefix("depth", SHA) == f"jobs/depth/inputs/{SHA}/"
    assert jobs.wheels_prefix("depth", SHA) == f"jobs/depth/wheels/{SHA}/"
    assert jobs.variant_key("depth", SHA) == f"jobs/depth/cache/{SHA}/variant.tar"
    assert jobs.record_prefix("depth", run, 3) == f"jobs/depth/runs/{run}/record/3/"


def test_the_patterns_take_the_keys_and_nothing_more() -> None:
    name = "a" * 63
    run = jobs.run_name(name, SHA, 999)
    assert len(run) == 80
    good = {
        jobs.RUN_PATTERN: run,
        jobs.INPUTS_KEY_PATTERN: jobs.inputs_prefix("my-depth", SHA),
        jobs.WHEELS_KEY_PATTERN: jobs.wheels_prefix("my-depth", SHA),
        jobs.INDEX_PATTERN: "9999",
        jobs.SHA256_PATTERN: SHA,
    }
    for pattern, text in good.items():
        assert jobs.is_full(pattern, text)
        for more in ("\n", " ", ";id", "$(id)", "/../x", "'"):
            assert not jobs.is_full(pattern, text + more)
            assert not jobs.is_full(pattern, more + text)
    for index in ("01", "-1", "10000", "", "gather"):
        assert not jobs.is_full(jobs.INDEX_PATTERN, index)
    with pytest.raises(JobError, match="at most 999"):
        jobs.run_name("depth", SHA, 1000)


def a_plan(**changes: Any) -> dict[str, Any]:
    variant = {"label": "main, image 8x8, batch 1", "slug": "main-8x8-b1", "graph": SHA, "request": {"bounds": [0.1]}}
    plan: dict[str, Any] = {
        "format": 2,
        "name": "depth",
        "build_digest": SHA,
        "target": "inf1",
        "rehearsal": False,
        "where": "processing",
        "timeout": 60.0,
        "environment": {},
        "variants": [{"index": 0, "key": SHA, **variant}, {"index": 1, "key": OTHER, **variant}],
        "files": {"graph/graph.json": SHA, "code/compile/portable/job.py": OTHER},
    }
    return plan | changes


def test_written_and_read_back(tmp_path: Path) -> None:
    plan = Plan.model_validate(a_plan())
    (tmp_path / jobs.PLAN).write_text(jobs.dump(plan))
    assert jobs.read_plan(tmp_path / jobs.PLAN) == plan
    assert json.loads(jobs.dump(plan)) == a_plan()


VARIANTS = a_plan()["variants"]
BAD_PLANS = {
    "no JSON": ("{", "plan.json is not JSON"),
    "another format": (json.dumps(a_plan(format=1)), "format"),
    "an unknown key": (json.dumps(a_plan(more=1)), "more"),
    "no variants": (json.dumps(a_plan(variants=[])), "variants"),
    "variants out of order": (json.dumps(a_plan(variants=VARIANTS[::-1])), "not numbered"),
    "one key twice": (json.dumps(a_plan(variants=[VARIANTS[0], {**VARIANTS[1], "key": SHA}])), "the same key"),
    "a digest that is none": (json.dumps(a_plan(build_digest="A" * 64)), "build_digest"),
    "a slug for a path": (json.dumps(a_plan(variants=[{**VARIANTS[0], "slug": "../x"}])), "slug"),
    "a name for a shell": (json.dumps(a_plan(name="a;id")), "name"),
    "a file outside": (json.dumps(a_plan(files={"../graph.json": SHA})), "no path inside the bundle"),
    "an absolute file": (json.dumps(a_plan(files={"/graph.json": SHA})), "no path inside the bundle"),
}


@pytest.mark.parametrize(("text", "words"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_plans_that_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(JobError, match=re.escape(words)) as caught:
        jobs.read_plan(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"plan\.json cannot be read: No such file"):
        jobs.read_plan(tmp_path / jobs.PLAN)
    (tmp_path / jobs.PLAN).write_bytes(b"\xff")
    with pytest.raises(JobError, match=r"plan\.json is not JSON"):
        jobs.read_plan(tmp_path / jobs.PLAN)


def test_a_digest_of_a_folder(tmp_path: Path) -> None:
    for folder, names in (("a", ("x", "y/z")), ("b", ("y/z", "x"))):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(name)
    here, there = jobs.tree_digests(tmp_path / "a"), jobs.tree_digests(tmp_path / "b")
    assert list(here) == ["x", "y/z"]
    assert jobs.files_digest(here) == jobs.files_digest(there)
    (tmp_path / "b/x").write_text("other")
    assert jobs.files_digest(here) != jobs.files_digest(jobs.tree_digests(tmp_path / "b"))
