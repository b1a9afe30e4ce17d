"""What matters of the stacks that compile endpoints; test_compile_run.py runs their state machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import endpoint_spec as specs
from cdk.constructs.artifact_bucket import CACHE_DAYS, RUN_DAYS
from cdk.deployment import REHEARSAL_ACCOUNT, REHEARSAL_AMI, Deployment, DeploymentError, read_deployment
from cdk.states.run import EVENTS_FOR_LOOKS, EVENTS_PER_LOOK, poll_seconds
from tests.cdk.projects import COMPILED, MACHINE_IMAGE, MINIMAL, Assemble, Project, Synthesize, error_annotations
from tests.cdk.reading import only, resources, text

IMAGES = {"inf1": MACHINE_IMAGE, "inf2": MACHINE_IMAGE}
COMMON = {
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::StepFunctions::StateMachine",
}
OF_EC2 = {
    "AWS::EC2::InternetGateway",
    "AWS::EC2::LaunchTemplate",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::InstanceProfile",
}


@pytest.fixture
def processing(compiling: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return compiling["InferentiaCompile-processing"]


@pytest.fixture
def ec2(compiling: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return compiling["InferentiaCompile-ec2"]


def compile_stack(
    synthesize: Synthesize, lines: str, deployment: Deployment | None = None, name: str = "one"
) -> dict[str, Any]:
    """The compile stack of a minimal spec with more lines."""
    template: dict[str, Any] = synthesize({name: MINIMAL + lines}, deployment)[f"InferentiaCompile-{name}"]
    return template


def definitions(template: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state machines of a run and of its cleanup."""
    machines = resources(template, "AWS::StepFunctions::StateMachine")
    found = {name: json.loads(text(row["Properties"]["DefinitionString"])) for name, row in machines.items()}
    (run,) = [body for name, body in found.items() if name.startswith("RunsRun")]
    (cleanup,) = [body for name, body in found.items() if name.startswith("RunsCleanup")]
    return run, cleanup


def statements(template: dict[str, Any], role: str) -> dict[str, dict[str, Any]]:
    """Statements by their ids, of the role whose logical id begins so."""
    (found,) = [row for name, row in resources(template, "AWS::IAM::Role").items() if name.startswith(role)]
    (policy,) = text(found["Properties"]["Policies"])
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def variant_states(definition: dict[str, Any]) -> dict[str, Any]:
    """The states of a variant's job."""
    states: dict[str, Any] = definition["States"]["Variants"]["ItemProcessor"]["States"]
    return states


def test_only_specs_with_a_job_have_a_compile_stack(templates: dict[str, dict[str, Any]]) -> None:
    assert not [stack for stack in templates if stack.startswith("InferentiaCompile")]


def test_only_these_types_and_no_custom_resource(compiling: dict[str, dict[str, Any]]) -> None:
    for where, types in (("processing", COMMON), ("ec2", COMMON | OF_EC2)):
        found = {row["Type"] for row in compiling[f"InferentiaCompile-{where}"]["Resources"].values()}
        assert found == types, where


def test_needs_no_lock(project: Project, assemble: Assemble) -> None:
    project.write("one", MINIMAL + "job: {{where: processing}}\n")
    assembly = Path(assemble(project).directory)
    assert not error_annotations(assembly, "InferentiaCompile-one")
    assert "inferentia build one" in str(error_annotations(assembly, "InferentiaEndpoint-one"))


def test_endpoint_stack_is_the_same_with_and_without_a_job(synthesize: Synthesize) -> None:
    with_job, without = (
        synthesize({"one": MINIMAL + lines})["InferentiaEndpoint-one"] for lines in ("job: {{where: processing}}\n", "")
    )
    assert with_job == without


