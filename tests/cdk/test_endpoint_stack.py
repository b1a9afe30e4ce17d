"""Each resource of an endpoint's stack, from the spec `full` of conftest unless another one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern

import endpoint_spec as specs
from endpoint_spec import cost, derive
from tests.cdk.projects import FULL, MINIMAL, SHA256, Synthesize, lock_of, new_project
from tests.cdk.reading import only, resources, text

KEY = f"models/full/{SHA256}/model.tar.gz"
TYPES = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Events::Rule",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SageMaker::Endpoint",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Model",
}


@pytest.fixture
def endpoint(tmp_path: Path) -> specs.EndpointSpec:
    home = new_project(tmp_path)
    return specs.load(home.write("full", FULL), home.root)


def test_only_these_types_and_no_custom_resource(full: dict[str, Any]) -> None:
    assert {resource["Type"] for resource in full["Resources"].values()} == TYPES


def test_model_reads_the_locked_artifact_from_the_artifact_bucket(full: dict[str, Any]) -> None:
    container = text(only(full, "AWS::SageMaker::Model"))["PrimaryContainer"]
    assert container["ModelDataUrl"].startswith("s3://${import InferentiaArtifacts:ExportsOutputRefArtifactsBucket")
    assert container["ModelDataUrl"].endswith("/" + KEY)


def test_model_runs_in_the_worker_environment(full: dict[str, Any], endpoint: specs.EndpointSpec) -> None:
    container = only(full, "AWS::SageMaker::Model")["PrimaryContainer"]
    assert text(container["Environment"]) == derive.worker_environment(endpoint, lock_of(endpoint)) | {}
    assert container["Environment"]["ENDPOINT_WORKERS"] == "4"
    assert list(container["Environment"]) == sorted(container["Environment"])


def test_image_comes_from_the_registry_of_the_region(synthesize: Synthesize) -> None:
    stock = synthesize({"stock": MINIMAL + "serve: {{server: torchserve}}\n"})["InferentiaEndpoint-stock"]
    container = text(only(stock, "AWS::SageMaker::Model"))["PrimaryContainer"]
    account = "${map RegistryAccounts ${AWS::Region} account}"
    image = specs.platforms.image("inf1", "torchserve")
    assert container["Image"] == (
        f"{account}.dkr.ecr.${{AWS::Region}}.${{AWS::URLSuffix}}/{image.repository}:{image.tag}"
    )
    mapping = stock["Mappings"]["RegistryAccounts"]
    assert {region: row["account"] for region, row in mapping.items()} == specs.platforms.registry_accounts("inf1")
    assert "us-west-1" not in mapping
    (policy,) = text(only(stock, "AWS::IAM::Role"))["Policies"]
    (pull,) = [row for row in policy["PolicyDocument"]["Statement"] if row["Sid"] == "PullImage"]
    assert pull["Resource"].endswith(":repository/pytorch-inference-neuron")


def test_only_endpoint_and_variant_have_names(full: dict[str, Any]) -> None:
    assert only(full, "AWS::SageMaker::Endpoint")["EndpointName"] == "full"
    assert "ModelName" not in only(full, "AWS::SageMaker::Model")
    config = only(full, "AWS::SageMaker::EndpointConfig")
    assert "EndpointConfigName" not in config
    assert config["ProductionVariants"][0]["VariantName"] == "main"
    for type_, name in (("Role", "IAM"), ("Topic", "SNS"), ("Dashboard", "CloudWatch")):
        properties = only(full, f"AWS::{name}::{type_}")
        assert not {"RoleName", "TopicName", "DashboardName"} & set(properties)


def test_variant_has_capacity_and_both_timeouts(full: dict[str, Any], endpoint: specs.EndpointSpec) -> None:
    (variant,) = only(full, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InstanceType"] == "ml.inf1.2xlarge"
    assert variant["InitialInstanceCount"] == 1
    lock = lock_of(endpoint)
    assert variant["ModelDataDownloadTimeoutInSeconds"] == derive.model_download_timeout(lock)
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == derive.startup_timeout(lock)


def test_update_keeps_scaling_but_not_capture_and_weight(full: dict[str, Any]) -> None:
    endpoint = only(full, "AWS::SageMaker::Endpoint")
    assert endpoint["RetainAllVariantProperties"] is True
    assert [row["VariantPropertyType"] for row in endpoint["ExcludeRetainedVariantProperties"]] == [
        "DataCaptureConfig",
        "DesiredWeight",
    ]


def test_inf1_is_updated_all_at_once(full: dict[str, Any]) -> None:
    assert "DeploymentConfig" not in only(full, "AWS::SageMaker::Endpoint")


def test_role_reads_one_object_with_one_key(full: dict[str, Any]) -> None:
    (policy,) = text(only(full, "AWS::IAM::Role"))["Policies"]
    by_sid = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
    read = by_sid["ReadModel"]
    assert read["Action"] == "s3:GetObject"
    assert read["Resource"].startswith("${import InferentiaArtifacts:ExportsOutputFnGetAttArtifactsBucket")
    assert read["Resource"].endswith("}/" + KEY)
    assert by_sid["DecryptModel"]["Action"] == "kms:Decrypt"
    assert by_sid["DecryptModel"]["Condition"] == {
        "StringEquals": {"kms:ViaService": "s3.${AWS::Region}.${AWS::URLSuffix}"}
    }
    pull = by_sid["PullImage"]["Resource"]
    assert pull.endswith(":${AWS::AccountId}:repository/inferentia-endpoints/inf1-native")
    assert by_sid["PublishMetrics"]["Condition"]["StringEquals"]["cloudwatch:namespace"] == [
        "/aws/sagemaker/Endpoints",
        "AWS/SageMaker",
    ]
    assert "ReadAlarms" not in by_sid


def test_role_is_for_sagemaker_only(full: dict[str, Any]) -> None:
    (statement,) = only(full, "AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert "ManagedPolicyArns" not in only(full, "AWS::IAM::Role")


def test_logs_are_kept_90_days_under_the_endpoints_key(full: dict[str, Any]) -> None:
    group = text(only(full, "AWS::Logs::LogGroup"))
    (key,) = resources(full, "AWS::KMS::Key")
    assert group["LogGroupName"] == "/aws/sagemaker/Endpoints/full"
    assert group["RetentionInDays"] == 90
    assert group["KmsKeyId"] == f"${{{key}.Arn}}"
    assert text(only(full, "AWS::SageMaker::EndpointConfig"))["KmsKeyId"] == f"${{{key}.Arn}}"


def test_scaling_follows_concurrency_within_bounds(full: dict[str, Any]) -> None:
    target = only(full, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ResourceId"] == "endpoint/full/variant/main"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)
    assert target["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount"
    assert "RoleARN" not in target
    tracking = only(full, "AWS::ApplicationAutoScaling::ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 3
    assert tracking["PredefinedMetricSpecification"]["PredefinedMetricType"] == (
        "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    )


def test_scalable_target_goes_before_its_endpoint(full: dict[str, Any]) -> None:
    (target,) = resources(full, "AWS::ApplicationAutoScaling::ScalableTarget").values()
    (endpoint,) = resources(full, "AWS::SageMaker::Endpoint")
    assert endpoint in target["DependsOn"]


def test_target_value_defaults_to_workers_times_batch_times_0_7(small: dict[str, Any]) -> None:
    tracking = only(small, "AWS::ApplicationAutoScaling::ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == pytest.approx(4 * 1 * 0.7)


def alarm(template: dict[str, Any], output: str) -> dict[str, Any]:
    name = template["Outputs"][output]["Value"]["Ref"]
    properties: dict[str, Any] = template["Resources"][name]["Properties"]
    return properties


def test_latency_alarm_is_in_microseconds(full: dict[str, Any]) -> None:
    properties = alarm(full, "LatencyAlarmName")
    assert properties["Threshold"] == 250_000
    assert judged(properties) == ("IF(invocations >= 50, p99, 0)", {("Invocations", "Sum"), ("ModelLatency", "p99")})
    for row in properties["Metrics"]:
        assert "MetricStat" not in row or row["MetricStat"]["Metric"]["Dimensions"] == [
            {"Name": "EndpointName", "Value": "full"},
            {"Name": "VariantName", "Value": "main"},
        ]
    assert "250 ms" in properties["AlarmDescription"]


def test_error_alarm_ignores_minutes_with_few_requests(full: dict[str, Any]) -> None:
    properties = alarm(full, "ErrorAlarmName")
    assert properties["Threshold"] == 2
    expression = "IF(invocations >= 50, 100 * errors / invocations, 0)"
    assert judged(properties) == (expression, {("Invocations", "Sum"), ("Invocation5XXErrors", "Sum")})


def judged(properties: dict[str, Any]) -> tuple[str | None, set[tuple[str, str]]]:
    """What an alarm compares with its threshold: the expression, if there is one, and metrics with their statistics."""
    (returned,) = (row for row in properties["Metrics"] if row["ReturnData"])
    stats = [row["MetricStat"] for row in properties["Metrics"] if "MetricStat" in row]
    return returned.get("Expression"), {(stat["Metric"]["MetricName"], stat["Stat"]) for stat in stats}


def test_memory_and_disk_ring_and_each_alarm_says_what_to_do(full: dict[str, Any]) -> None:
    alarms = {
        name.removeprefix("Alarms").rstrip("0123456789ABCDEF"): row["Properties"]
        for name, row in resources(full, "AWS::CloudWatch::Alarm").items()
    }
    found = {key: (judged(row)[1], row["Threshold"]) for key, row in alarms.items() if key in ("Memory", "Disk")}
    assert found == {"Memory": ({("MemoryUtilization", "Maximum")}, 90), "Disk": ({("DiskUtilization", "Maximum")}, 80)}
    page = (Path(__file__).parents[2] / "docs/runbook.md").read_text()
    links = [row["AlarmDescription"].rsplit("What to do: docs/runbook.md#", 1)[1] for row in alarms.values()]
    assert sorted(links) == ["disk", "errors", "latency", "memory"]
    assert all(f"\n## {link.capitalize()}\n" in page for link in [*links, "maximum"])


def test_the_maximum_is_reported_to_both_topics(full: dict[str, Any]) -> None:
    """The event is that of the page: https://docs.aws.amazon.com/autoscaling/application/userguide/monitoring-eventbridge.html"""
    rule = text(only(full, "AWS::Events::Rule"))
    detail = {"resourceId": "endpoint/full/variant/main", "statusCode": "Successful", "scaledToMax": True}
    kind = "Application Auto Scaling Scaling Activity State Change"
    event = {"source": "aws.application-autoscaling", "detail-type": kind, "detail": detail}
    pattern = EventPattern.load(json.dumps(rule["EventPattern"]))
    assert pattern.matches_event(event)
    assert not pattern.matches_event({**event, "detail": {**detail, "scaledToMax": False}})
    assert not pattern.matches_event({**event, "detail": {**detail, "resourceId": "endpoint/other/variant/main"}})
    (topic,) = resources(full, "AWS::SNS::Topic")
    assert [row["Arn"] for row in rule["Targets"]] == ["${" + topic + "}", "arn:aws:sns:us-east-1:111122223333:pager"]
    assert json.loads(rule["Targets"][0]["Input"]).endswith("of 6 instances. What to do: docs/runbook.md#maximum")


