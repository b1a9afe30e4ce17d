"""The life of stacks through boto3: create, change, fail and roll back, exports, change sets, deletion."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.helpers import Stacks
from tests.embedded_aws.running import Aws, wait_for

Outputs = Callable[[dict[str, Any]], dict[str, str]]


def parameter(value: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}, **more}


def group(name: str, days: int = 7, **more: Any) -> dict[str, Any]:
    return {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name, "RetentionInDays": days}, **more}


BROKEN = {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 8}}  # 8 days is no allowed retention


def read(aws: Aws, name: str) -> str:
    return aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def groups(aws: Aws, prefix: str) -> dict[str, int]:
    found = aws.client("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
    return {item["logGroupName"]: item["retentionInDays"] for item in found}


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    details = error.value.response["Error"]
    return details["Code"], details["Message"]


def test_create_update_in_place_replace_and_delete(aws: Aws, stacks: Stacks, name: str, outputs: Outputs) -> None:
    def template(value: str, log: str, days: int) -> dict[str, Any]:
        return {
            "Resources": {
                "Log": group(log, days),
                "Where": parameter({"Fn::Sub": "${Log} ${Log.Arn} " + value}),
            },
            "Outputs": {"Where": {"Value": {"Ref": "Where"}}, "Log": {"Value": {"Ref": "Log"}}},
        }

    made = stacks.up(name, template("one", f"/{name}/a", 7))
    assert made["StackStatus"] == "CREATE_COMPLETE"
    where = outputs(made)["Where"]
    assert where.startswith(f"{name}-Where-")
    assert read(aws, where) == f"/{name}/a arn:aws:logs:us-east-1:123456789012:log-group:/{name}/a:* one"
    order = [logical for logical, status, _ in stacks.events(name) if status == "CREATE_COMPLETE"]
    assert order == ["Log", "Where", name]

    made = stacks.up(name, template("two", f"/{name}/a", 30))
    assert made["StackStatus"] == "UPDATE_COMPLETE"
    assert outputs(made)["Where"] == where, "an update in place keeps the physical resource"
    assert read(aws, where).endswith("two")
    assert groups(aws, f"/{name}/") == {f"/{name}/a": 30}

    made = stacks.up(name, template("two", f"/{name}/b", 30))
    assert outputs(made) == {"Where": where, "Log": f"/{name}/b"}
    assert read(aws, where).startswith(f"/{name}/b ")
    assert groups(aws, f"/{name}/") == {f"/{name}/b": 30}, "the replaced group is cleaned up"

    assert stacks.down(name) == "DELETE_COMPLETE"
    assert groups(aws, f"/{name}/") == {}
    with pytest.raises(ClientError) as caught:
        stacks.client.describe_stacks(StackName=name)
    assert code(caught) == ("ValidationError", f"Stack with id {name} does not exist")


def test_a_failing_create_rolls_back(aws: Aws, stacks: Stacks, name: str) -> None:
    template = {"Resources": {"Log": group(f"/{name}/a"), "Bad": {**BROKEN, "DependsOn": "Log"}}}
    assert stacks.up(name, template)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "RetentionInDays" in stacks.failures(name)["Bad"] or "retentionInDays" in stacks.failures(name)["Bad"]
    assert groups(aws, f"/{name}/") == {}
    statuses = [status for logical, status, _ in stacks.events(name) if logical == name]
    assert statuses == ["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"]
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        stacks.client.update_stack(StackName=name, TemplateBody=json.dumps(template))


def test_a_failing_update_brings_the_old_resources_back(aws: Aws, stacks: Stacks, name: str, outputs: Outputs) -> None:
    old = {
        "Resources": {
            "Log": group(f"/{name}/old"),
            "Where": parameter({"Ref": "Log"}),
            "Gone": parameter("still here"),
        },
        "Outputs": {key: {"Value": {"Ref": key}} for key in ("Where", "Gone")},
    }
    before = stacks.up(name, old)
    new = {
        "Resources": {
            "Log": group(f"/{name}/new", 30),
            "Where": parameter({"Ref": "Log"}),
            "Added": parameter("added", DependsOn="Where"),
            "Bad": {**BROKEN, "DependsOn": "Added"},
        }
    }
    after = stacks.up(name, new)
    assert after["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert set(stacks.failures(name)) == {"Bad"}
    assert outputs(after) == outputs(before)
    assert groups(aws, f"/{name}/") == {f"/{name}/old": 7}
    assert read(aws, outputs(before)["Where"]) == f"/{name}/old"
    assert read(aws, outputs(before)["Gone"]) == "still here"
    assert set(stacks.physical(name)) == {"Log", "Where", "Gone"}
    assert stacks.up(name, {**old, "Resources": {**old["Resources"], "Gone": parameter("changed")}})["StackStatus"] == (
        "UPDATE_COMPLETE"
    )


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ({"Type": "AWS::EC2::Instance", "Properties": {}}, "the embedded AWS does not create AWS::EC2::Instance"),
        ({"Type": "AWS::Nothing::Here", "Properties": {}}, "Unrecognized resource types: [AWS::Nothing::Here]"),
    ],
)
def test_an_unknown_type_is_refused_by_its_name(stacks: Stacks, name: str, resource: Any, words: str) -> None:
    with pytest.raises(ClientError) as caught:
        stacks.up(name, {"Resources": {"It": resource}})
    assert words in code(caught)[1]


@pytest.mark.parametrize(
    ("kind", "properties", "words"),
    [
        ("AWS::SSM::Parameter", {"Type": "String", "Value": "x", "Colour": "red"}, "unsupported property Colour"),
        ("AWS::SSM::Parameter", {"Value": "x"}, "required key [Type] not found"),
        ("AWS::S3::Bucket", {"AccelerateConfiguration": {"AccelerationStatus": "Enabled"}}, "AccelerateConfiguration"),
        (
            "AWS::S3::Bucket",
            {"VersioningConfiguration": {"State": "On"}},
            "unsupported property State (at #/Versioning",
        ),
        ("AWS::S3::Bucket", {"Arn": "x"}, "#/Arn: read-only property"),
    ],
)
def test_an_unknown_property_fails_the_stack_by_its_name(
    stacks: Stacks, name: str, kind: str, properties: Any, words: str
) -> None:
    made = stacks.up(name, {"Resources": {"It": {"Type": kind, "Properties": properties}}})
    assert made["StackStatus"] == "ROLLBACK_COMPLETE"
    assert words in stacks.failures(name)["It"]


def test_policies_of_retention(aws: Aws, stacks: Stacks, name: str) -> None:
    def template(suffix: str) -> dict[str, Any]:
        kept = {"UpdateReplacePolicy": "Retain", "DeletionPolicy": "Retain"}
        return {"Resources": {"Log": group(f"/{name}/{suffix}", **kept), "Other": group(f"/{name}/x{suffix}")}}

    stacks.up(name, template("one"))
    stacks.up(name, template("two"))
    assert set(groups(aws, f"/{name}/")) == {f"/{name}/one", f"/{name}/two", f"/{name}/xtwo"}
    assert ("Log", "DELETE_SKIPPED") in [event[:2] for event in stacks.events(name)]
    stacks.down(name)
    assert set(groups(aws, f"/{name}/")) == {f"/{name}/one", f"/{name}/two"}


def test_a_named_resource_is_not_replaced_by_itself(stacks: Stacks, name: str) -> None:
    def template(path: str) -> dict[str, Any]:
        trust = {"Version": "2012-10-17", "Statement": []}
        role = {"RoleName": name, "Path": path, "AssumeRolePolicyDocument": trust}
        return {"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}}

    stacks.up(name, template("/a/"))
    assert stacks.up(name, template("/b/"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert f"Rename {name} and update the stack again" in stacks.failures(name)["Role"]


def test_an_existing_bucket_is_not_taken_over(aws: Aws, stacks: Stacks, name: str) -> None:
    aws.client("s3").create_bucket(Bucket=name)
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}
    assert stacks.up(name, {"Resources": {"Bucket": bucket}})["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.failures(name) == {"Bucket": f"{name} already exists"}
    aws.client("s3").head_bucket(Bucket=name)


def test_a_full_bucket_is_not_deleted(aws: Aws, stacks: Stacks, name: str) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}
    stacks.up(name, {"Resources": {"Bucket": bucket, "Where": parameter({"Ref": "Bucket"})}})
    aws.client("s3").put_object(Bucket=name, Key="k", Body=b"x")
    assert stacks.down(name) == "DELETE_FAILED"
    stack = stacks.client.describe_stacks(StackName=name)["Stacks"][0]
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [Bucket]."
    assert "not empty" in stacks.failures(name)["Bucket"]
    aws.client("s3").delete_object(Bucket=name, Key="k")
    assert stacks.down(name) == "DELETE_COMPLETE"


def test_exports_and_imports(aws: Aws, stacks: Stacks, name: str, outputs: Outputs) -> None:
    def producer(value: str, exported: bool = True) -> dict[str, Any]:
        output = {"Value": value, **({"Export": {"Name": f"{name}-shared"}} if exported else {})}
        return {"Resources": {"It": parameter(value)}, "Outputs": {"Shared": output}}

    consumer = {
        "Resources": {"It": parameter({"Fn::ImportValue": f"{name}-shared"})},
        "Outputs": {"It": {"Value": {"Ref": "It"}}},
    }
    missing = stacks.up(f"{name}-early", consumer)
    assert missing["StackStatus"] == "ROLLBACK_COMPLETE"
    stacks.up(f"{name}-p", producer("one"))
    made = stacks.up(f"{name}-c", consumer)
    assert read(aws, outputs(made)["It"]) == "one"
    assert stacks.client.list_imports(ExportName=f"{name}-shared")["Imports"] == [f"{name}-c"]
    twice = stacks.up(f"{name}-q", producer("one"))
    assert twice["StackStatus"] == "ROLLBACK_COMPLETE"

    in_use = f"Export {name}-shared cannot be deleted as it is in use by {name}-c"
    stacks.client.delete_stack(StackName=f"{name}-p")
    stack = stacks.client.describe_stacks(StackName=f"{name}-p")["Stacks"][0]
    assert (stack["StackStatus"], stack["StackStatusReason"]) == ("CREATE_COMPLETE", in_use)
    for change in (producer("two"), producer("one", exported=False)):
        assert stacks.up(f"{name}-p", change)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    reasons = [
        reason for logical, status, reason in stacks.events(f"{name}-p") if status == "UPDATE_ROLLBACK_IN_PROGRESS"
    ]
    assert reasons == [in_use.replace("deleted", "updated"), in_use]

    assert stacks.down(f"{name}-c") == "DELETE_COMPLETE"
    assert stacks.down(f"{name}-p") == "DELETE_COMPLETE"


def test_parameters_with_previous_values_and_ssm(aws: Aws, stacks: Stacks, name: str, outputs: Outputs) -> None:
    aws.client("ssm").put_parameter(Name=f"/{name}/version", Value="33", Type="String")
    template = {
        "Parameters": {
            "Stage": {"Type": "String"},
            "Version": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": f"/{name}/version"},
        },
        "Resources": {"It": parameter({"Fn::Sub": "${Stage} ${Version} {{resolve:ssm:/" + name + "/version}}"})},
        "Outputs": {"It": {"Value": {"Ref": "It"}}},
    }
    made = stacks.up(name, template, Parameters=[{"ParameterKey": "Stage", "ParameterValue": "dev"}])
    assert read(aws, outputs(made)["It"]) == "dev 33 33"
    aws.client("ssm").put_parameter(Name=f"/{name}/version", Value="34", Type="String", Overwrite=True)
    made = stacks.up(name, template, Parameters=[{"ParameterKey": "Stage", "UsePreviousValue": True}])
    assert read(aws, outputs(made)["It"]) == "dev 34 34"
    version = [row for row in made["Parameters"] if row["ParameterKey"] == "Version"]
    assert version[0]["ResolvedValue"] == "34"


def change_set(stacks: Stacks, name: str, template: Any, kind: str, label: str = "c") -> dict[str, Any]:
    stacks.client.create_change_set(
        StackName=name, ChangeSetName=label, ChangeSetType=kind, TemplateBody=json.dumps(template)
    )
    return stacks.client.describe_change_set(StackName=name, ChangeSetName=label)


def test_change_sets(stacks: Stacks, name: str) -> None:
    def template(log: str, value: str) -> dict[str, Any]:
        return {"Resources": {"Log": group(log), "Where": parameter({"Fn::Sub": "${Log} " + value})}}

    described = change_set(stacks, name, template(f"/{name}/a", "one"), "CREATE")
    assert described["Status"] == "CREATE_COMPLETE"
    changes = [change["ResourceChange"] for change in described["Changes"]]
    assert [(change["Action"], change["LogicalResourceId"]) for change in changes] == [("Add", "Log"), ("Add", "Where")]
    assert stacks.client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    stacks.client.execute_change_set(StackName=name, ChangeSetName="c")
    assert stacks.settled(name)["StackStatus"] == "CREATE_COMPLETE"

    described = change_set(stacks, name, template(f"/{name}/a", "one"), "UPDATE")
    assert (described["Status"], described["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert described["StatusReason"].startswith("The submitted information didn't contain changes.")
    with pytest.raises(ClientError) as caught:
        stacks.client.execute_change_set(StackName=name, ChangeSetName="c")
    assert code(caught)[0] == "InvalidChangeSetStatus"
    stacks.client.delete_change_set(StackName=name, ChangeSetName="c")

    changed = template(f"/{name}/b", "one")
    changed["Resources"]["New"] = parameter("new")
    described = change_set(stacks, name, changed, "UPDATE")
    rows = {change["ResourceChange"]["LogicalResourceId"]: change["ResourceChange"] for change in described["Changes"]}
    assert {key: (row["Action"], row.get("Replacement")) for key, row in rows.items()} == {
        "Log": ("Modify", "True"),
        "Where": ("Modify", "False"),
        "New": ("Add", None),
    }
    assert rows["Where"]["Details"][0]["Evaluation"] == "Dynamic"
    stacks.client.execute_change_set(StackName=name, ChangeSetName="c")
    assert stacks.settled(name)["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.client.list_change_sets(StackName=name)["Summaries"] == []


def trigger(aws: Aws, name: str) -> str:
    """An alarm that rings above one of a metric of its own; its ARN."""
    client = aws.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName=name, Namespace=name, MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=2,
        DatapointsToAlarm=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="notBreaching",
    )  # fmt: skip
    return str(client.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["AlarmArn"])


def test_a_rollback_trigger_takes_an_update_back_and_is_kept(aws: Aws, stacks: Stacks, name: str) -> None:
    arn, metric = trigger(aws, name), [{"MetricName": "m", "Value": 5.0}]
    triggers = [{"Arn": arn, "Type": "AWS::CloudWatch::Alarm"}]
    template: Callable[[str], Any] = lambda value: {"Resources": {"It": parameter(value)}}  # noqa: E731
    made = stacks.up(name, template("one"))
    assert made["RollbackConfiguration"] == {}
    configuration = {"RollbackTriggers": triggers, "MonitoringTimeInMinutes": 5}
    made = stacks.up(name, template("two"), RollbackConfiguration=configuration)
    assert (made["StackStatus"], made["RollbackConfiguration"]) == ("UPDATE_COMPLETE", configuration)

    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(stacks.up, name, template("three"))  # 5 minutes of monitoring are 3 s here
        done, seen = ("It", "UPDATE_COMPLETE"), stacks.events(name)
        wait_for(lambda: [event[:2] for event in stacks.events(name)[len(seen) :]].count(done), "It is updated")
        aws.client("cloudwatch").put_metric_data(Namespace=name, MetricData=metric)
        made = update.result()
    assert made["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", "a saved trigger rings while the stack is monitored"
    (reason,) = [why for _, status, why in stacks.events(name) if status == "UPDATE_ROLLBACK_IN_PROGRESS"]
    assert reason == f"The rollback trigger {arn} is in the state ALARM."
    assert read(aws, stacks.physical(name)["It"]) == "two"

    made = stacks.up(name, template("four"), RollbackConfiguration={"RollbackTriggers": []})
    assert made["StackStatus"] == "UPDATE_COMPLETE", "without triggers nothing is looked at"
    missing = [{"Arn": arn + "x", "Type": "AWS::CloudWatch::Alarm"}]
    made = stacks.up(name, template("five"), RollbackConfiguration={"RollbackTriggers": missing})
    assert made["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    with pytest.raises(ClientError, match="takes 5 triggers at most"):
        stacks.up(name, template("six"), RollbackConfiguration={"RollbackTriggers": triggers * 6})


def test_a_log_group_that_is_there_is_imported_where_it_would_be_kept(aws: Aws, stacks: Stacks, name: str) -> None:
    logs, names = aws.client("logs"), (f"/{name}/kept", f"/{name}/own")
    for one in names:
        logs.create_log_group(logGroupName=one)
        logs.put_retention_policy(logGroupName=one, retentionInDays=365)
    kept = {"Kept": group(names[0], DeletionPolicy="RetainExceptOnCreate")}
    importing = {"ImportExistingResources": True, "StackName": name, "ChangeSetName": "c"}

    def deploy(resources: dict[str, Any], kind: str) -> tuple[dict[str, str], str]:
        """What the change set does with each resource, and the status of the stack."""
        body = json.dumps({"Resources": resources})
        stacks.client.create_change_set(**importing, ChangeSetType=kind, TemplateBody=body)
        changes = stacks.client.describe_change_set(StackName=name, ChangeSetName="c")["Changes"]
        stacks.client.execute_change_set(StackName=name, ChangeSetName="c")
        rows = [change["ResourceChange"] for change in changes]
        return {row["LogicalResourceId"]: row["Action"] for row in rows}, stacks.settled(name)["StackStatus"]

    planned, status = deploy({**kept, "Bad": {**BROKEN, "DependsOn": "Kept"}}, "CREATE")
    assert (planned, status) == ({"Kept": "Import", "Bad": "Add"}, "ROLLBACK_COMPLETE")
    assert names[0] in groups(aws, f"/{name}/"), "taking an import back deletes nothing"
    stacks.down(name)

    assert deploy(kept, "CREATE") == ({"Kept": "Import"}, "CREATE_COMPLETE")
    assert ("Kept", "IMPORT_COMPLETE") in [event[:2] for event in stacks.events(name)]
    assert groups(aws, f"/{name}/")[names[0]] == 365, "an import changes nothing of the resource"
    planned, status = deploy({**kept, "Own": group(names[1])}, "UPDATE")
    assert (planned["Own"], status) == ("Add", "UPDATE_ROLLBACK_COMPLETE"), "one that would not be kept is not imported"
    stacks.down(name)
    assert set(groups(aws, f"/{name}/")) == set(names)


def test_no_update_without_changes(stacks: Stacks, name: str) -> None:
    template = {"Resources": {"It": parameter("x")}}
    stacks.up(name, template)
    with pytest.raises(ClientError) as caught:
        stacks.up(name, template)
    assert code(caught) == ("ValidationError", "No updates are to be performed.")


def test_stack_tags_reach_the_resources(aws: Aws, stacks: Stacks, name: str) -> None:
    template = {"Resources": {"It": parameter("x"), "Log": group(f"/{name}/a")}}
    made = stacks.up(name, template, Tags=[{"Key": "rehearsal", "Value": "true"}])
    assert made["Tags"] == [{"Key": "rehearsal", "Value": "true"}]
    tags = aws.client("ssm").list_tags_for_resource(ResourceType="Parameter", ResourceId=stacks.physical(name)["It"])
    assert tags["TagList"] == [{"Key": "rehearsal", "Value": "true"}]
    assert aws.client("logs").list_tags_log_group(logGroupName=f"/{name}/a")["tags"] == {"rehearsal": "true"}


def test_termination_protection_and_capabilities(stacks: Stacks, name: str) -> None:
    template = {"Resources": {"It": parameter("x")}}
    stacks.up(name, template, EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        stacks.client.delete_stack(StackName=name)
    stacks.client.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    assert stacks.down(name) == "DELETE_COMPLETE"
    role = {"Type": "AWS::IAM::Role", "Properties": {"RoleName": name, "AssumeRolePolicyDocument": {}}}
    with pytest.raises(ClientError) as caught:
        stacks.client.create_stack(
            StackName=name, TemplateBody=json.dumps({"Resources": {"Role": role}}), Capabilities=["CAPABILITY_IAM"]
        )
    assert code(caught) == ("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]")


def test_what_is_not_honoured_is_refused(stacks: Stacks, name: str) -> None:
    with pytest.raises(ClientError, match="does not honour TimeoutInMinutes"):
        stacks.up(name, {"Resources": {"It": parameter("x")}}, TimeoutInMinutes=5)
    with pytest.raises(ClientError) as caught:
        stacks.client.detect_stack_drift(StackName=name)
    assert code(caught)[0] == "NotImplemented"


@pytest.mark.parametrize("bad", ["../x", "a b", "1a", "a" * 129, "a\n"])
def test_a_name_that_no_stack_can_have_is_refused(stacks: Stacks, bad: str) -> None:
    body = json.dumps({"Resources": {"It": parameter("x")}})
    for create in (
        lambda: stacks.client.create_stack(StackName=bad, TemplateBody=body),
        lambda: stacks.client.create_change_set(
            StackName=bad, ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body
        ),
    ):
        with pytest.raises(ClientError) as caught:
            create()
        assert code(caught)[0] == "ValidationError"
        assert "'stackName' failed to satisfy constraint" in code(caught)[1]


def test_templates_that_no_stack_can_have_are_refused_when_they_are_sent(stacks: Stacks, name: str) -> None:
    circle = {"A": {**parameter("x"), "DependsOn": "B"}, "B": {**parameter("y"), "DependsOn": ["A"]}}
    many = {f"R{number}": parameter(str(number)) for number in range(501)}
    for resources, words in (
        (circle, "Circular dependency between resources: ["),
        (many, "Number of resources, 501, is greater than maximum allowed, 500"),
    ):
        with pytest.raises(ClientError) as caught:
            stacks.client.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
        assert code(caught)[0] == "ValidationError"
        assert words in code(caught)[1]
    with pytest.raises(ClientError, match="does not exist"):
        stacks.client.describe_stacks(StackName=name)


def test_a_failed_stack_that_is_not_rolled_back_can_be_mended(aws: Aws, stacks: Stacks, name: str) -> None:
    bad = {"Resources": {"Log": group(f"/{name}/a"), "Bad": {**BROKEN, "DependsOn": "Log"}}}
    assert stacks.up(name, bad, DisableRollback=True)["StackStatus"] == "CREATE_FAILED"
    assert groups(aws, f"/{name}/") == {f"/{name}/a": 7}
    good = {"Resources": {"Log": group(f"/{name}/b"), "Bad": group(f"/{name}/c", DependsOn="Log")}}
    assert stacks.up(name, good)["StackStatus"] == "UPDATE_COMPLETE"
    assert set(groups(aws, f"/{name}/")) == {f"/{name}/b", f"/{name}/c"}
    assert stacks.down(name) == "DELETE_COMPLETE"
    assert groups(aws, f"/{name}/") == {}