@pytest.mark.parametrize("where", COMPILED)
def test_outputs_that_operations_read(compiling: dict[str, dict[str, Any]], where: str) -> None:
    template = compiling[f"InferentiaCompile-{where}"]
    outputs = {name: text(output["Value"]) for name, output in template["Outputs"].items()}
    image = {"MachineImage"} if where == "ec2" else set()
    assert set(outputs) == {"StateMachineArn", "JobLogGroup", "Where", "TimeLimitSeconds", "CostLimit"} | image
    assert outputs["Where"] == where
    assert outputs["TimeLimitSeconds"] == "10800"
    assert outputs["StateMachineArn"].startswith("${RunsRunMachine")
    assert outputs["CostLimit"] in template["Description"]


def test_cost_limit_is_that_of_the_spec(synthesize: Synthesize) -> None:
    lines = "job: {{where: processing, time_limit: 2h, max_parallel: 3}}\n"
    template = compile_stack(synthesize, lines)
    price = specs.platforms.job_price("ml.c5.4xlarge")
    assert price is not None
    assert f"at most {3 * 2 * price.usd_per_hour:.2f} USD a run" in template["Outputs"]["CostLimit"]["Value"]


def test_time_limit_bounds_the_machine_and_each_job(synthesize: Synthesize) -> None:
    run, _ = definitions(compile_stack(synthesize, "job: {{time_limit: 90min, max_parallel: 2}}\n"))
    assert run["TimeoutSeconds"] == 5400
    assert run["States"]["Variants"]["MaxConcurrency"] == 2
    request = variant_states(run)["Start"]["Parameters"]
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 5400}


def test_instances_shut_themselves_down_at_the_time_limit(synthesize: Synthesize) -> None:
    lines = "job: {{where: ec2, time_limit: 5401s}}\n"
    data = only(compile_stack(synthesize, lines, Deployment(compile_ami=IMAGES)), "AWS::EC2::LaunchTemplate")
    script = text(data["LaunchTemplateData"]["UserData"])
    assert script.splitlines()[1].startswith("shutdown -h +91 ")


@pytest.mark.parametrize("hours", [1, 3, 24, 120])
@pytest.mark.parametrize("parallel", [1, 4, 40])
def test_looking_never_fills_the_history(hours: int, parallel: int) -> None:
    seconds = poll_seconds(hours * 3600, parallel)
    assert seconds >= 30
    assert parallel * hours * 3600 / seconds * EVENTS_PER_LOOK <= EVENTS_FOR_LOOKS
    assert seconds == 30 or parallel * hours * 3600 / (seconds - 1) * EVENTS_PER_LOOK > EVENTS_FOR_LOOKS


def test_processing_job_has_no_network_and_encrypted_output(processing: dict[str, Any]) -> None:
    run, _ = definitions(processing)
    request = variant_states(run)["Start"]["Parameters"]
    assert request["NetworkConfig"] == {"EnableNetworkIsolation": True}
    cluster = request["ProcessingResources"]["ClusterConfig"]
    assert cluster == {"InstanceCount": 1, "InstanceType": "ml.c5.4xlarge", "VolumeSizeInGB": 100}
    assert not [row for row in statements(processing, "JobsPermissionsRole").values() if "CreateGrant" in str(row)]
    assert request["ProcessingOutputConfig"]["KmsKeyId"].startswith("${import InferentiaArtifacts:")
    assert {"Key": "team", "Value": "documents"} in request["Tags"]


@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_processing_image_is_the_targets(synthesize: Synthesize, target: str) -> None:
    run, _ = definitions(compile_stack(synthesize, f"compile: {{{{target: {target}}}}}\njob: {{{{}}}}\n"))
    image = specs.platforms.image(target, "torchserve")
    uri = variant_states(run)["Start"]["Parameters"]["AppSpecification"]["ImageUri"]
    assert uri.endswith(f"/{image.repository}:{image.tag}")


def test_machine_may_start_only_isolated_jobs_on_the_machine_of_the_spec(processing: dict[str, Any]) -> None:
    start = statements(processing, "RunsRunRole")["StartJobs"]
    assert start["Action"] == "sagemaker:CreateProcessingJob"
    run, _ = definitions(processing)
    request = variant_states(run)["Start"]["Parameters"]
    assert start["Condition"] == {
        "Bool": {"sagemaker:NetworkIsolation": "true"},
        "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": ["ml.c5.4xlarge"]},
        "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": "10800"},
        "ArnEquals": {"sagemaker:OutputKmsKey": request["ProcessingOutputConfig"]["KmsKeyId"]},
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 10800}
    assert start["Resource"].endswith(":processing-job/processing-????????????????????????????????-*")


