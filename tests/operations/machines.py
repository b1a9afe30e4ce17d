"""A compile stack as far as operations can tell: outputs, and a small state machine that Step Functions really runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3

import endpoint_spec as specs
from endpoint_spec import jobs
from endpoint_spec.digests import build_digest
from endpoint_spec.jobs import Plan, VariantJob

BUCKET = "the-artifact-bucket"
ROLE = "arn:aws:iam::123456789012:role/compile"
SPEC = (
    'name: depth\nmodel: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'
    "job: {where: processing, time_limit: 2h}\n"
)
KEYS = ("a" * 64, "b" * 64)


def write_spec(project: Path, name: str = "depth", text: str = SPEC) -> specs.EndpointSpec:
    """Write endpoints/NAME.yaml and read it."""
    file = project / "endpoints" / f"{name}.yaml"
    file.write_text(text.replace("name: depth", f"name: {name}"))
    return specs.load(file, root=project)


def deploy(states: dict[str, Any], first: str, name: str = "depth", **outputs: str) -> str:
    """Make the state machine and the stack whose outputs name it; return the machine's ARN."""
    definition = json.dumps({"StartAt": first, "States": states})
    machine = boto3.client("stepfunctions").create_state_machine(
        name=f"compile-{name}", definition=definition, roleArn=ROLE
    )
    values = {
        "StateMachineArn": machine["stateMachineArn"],
        "JobLogGroup": "/aws/sagemaker/ProcessingJobs",
        "Where": "processing",
        "TimeLimitSeconds": "7200",
        "CostLimit": "at most $3.26 (2 h, 2 machines)",
        **outputs,
    }
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": f"of-{name}"}}},
        "Outputs": {key: {"Value": value} for key, value in values.items() if value},
    }
    boto3.client("cloudformation").create_stack(
        StackName=f"InferentiaCompile-{name}", TemplateBody=json.dumps(template)
    )
    return str(machine["stateMachineArn"])


def variants_map(processor: dict[str, Any], then: str) -> dict[str, Any]:
    """A Map over the variants; `processor` is the states of one, from "One"."""
    return {
        "Type": "Map",
        "ItemsPath": "$.variants",
        "MaxConcurrency": 1,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "One", "States": processor},
        "ResultPath": None,
        "Next": then,
    }


def succeeding(wait: int = 0) -> tuple[dict[str, Any], str]:
    """Every variant was cached; after `wait` seconds."""
    one = {"One": {"Type": "Pass", "End": True}}
    variants = [{"index": str(index), "key": key, "cached": True} for index, key in enumerate(KEYS)]
    output = {"run.$": "$.run", "variants": variants}
    done = {"Type": "Pass", "Parameters": output, "End": True}
    pause = {"Type": "Wait", "Seconds": wait, "Next": "Variants"}
    return {"Pause": pause, "Variants": variants_map(one, "Done"), "Done": done}, "Pause"


def write_bundle(project: Path, folder: Path, name: str = "depth", *, rehearsal: bool = True) -> Plan:
    """What `inferentia bundle` writes, without a model."""
    spec = specs.load(project / "endpoints" / f"{name}.yaml", root=project)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / jobs.GRAPH).mkdir()
    (folder / jobs.GRAPH / "graph.json").write_text("{}\n")
    (folder / jobs.TRIALS).write_bytes(b"trials" * 100)
    plan = Plan(
        name=name,
        build_digest=build_digest(spec),
        target="inf1",
        rehearsal=rehearsal,
        where="processing",
        timeout=60,
        variants=[
            VariantJob(
                index=index,
                label=f"main batch {index + 1}",
                slug=f"main-b{index + 1}",
                key=key,
                graph=key,
                request={},
            )
            for index, key in enumerate(KEYS)
        ],
        files=jobs.tree_digests(folder),
    )
    (folder / jobs.PLAN).write_text(jobs.dump(plan))
    return plan
