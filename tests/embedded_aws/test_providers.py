"""Every type of the table is really created: what the template says is read back through boto3."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from embedded_aws.providers import TYPES
from embedded_aws.providers.resource import ProviderError, changed_tags, coerce
from embedded_aws.providers.schema import create_only, property_faults, schema
from tests.embedded_aws.helpers import Stacks, up
from tests.embedded_aws.running import Aws

TAGS = [{"Key": "team", "Value": "documents"}]
ANYONE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


def test_the_table_knows_only_types_and_properties_of_aws() -> None:
    for name, row in TYPES.items():
        found = schema(name, "us-east-1")
        assert found is not None, name
        assert row.properties <= set(found["properties"]), name
        assert row.replace <= row.properties, name


def test_buckets(aws: Aws, stacks: Stacks, name: str) -> None:
    def bucket(encryption: str, days: int, **more: Any) -> tuple[str, dict[str, Any]]:
        rules = [
            {"Id": "a", "Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": days}},
            {"Id": "b", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
            {"Id": "c", "Status": "Enabled", "Prefix": "logs/", "ExpirationInDays": "365",
             "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": 30}]},
        ]  # fmt: skip
        default = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": encryption}}
        return "AWS::S3::Bucket", {
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [default]},
            "LifecycleConfiguration": {"Rules": rules},
            "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "RestrictPublicBuckets": "true"},
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "VersioningConfiguration": {"Status": "Enabled"},
            **more,
        }

    target = ("AWS::S3::Bucket", {})
    logging = {"LoggingConfiguration": {"DestinationBucketName": {"Ref": "Logs"}, "LogFilePrefix": "a/"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteBucket", "Resource": {"Fn::GetAtt": ["It", "Arn"]}}
    policy = {"Bucket": {"Ref": "It"}, "PolicyDocument": {"Version": "2012-10-17", "Statement": [deny]}}
    resources = {"It": bucket("AES256", 10, Tags=TAGS, **logging), "Logs": target}
    ids = up(stacks, name, resources, {**resources, "It": bucket("aws:kms", 20, **logging),
                                       "Policy": ("AWS::S3::BucketPolicy", policy)})  # fmt: skip
    s3, it = aws.client("s3"), {"Bucket": ids["It"]}
    rule = s3.get_bucket_encryption(**it)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    rules = {item["ID"]: item for item in s3.get_bucket_lifecycle_configuration(**it)["Rules"]}
    assert rules["a"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 20
    assert rules["b"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
    assert rules["c"]["Expiration"]["Days"] == 365
    assert rules["c"]["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER"}]
    block = s3.get_public_access_block(**it)["PublicAccessBlockConfiguration"]
    assert (block["BlockPublicAcls"], block["RestrictPublicBuckets"]) == (True, True)
    assert s3.get_bucket_versioning(**it)["Status"] == "Enabled"
    assert s3.get_bucket_ownership_controls(**it)["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}
    ]
    assert s3.get_bucket_logging(**it)["LoggingEnabled"] == {"TargetBucket": ids["Logs"], "TargetPrefix": "a/"}
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(**it)
    written = json.loads(s3.get_bucket_policy(**it)["Policy"])["Statement"][0]
    assert written["Resource"] == f"arn:aws:s3:::{ids['It']}"
    assert stacks.down(name) == "DELETE_COMPLETE"
    with pytest.raises(s3.exceptions.ClientError, match="404"):
        s3.head_bucket(**it)


def test_keys_and_aliases(aws: Aws, stacks: Stacks, name: str) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}],
    }

    def key(text: str, rotate: bool, **more: Any) -> tuple[str, dict[str, Any]]:
        return "AWS::KMS::Key", {"Description": text, "EnableKeyRotation": rotate, "KeyPolicy": policy, **more}

    alias = ("AWS::KMS::Alias", {"AliasName": f"alias/{name}", "TargetKeyId": {"Fn::GetAtt": ["Key", "Arn"]}})
    ids = up(
        stacks, name, {"Key": key("old", False, Tags=TAGS), "Alias": alias}, {"Key": key("new", True), "Alias": alias}
    )
    kms = aws.client("kms")
    found = kms.describe_key(KeyId=f"alias/{name}")["KeyMetadata"]
    assert (found["KeyId"], found["Description"]) == (ids["Key"], "new")
    assert kms.get_key_rotation_status(KeyId=ids["Key"])["KeyRotationEnabled"] is True
    assert json.loads(kms.get_key_policy(KeyId=ids["Key"], PolicyName="default")["Policy"]) == policy
    assert kms.list_resource_tags(KeyId=ids["Key"])["Tags"] == []
    assert stacks.down(name) == "DELETE_COMPLETE"
    assert kms.describe_key(KeyId=ids["Key"])["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_roles_and_policies(aws: Aws, stacks: Stacks, name: str) -> None:
    def resources(inline: str, managed: list[str], holders: list[Any]) -> dict[str, Any]:
        return {
            "Role": ("AWS::IAM::Role", {
                "AssumeRolePolicyDocument": ANYONE, "Description": inline, "MaxSessionDuration": 7200, "Tags": TAGS,
                "ManagedPolicyArns": [f"arn:aws:iam::aws:policy/{item}" for item in managed],
                "Policies": [{"PolicyName": inline, "PolicyDocument": ALLOW}],
            }),
            "Inline": ("AWS::IAM::Policy", {
                "PolicyName": f"{name}-x", "PolicyDocument": ALLOW, "Roles": [{"Ref": "Role"}],
            }),
            "Managed": ("AWS::IAM::ManagedPolicy", {"PolicyDocument": {**ALLOW, "Id": inline}, "Roles": holders}),
        }  # fmt: skip

    ids = up(stacks, name, resources("one", ["ReadOnlyAccess"], []),
             resources("two", ["AdministratorAccess"], [{"Ref": "Role"}]))  # fmt: skip
    iam, role = aws.client("iam"), {"RoleName": ids["Role"]}
    found = iam.get_role(**role)["Role"]
    assert (found["Description"], found["MaxSessionDuration"], found["Tags"]) == ("two", 7200, TAGS)
    assert set(iam.list_role_policies(**role)["PolicyNames"]) == {"two", f"{name}-x"}
    attached = {item["PolicyArn"] for item in iam.list_attached_role_policies(**role)["AttachedPolicies"]}
    assert attached == {"arn:aws:iam::aws:policy/AdministratorAccess", ids["Managed"]}
    version = iam.get_policy(PolicyArn=ids["Managed"])["Policy"]["DefaultVersionId"]
    body = iam.get_policy_version(PolicyArn=ids["Managed"], VersionId=version)["PolicyVersion"]["Document"]
    assert body["Id"] == "two"
    assert stacks.down(name) == "DELETE_COMPLETE"
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(**role)


def test_repositories_and_parameters(aws: Aws, stacks: Stacks, name: str) -> None:
    def resources(scan: bool, value: str, tags: dict[str, str]) -> dict[str, Any]:
        rule = {"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed",
                "countUnit": "days", "countNumber": 3}, "action": {"type": "expire"}}  # fmt: skip
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:GetDownloadUrlForLayer"}],
        }
        return {
            "Images": ("AWS::ECR::Repository", {
                "RepositoryName": name, "ImageTagMutability": "IMMUTABLE", "RepositoryPolicyText": policy,
                "ImageScanningConfiguration": {"ScanOnPush": scan},
                "LifecyclePolicy": {"LifecyclePolicyText": json.dumps({"rules": [rule]})},
            }),
            "It": ("AWS::SSM::Parameter", {"Name": f"/{name}", "Type": "String", "Value": value, "Tags": tags}),
        }  # fmt: skip

    ids = up(stacks, name, resources(False, "a", {"x": "1", "y": "1"}), resources(True, "b", {"y": "2"}))
    found = aws.client("ecr").describe_repositories(repositoryNames=[ids["Images"]])["repositories"][0]
    assert (found["imageTagMutability"], found["imageScanningConfiguration"]) == ("IMMUTABLE", {"scanOnPush": True})
    assert "countNumber" in aws.client("ecr").get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"]
    assert "GetDownloadUrl" in aws.client("ecr").get_repository_policy(repositoryName=name)["policyText"]
    ssm = aws.client("ssm")
    assert ssm.get_parameter(Name=f"/{name}")["Parameter"]["Value"] == "b"
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=f"/{name}")["TagList"]
    assert tags == [{"Key": "y", "Value": "2"}]
    assert stacks.down(name) == "DELETE_COMPLETE"


def test_topics(aws: Aws, stacks: Stacks, name: str) -> None:
    def resources(title: str, address: str, topic: str) -> dict[str, Any]:
        allow = {"Sid": title, "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"},
                 "Action": "sns:Publish", "Resource": {"Ref": "Topic"}}  # fmt: skip
        return {
            "Key": ("AWS::KMS::Key", {"KeyPolicy": ALLOW}),
            "Topic": ("AWS::SNS::Topic", {
                "TopicName": topic, "DisplayName": title, "KmsMasterKeyId": {"Ref": "Key"}, "Tags": TAGS,
            }),
            "Policy": ("AWS::SNS::TopicPolicy", {
                "Topics": [{"Ref": "Topic"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [allow]},
            }),
            "Mail": ("AWS::SNS::Subscription", {
                "TopicArn": {"Ref": "Topic"}, "Protocol": "email", "Endpoint": address,
            }),
        }  # fmt: skip

    for topic, title, address in (
        (f"{name}-a", "one", "a@x.org"),
        (f"{name}-a", "two", "b@x.org"),
        (f"{name}-b", "two", "b@x.org"),
    ):
        ids = up(stacks, name, resources(title, address, topic))
        sns = aws.client("sns")
        attributes = sns.get_topic_attributes(TopicArn=ids["Topic"])["Attributes"]
        assert ids["Topic"].endswith(topic)
        assert (attributes["DisplayName"], attributes["KmsMasterKeyId"]) == (title, ids["Key"])
        assert json.loads(attributes["Policy"])["Statement"][0]["Sid"] == title
        assert sns.list_tags_for_resource(ResourceArn=ids["Topic"])["Tags"] == TAGS
        held = sns.list_subscriptions_by_topic(TopicArn=ids["Topic"])["Subscriptions"]
        assert [item["Endpoint"] for item in held] == [address]
    assert stacks.down(name) == "DELETE_COMPLETE"
    assert not [item for item in sns.list_topics()["Topics"] if name in item["TopicArn"]]


def test_alarms_dashboards_and_scaling(aws: Aws, stacks: Stacks, name: str) -> None:
    dimensions = [{"Name": "EndpointName", "Value": name}]

    def resources(threshold: int, widget: str) -> dict[str, Any]:
        errors = {
            "Id": "e",
            "ReturnData": False,
            "MetricStat": {
                "Period": 60,
                "Stat": "Sum",
                "Metric": {"Namespace": "AWS/SageMaker", "MetricName": "Invocation5XXErrors", "Dimensions": dimensions},
            },
        }
        rate = {"Id": "rate", "Expression": "IF(e >= 20, 100 * e / e, 0)", "Label": "error rate"}
        common = {
            "EvaluationPeriods": "3",
            "DatapointsToAlarm": 2,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": threshold,
            "TreatMissingData": "notBreaching",
            "AlarmActions": [],
            "Tags": TAGS,
        }
        return {
            "Slow": ("AWS::CloudWatch::Alarm", {**common, "Namespace": "AWS/SageMaker", "MetricName": "ModelLatency",
                     "Dimensions": dimensions, "ExtendedStatistic": "p99", "Period": 60}),
            "Wrong": ("AWS::CloudWatch::Alarm", {**common, "Metrics": [errors, rate], "AlarmName": f"{name}-wrong"}),
            "Any": ("AWS::CloudWatch::CompositeAlarm", {"AlarmRule": {"Fn::Sub": "ALARM(${Slow}) OR ALARM(${Wrong})"}}),
            "Board": ("AWS::CloudWatch::Dashboard", {
                "DashboardBody": json.dumps({"widgets": [{"type": widget}]}), "Tags": TAGS,
            }),
        }  # fmt: skip

    ids = up(stacks, name, resources(10, "metric"), resources(20, "text"))
    cloudwatch = aws.client("cloudwatch")
    found = cloudwatch.describe_alarms(AlarmNames=list(ids.values()), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = {item["AlarmName"]: item for item in found["MetricAlarms"]}
    slow, wrong = alarms[ids["Slow"]], alarms[f"{name}-wrong"]
    assert (slow["ExtendedStatistic"], slow["Threshold"], slow["EvaluationPeriods"]) == ("p99", 20.0, 3)
    assert (slow["DatapointsToAlarm"], slow["TreatMissingData"], slow["Dimensions"]) == (2, "notBreaching", dimensions)
    assert [item["Id"] for item in wrong["Metrics"]] == ["e", "rate"]
    assert wrong["Metrics"][1]["Expression"] == "IF(e >= 20, 100 * e / e, 0)"
    assert found["CompositeAlarms"][0]["AlarmRule"] == f"ALARM({ids['Slow']}) OR ALARM({name}-wrong)"
    assert cloudwatch.list_tags_for_resource(ResourceARN=slow["AlarmArn"])["Tags"] == TAGS
    board = cloudwatch.get_dashboard(DashboardName=ids["Board"])
    assert json.loads(board["DashboardBody"]) == {"widgets": [{"type": "text"}]}
    assert cloudwatch.list_tags_for_resource(ResourceARN=board["DashboardArn"])["Tags"] == TAGS
    assert stacks.down(name) == "DELETE_COMPLETE"
    assert cloudwatch.describe_alarms(AlarmNames=list(ids.values()))["MetricAlarms"] == []


def test_scaling_needs_a_target_that_is_there(stacks: Stacks, name: str) -> None:
    target = {"ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{name}/variant/main", "MinCapacity": 1,
              "MaxCapacity": 2, "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip
    resource = {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": target}
    assert stacks.up(name, {"Resources": {"Target": resource}})["StackStatus"] == "ROLLBACK_COMPLETE"
    assert (
        f'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/{name}"'
        in stacks.failures(name)["Target"]
    )


def test_scaling_policies_are_kept(aws: Aws, stacks: Stacks, name: str) -> None:
    where = {
        "ServiceNamespace": "dynamodb",
        "ResourceId": f"table/{name}",
        "ScalableDimension": "dynamodb:table:ReadCapacityUnits",
    }

    def resources(most: int, value: float) -> dict[str, Any]:
        metric = {"PredefinedMetricType": "DynamoDBReadCapacityUtilization"}
        tracking = {"TargetValue": value, "PredefinedMetricSpecification": metric, "ScaleInCooldown": 300}
        return {
            "Target": ("AWS::ApplicationAutoScaling::ScalableTarget", {
                **where, "MinCapacity": 1, "MaxCapacity": most, "Tags": TAGS,
            }),
            "Policy": ("AWS::ApplicationAutoScaling::ScalingPolicy", {
                "PolicyName": "keep", "PolicyType": "TargetTrackingScaling", "ScalingTargetId": {"Ref": "Target"},
                "TargetTrackingScalingPolicyConfiguration": tracking}),
        }  # fmt: skip

    ids = up(stacks, name, resources(4, 2.5), resources(8, 3.5))
    scaling = aws.client("application-autoscaling")
    target = scaling.describe_scalable_targets(ServiceNamespace="dynamodb", ResourceIds=[f"table/{name}"])[
        "ScalableTargets"
    ][0]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 8)
    assert scaling.list_tags_for_resource(ResourceARN=target["ScalableTargetARN"])["Tags"] == {"team": "documents"}
    policies = scaling.describe_scaling_policies(ServiceNamespace="dynamodb", ResourceId=f"table/{name}")[
        "ScalingPolicies"
    ]
    assert [item["PolicyARN"] for item in policies] == [ids["Policy"]]
    assert policies[0]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 3.5
    alarms = partial(aws.client("cloudwatch").describe_alarms, AlarmNamePrefix=f"TargetTracking-table/{name}-")
    assert sorted(alarm["AlarmName"].rpartition(f"{name}-")[2][:-37] for alarm in alarms()["MetricAlarms"]) == [
        *("AlarmHigh", "AlarmLow", "ProvisionedCapacityHigh", "ProvisionedCapacityLow")
    ], "the policy's own, once, although it was put twice"
    assert {alarm["StateValue"] for alarm in alarms()["MetricAlarms"]} == {"INSUFFICIENT_DATA"}
    data = {"MetricName": "ConsumedReadCapacityUnits", "Dimensions": [{"Name": "TableName", "Value": name}]}
    moments = [datetime.now(timezone.utc) - timedelta(minutes=minutes) for minutes in range(4)]
    aws.client("cloudwatch").put_metric_data(
        Namespace="AWS/DynamoDB", MetricData=[{**data, "Timestamp": moment, "Value": 50.0} for moment in moments]
    )
    high = next(alarm for alarm in alarms()["MetricAlarms"] if "AlarmHigh" in alarm["AlarmName"])
    assert high["StateValue"] == "ALARM"
    assert stacks.down(name) == "DELETE_COMPLETE"
    assert alarms()["MetricAlarms"] == []
    assert not scaling.describe_scalable_targets(ServiceNamespace="dynamodb", ResourceIds=[f"table/{name}"])[
        "ScalableTargets"
    ]


def test_coercion_follows_the_shapes_of_botocore(aws: Aws) -> None:
    model = aws.client("sagemaker").meta.service_model.operation_model("CreateEndpointConfig").input_shape
    variant = {"InitialInstanceCount": "2", "InitialVariantWeight": "0.5", "VariantName": 7}
    made = coerce({"ProductionVariants": [variant]}, model, "Config")
    assert made["ProductionVariants"][0] == {"InitialInstanceCount": 2, "InitialVariantWeight": 0.5, "VariantName": "7"}
    for bad, words in (
        ({"ProductionVariants": [{"Colour": 1}]}, r"Config.ProductionVariants\[0\] has no member Colour"),
        (
            {"ProductionVariants": [{"InitialInstanceCount": "two"}]},
            "InitialInstanceCount must be a integer, not 'two'",
        ),
        ({"DataCaptureConfig": {"EnableCapture": "perhaps"}}, "EnableCapture must be a boolean"),
    ):
        with pytest.raises(ProviderError, match=words):
            coerce(bad, model, "Config")


def test_what_the_schemas_say() -> None:
    assert {"BucketName"} <= create_only("AWS::S3::Bucket", "us-east-1")
    assert property_faults("AWS::Logs::LogGroup", {"RetentionInDays": "7"}, "us-east-1") == []
    assert (
        "8 is not a valid enum value" in property_faults("AWS::Logs::LogGroup", {"RetentionInDays": 8}, "us-east-1")[0]
    )


def test_tags_that_changed() -> None:
    old = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "1"}]
    assert changed_tags(old, [{"Key": "b", "Value": "2"}]) == ([{"Key": "b", "Value": "2"}], ["a"])
    assert changed_tags(None, None) == ([], [])