@pytest.mark.parametrize(("where", "role"), [("processing", "JobsPermissionsRole"), ("ec2", "JobsInstanceRole")])
def test_job_writes_its_own_cache_and_runs_only(compiling: dict[str, dict[str, Any]], where: str, role: str) -> None:
    found = statements(compiling[f"InferentiaCompile-{where}"], role)
    assert [row.rpartition("}/")[2] for row in found["WriteFiles"]["Resource"]] == [
        f"jobs/{where}/cache/*",
        f"jobs/{where}/runs/*",
    ]
    assert [row.rpartition("}/")[2] for row in found["ReadFiles"]["Resource"]] == [
        f"jobs/{where}/inputs/*",
        f"jobs/{where}/wheels/*",
    ]
    assert found["FindFiles"]["Condition"] == {"StringLike": {"s3:prefix": [f"jobs/{where}/*"]}}
    assert "ViaService" in str(found["UseBucketKey"]["Condition"])
    assert not [row for row in found.values() if "Delete" in str(row["Action"])]


def test_machine_writes_nothing_and_reads_what_instances_say(processing: dict[str, Any], ec2: dict[str, Any]) -> None:
    on_jobs, on_instances = (statements(template, "RunsRunRole") for template in (processing, ec2))
    assert not {"WriteFiles", "ReadFiles", "UseBucketKey"} & set(on_jobs)
    assert "WriteFiles" not in on_instances
    assert on_instances["ReadFiles"]["Resource"].endswith("}/jobs/ec2/runs/*")
    for where, found in (("processing", on_jobs), ("ec2", on_instances)):
        assert found["FindFiles"]["Condition"] == {"StringLike": {"s3:prefix": [f"jobs/{where}/*"]}}