def test_requests_go_to_the_least_busy_instance_and_metrics_are_chosen(full: dict[str, Any]) -> None:
    config = only(full, "AWS::SageMaker::EndpointConfig")
    assert config["ProductionVariants"][0]["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert config["MetricsConfig"] == {"EnableEnhancedMetrics": False, "EnableDetailedObservability": False}


def test_alarms_are_quiet_without_data_and_tell_both_topics(full: dict[str, Any]) -> None:
    (topic,) = resources(full, "AWS::SNS::Topic")
    notified = ["${" + topic + "}", "arn:aws:sns:us-east-1:111122223333:pager"]
    for output in ("LatencyAlarmName", "ErrorAlarmName"):
        properties = text(alarm(full, output))
        assert properties["TreatMissingData"] == "notBreaching"
        assert properties["ComparisonOperator"] == "GreaterThanThreshold"
        assert properties["AlarmActions"] == properties["OKActions"] == notified


def test_alarms_may_publish_to_the_encrypted_topic(full: dict[str, Any]) -> None:
    (key_name,) = resources(full, "AWS::KMS::Key")
    assert text(only(full, "AWS::SNS::Topic"))["KmsMasterKeyId"] == f"${{{key_name}.Arn}}"
    senders = {"cloudwatch": "alarm:InferentiaEndpoint-full-*", "events": "rule/InferentiaEndpoint-*"}
    for service, names in senders.items():
        principal = {"Service": f"{service}.amazonaws.com"}
        key = [row for row in only(full, "AWS::KMS::Key")["KeyPolicy"]["Statement"] if row["Principal"] == principal]
        assert [row["Action"] for row in key] == [["kms:Decrypt", "kms:GenerateDataKey"]]
        assert ("Condition" in key[0]) is (service == "cloudwatch")
        topic = only(full, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
        (publish,) = [text(row) for row in topic if row["Principal"] == principal]
        assert publish["Action"] == "sns:Publish"
        source = f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{names}"
        assert publish["Condition"]["ArnLike"]["aws:SourceArn"] == source
        assert publish["Condition"]["StringEquals"]["aws:SourceAccount"] == "${AWS::AccountId}"


def test_email_receivers_are_subscribed(full: dict[str, Any]) -> None:
    subscription = only(full, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")


def test_dashboard_has_one_row_for_each_question(full: dict[str, Any]) -> None:
    body = json.loads(text(only(full, "AWS::CloudWatch::Dashboard")["DashboardBody"]))
    rows: dict[int, list[dict[str, Any]]] = {}
    for widget in body["widgets"]:
        rows.setdefault(widget["y"], []).append(widget)
    titles = [[widget["properties"]["title"].split()[0].rstrip(":") for widget in row] for row in rows.values()]
    assert titles == [
        ["Traffic"] * 2,
        ["Errors"] * 2,
        ["Latency"] * 3,
        ["Saturation", "Saturation", "Instances"],
        ["Batching"] * 3,
    ]
    assert all(sum(widget["width"] for widget in row) == 24 for row in rows.values())
    _, *latency = rows[12]
    assert [metric[-1]["stat"] for widget in latency for metric in widget["properties"]["metrics"]] == [
        "p50",
        "p90",
        "p99",
    ] * 2
    assert {metric[1] for widget in latency for metric in widget["properties"]["metrics"]} == {
        "ModelLatency",
        "OverheadLatency",
    }


def test_dashboard_shows_alarms_and_repeats_no_threshold(full: dict[str, Any]) -> None:
    """`cdk diff` prints the whole text of a dashboard that changed; a changed threshold changes the alarm alone."""
    written = only(full, "AWS::CloudWatch::Dashboard")["DashboardBody"]
    widgets = json.loads(text(written))["widgets"]
    shown = [alarm for widget in widgets for alarm in widget["properties"].get("annotations", {}).get("alarms", [])]
    outputs = full["Outputs"]
    names = [outputs[name]["Value"]["Ref"] for name in ("ErrorAlarmName", "LatencyAlarmName")]
    assert shown == [f"${{{name}.Arn}}" for name in names]
    lines = [widget["properties"].get("annotations", {}).get("horizontal", []) for widget in widgets]
    assert [line["label"] for each in lines for line in each] == ["scaling target", "fewest", "most"]
    assert "50" not in {word for part in json.dumps(written).split() for word in part.split(",")}  # alarms.min_requests


def test_outputs_that_operations_read(full: dict[str, Any]) -> None:
    outputs = {name: text(output["Value"]) for name, output in full["Outputs"].items()}
    assert set(outputs) == {
        "EndpointName", "ArtifactKey", "AlarmTopicArn", "LatencyAlarmName", "ErrorAlarmName", "DashboardName",
        "LogGroupName",
    }  # fmt: skip
    assert outputs["ArtifactKey"] == KEY
    (endpoint,) = resources(full, "AWS::SageMaker::Endpoint")
    assert outputs["EndpointName"] == f"${{{endpoint}.EndpointName}}"


def test_tags_reach_every_resource_that_can_carry_them(full: dict[str, Any]) -> None:
    tagged = {"KMS::Key", "Logs::LogGroup", "CloudWatch::Alarm", "SNS::Topic", "IAM::Role", "SageMaker::Model",
              "SageMaker::EndpointConfig", "SageMaker::Endpoint"}  # fmt: skip
    for type_ in tagged:
        for resource in resources(full, f"AWS::{type_}").values():
            tags = {tag["Key"]: tag["Value"] for tag in resource["Properties"]["Tags"]}
            assert tags == {"team": "documents", "cost-centre": "42"}, type_


def test_what_is_counted_of_a_month_is_in_the_template(small: dict[str, Any]) -> None:
    """`inferentia cost` knows no templates."""
    alarms = resources(small, "AWS::CloudWatch::Alarm").values()
    metrics = [metric for alarm in alarms for metric in alarm["Properties"].get("Metrics", [{"MetricStat": "its own"}])]
    assert sum("MetricStat" in metric for metric in metrics) == cost.ALARM_METRICS
    assert len(resources(small, "AWS::KMS::Key")) == len(resources(small, "AWS::CloudWatch::Dashboard")) == 1