def test_instances_are_closed_encrypted_and_terminate_themselves(ec2: dict[str, Any]) -> None:
    data = only(ec2, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    (disk,) = data["BlockDeviceMappings"]
    assert (disk["DeviceName"], disk["Ebs"]["Encrypted"], disk["Ebs"]["DeleteOnTermination"]) == (
        "/dev/sda1",
        True,
        True,
    )
    assert "KeyName" not in data
    assert data["ImageId"] == MACHINE_IMAGE
    assert "InstanceMarketOptions" not in data


def test_nothing_comes_in_and_only_https_goes_out(ec2: dict[str, Any]) -> None:
    group = only(ec2, "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in group
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [
        ("tcp", 443, 443)
    ]
    zones = [row["Properties"]["AvailabilityZone"] for row in resources(ec2, "AWS::EC2::Subnet").values()]
    assert len(zones) == 3
    assert len({json.dumps(zone) for zone in zones}) == 3


def test_spot_is_asked_for_where_the_spec_says_so(synthesize: Synthesize) -> None:
    template = compile_stack(synthesize, "job: {{where: ec2, spot: true}}\n", Deployment(compile_ami=IMAGES))
    market = only(template, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["InstanceMarketOptions"]
    assert market == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    asked = statements(template, "RunsRunRole")["UseTemplate"]["Resource"]
    assert [row.rpartition(":")[2].partition("/")[0] for row in asked] == ["launch-template", "spot-instances-request"]


def test_instances_start_from_the_template_and_end_by_their_tag(ec2: dict[str, Any]) -> None:
    (template,) = resources(ec2, "AWS::EC2::LaunchTemplate")
    run, cleanup = statements(ec2, "RunsRunRole"), statements(ec2, "RunsCleanupRole")
    own = f"arn:${{AWS::Partition}}:ec2:${{AWS::Region}}:${{AWS::AccountId}}:launch-template/${{{template}}}"
    assert run["StartInstances"]["Condition"] == {"ArnEquals": {"ec2:LaunchTemplate": own}}
    assert run["UseTemplate"]["Resource"] == own
    assert run["TagNewInstances"]["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    assert "EndInstances" not in run
    assert cleanup["EndInstances"]["Condition"] == {"StringEquals": {"aws:ResourceTag/inferentia:endpoint": "ec2"}}
    started = variant_states(definitions(ec2)[0])["Start"]["Parameters"]
    assert started["LaunchTemplate"]["LaunchTemplateId"] == f"${{{template}}}"
    assert started["LaunchTemplate"]["Version"] == f"${{{template}.LatestVersionNumber}}"
    tags = [
        tag["Key"]
        for tag in only(ec2, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["TagSpecifications"][0]["Tags"]
    ]
    assert tags == ["inferentia:endpoint", "team"]
    for given in started["TagSpecifications"]:  # the request has them all too: whether EC2 merges is not documented
        assert {"Key": "inferentia:endpoint", "Value": "ec2"} in given["Tags"]
        assert {"Key": "team", "Value": "documents"} in given["Tags"]


def test_no_shell_unless_it_is_wanted(synthesize: Synthesize, ec2: dict[str, Any]) -> None:
    assert "AnswerSessions" not in statements(ec2, "JobsInstanceRole")
    lines = "job: {{where: ec2, session_manager: true}}\n"
    wanted = compile_stack(synthesize, lines, Deployment(compile_ami=IMAGES))
    assert "AnswerSessions" in statements(wanted, "JobsInstanceRole")


def test_s3_is_reached_for_the_artifact_bucket_alone(ec2: dict[str, Any]) -> None:
    (statement,) = text(only(ec2, "AWS::EC2::VPCEndpoint"))["PolicyDocument"]["Statement"]
    assert [row.rpartition("}")[2] for row in statement["Resource"]] == ["", "/*"]
    assert all(row.startswith("${import InferentiaArtifacts:") for row in statement["Resource"])
    assert not [action for action in statement["Action"] if "*" in action or "Delete" in action]


def test_a_network_of_ones_own_is_used_as_it_is(synthesize: Synthesize) -> None:
    lines = "job: {{where: ec2, subnets: [subnet-0a1b2c3d, subnet-11112222], security_group: sg-0a1b2c3d}}\n"
    template = compile_stack(synthesize, lines, Deployment(compile_ami=IMAGES))
    types = {row["Type"] for row in template["Resources"].values()}
    assert types == COMMON - {"AWS::SNS::Subscription"} | {"AWS::EC2::LaunchTemplate", "AWS::IAM::InstanceProfile"}
    data = only(template, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert data["SecurityGroupIds"] == ["sg-0a1b2c3d"]
    started = statements(template, "RunsRunRole")["StartInstances"]["Resource"]
    named = [row.rpartition(":")[2] for row in started if "subnet/" in row or "security-group/" in row]
    assert named == ["security-group/sg-0a1b2c3d", "subnet/subnet-0a1b2c3d", "subnet/subnet-11112222"]
    assert '"subnet-0a1b2c3d","subnet-11112222","subnet-0a1b2c3d"' in json.dumps(
        definitions(template)[0], separators=(",", ":")
    )


@pytest.mark.parametrize("where", COMPILED)
def test_runs_that_end_badly_start_the_cleanup(compiling: dict[str, dict[str, Any]], where: str) -> None:
    template = compiling[f"InferentiaCompile-{where}"]
    rule = text(only(template, "AWS::Events::Rule"))
    outputs = {name: text(output["Value"]) for name, output in template["Outputs"].items()}
    assert rule["EventPattern"]["detail"] == {
        "stateMachineArn": [outputs["StateMachineArn"]],
        "status": ["ABORTED", "FAILED", "TIMED_OUT"],
    }
    (target,) = rule["Targets"]
    assert target["Arn"].startswith("${RunsCleanupMachine")
    assert target["InputPath"] == "$.detail"
    start = statements(template, "RunsRuleRole")["StartCleanup"]
    assert (start["Action"], start["Resource"]) == ("states:StartExecution", target["Arn"])


@pytest.mark.parametrize("where", COMPILED)
def test_logs_are_encrypted_and_expire(compiling: dict[str, dict[str, Any]], where: str) -> None:
    template = compiling[f"InferentiaCompile-{where}"]
    group = text(only(template, "AWS::Logs::LogGroup"))
    (key,) = resources(template, "AWS::KMS::Key")
    assert (group["RetentionInDays"], group["KmsKeyId"]) == (90, f"${{{key}.Arn}}")
    for machine in resources(template, "AWS::StepFunctions::StateMachine").values():
        assert machine["Properties"]["LoggingConfiguration"]["Level"] == "ALL"


def test_ec2_without_a_machine_image_is_refused_and_the_rest_is_not(project: Project, assemble: Assemble) -> None:
    project.add("one", MINIMAL + "job: {{where: ec2}}\n")
    project.add("two", MINIMAL + "job: {{where: processing}}\n")
    assembly = Path(assemble(project).directory)
    (problem,) = error_annotations(assembly, "InferentiaCompile-one")
    assert "compile_ami" in problem
    assert "describe-images" in problem
    for stack in ("InferentiaEndpoint-one", "InferentiaCompile-two", "InferentiaArtifacts"):
        assert not error_annotations(assembly, stack)


@pytest.mark.parametrize("value", ["latest", "ami-xyz", {"inf3": MACHINE_IMAGE}, {"inf1": 1}])
def test_a_machine_image_that_is_none_is_refused(value: Any) -> None:
    from aws_cdk import App  # noqa: PLC0415

    with pytest.raises(DeploymentError, match=r"compile_ami=.*write `-c compile_ami=ami-"):
        read_deployment(App(context={"compile_ami": value}), {})


def test_each_target_may_have_its_machine_image() -> None:
    from aws_cdk import App  # noqa: PLC0415

    found = read_deployment(App(context={"compile_ami": {"inf2": MACHINE_IMAGE}}), {})
    assert (found.machine_image("inf1"), found.machine_image("inf2")) == (None, MACHINE_IMAGE)
    assert read_deployment(App(context={"compile_ami": MACHINE_IMAGE}), {}).machine_image("inf1") == MACHINE_IMAGE
    assert read_deployment(App(), {}).machine_image("inf1") is None
    assert Deployment(rehearsal=True).machine_image("inf1") == REHEARSAL_AMI
    assert Deployment(rehearsal=True, compile_ami=IMAGES).machine_image("inf1") == MACHINE_IMAGE


def test_rehearsal_is_pinned_and_tagged_down_to_its_jobs(synthesize: Synthesize) -> None:
    for where in ("processing", "ec2"):
        template = compile_stack(synthesize, f"job: {{{{where: {where}}}}}\n", Deployment(rehearsal=True))
        assert REHEARSAL_ACCOUNT in json.dumps(template)
        assert '{"Ref": "AWS::AccountId"}' not in json.dumps(template)
        start = variant_states(definitions(template)[0])["Start"]["Parameters"]
        tags = start["Tags"] if where == "processing" else start["TagSpecifications"][0]["Tags"]
        assert {"Key": "rehearsal", "Value": "true"} in tags


def test_jobs_files_expire_and_models_never(compiling: dict[str, dict[str, Any]]) -> None:
    (bucket,) = [
        row
        for row in resources(compiling["InferentiaArtifacts"], "AWS::S3::Bucket").values()
        if "VersioningConfiguration" in row["Properties"]
    ]
    rules = {rule["Id"]: rule for rule in bucket["Properties"]["LifecycleConfiguration"]["Rules"]}
    expiring = {row["Prefix"]: row["ExpirationInDays"] for row in rules.values() if "ExpirationInDays" in row}
    assert expiring == {"jobs/": CACHE_DAYS, **{f"jobs/{where}/runs/": RUN_DAYS for where in COMPILED}}
    for rule in rules.values():
        assert ("NoncurrentVersionExpiration" in rule) == ("Prefix" in rule)
