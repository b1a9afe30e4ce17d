"""What changes in the templates when the spec or the deployment does."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from aws_cdk import App, Stack

from cdk.constructs.registry_image import RegistryImage
from cdk.constructs.rollout import RolloutError, deployment_config
from cdk.deployment import REHEARSAL_ACCOUNT, Deployment
from endpoint_spec import platforms
from tests.cdk.projects import DIGEST, MINIMAL, Assemble, Project, Synthesize
from tests.cdk.reading import only, resources, text


def one(synthesize: Synthesize, lines: str = "", deployment: Deployment | None = None) -> dict[str, Any]:
    """The template of one endpoint, of a minimal spec with more lines."""
    template: dict[str, Any] = synthesize({"one": MINIMAL + lines}, deployment)["InferentiaEndpoint-one"]
    return template


def test_nobody_to_notify_leaves_the_topic_for_later(small: dict[str, Any]) -> None:
    assert not resources(small, "AWS::SNS::Subscription")
    (topic,) = resources(small, "AWS::SNS::Topic")
    for alarm in resources(small, "AWS::CloudWatch::Alarm").values():
        assert text(alarm["Properties"]["AlarmActions"]) == ["${" + topic + "}"]


def test_two_email_addresses_are_two_subscriptions(synthesize: Synthesize) -> None:
    template = one(synthesize, "alarms: {{notify: [a@example.com, a.b@example.com]}}\n")
    receivers = [row["Properties"]["Endpoint"] for row in resources(template, "AWS::SNS::Subscription").values()]
    assert sorted(receivers) == ["a.b@example.com", "a@example.com"]


def test_no_tags_in_production_without_tags_in_the_spec(small: dict[str, Any]) -> None:
    assert not [name for name, row in small["Resources"].items() if "Tags" in row.get("Properties", {})]


def test_inf2_takes_its_own_image_and_guardrails(large: dict[str, Any]) -> None:
    image = platforms.image("inf2", "native")
    container = text(only(large, "AWS::SageMaker::Model"))["PrimaryContainer"]
    assert container["Image"].endswith(f"/{image.repository}@{DIGEST}")
    (variant,) = only(large, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-neuron-2"
    config = only(large, "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    routing = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    assert routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}
    watched = [row["AlarmName"]["Ref"] for row in config["AutoRollbackConfiguration"]["Alarms"]]
    outputs = large["Outputs"]
    assert watched == [outputs[name]["Value"]["Ref"] for name in ("LatencyAlarmName", "ErrorAlarmName")]


def test_the_cpu_has_the_same_stack_without_anything_of_a_chip(synthesize: Synthesize) -> None:
    lines = "compile: {{target: cpu}}\nrollout: {{strategy: blue-green}}\n"
    template = one(synthesize, lines)
    container = text(only(template, "AWS::SageMaker::Model"))["PrimaryContainer"]
    assert container["Image"].endswith(f"/inferentia-endpoints/cpu-native@{DIGEST}")
    assert not [name for name in container["Environment"] if name.startswith("NEURON_")]
    assert (container["Environment"]["ENDPOINT_WORKERS"], container["Environment"]["OMP_NUM_THREADS"]) == ("1", "2")
    (variant,) = only(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InstanceType"] == "ml.c7i.large"
    assert "InferenceAmiVersion" not in variant
    assert "BlueGreenUpdatePolicy" in only(template, "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    kinds = Counter(row["Type"] for row in template["Resources"].values())
    assert kinds == Counter(row["Type"] for row in one(synthesize)["Resources"].values())
    (board,) = resources(template, "AWS::CloudWatch::Dashboard").values()
    assert "euron" not in json.dumps(board)


def test_inf1_names_no_machine_image_since_the_api_has_none(small: dict[str, Any]) -> None:
    (variant,) = only(small, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert "InferenceAmiVersion" not in variant


def test_role_may_describe_only_the_alarms_that_a_rollout_watches(large: dict[str, Any]) -> None:
    watched = only(large, "AWS::SageMaker::Endpoint")["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    (policy,) = only(large, "AWS::IAM::Role")["Policies"]
    (row,) = [row for row in policy["PolicyDocument"]["Statement"] if row["Action"] == "cloudwatch:DescribeAlarms"]
    assert sorted(text(row["Resource"])) == sorted(f"${{{alarm['AlarmName']['Ref']}.Arn}}" for alarm in watched)


@pytest.mark.parametrize(("strategy", "kind"), [("blue-green", "ALL_AT_ONCE"), ("linear", "LINEAR")])
def test_other_rollouts_of_inf2(synthesize: Synthesize, strategy: str, kind: str) -> None:
    scale = "scale: {{min: 4, max: 4}}\n"
    template = one(synthesize, f"compile: {{{{target: inf2}}}}\nrollout: {{{{strategy: {strategy}}}}}\n{scale}")
    policy = only(template, "AWS::SageMaker::Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["Type"] == kind


@pytest.mark.parametrize("strategy", ["blue-green", "canary", "linear"])
def test_inf1_refuses_guardrails(strategy: str) -> None:
    with pytest.raises(RolloutError, match=f"{strategy}.*all-at-once"):
        deployment_config(strategy=strategy, guardrails=False, alarms=[])


def test_unknown_rollout_is_refused() -> None:
    with pytest.raises(RolloutError, match=r"rolling is not known: use one of all-at-once"):
        deployment_config(strategy="rolling", guardrails=True, alarms=[])


def test_a_fixed_fleet_has_the_count_of_the_spec_and_no_scaling(synthesize: Synthesize, full: dict[str, Any]) -> None:
    fixed = one(synthesize, "scale: {{min: 3, max: 3}}\n")
    assert not resources(fixed, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert not resources(fixed, "AWS::ApplicationAutoScaling::ScalingPolicy")
    counts, excluded, ids = {}, {}, {}
    for name, template in (("fixed", fixed), ("scaled", full)):
        ids[name] = set(resources(template, "AWS::SageMaker::EndpointConfig"))
        (variant,) = only(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
        counts[name] = variant["InitialInstanceCount"]
        rows = only(template, "AWS::SageMaker::Endpoint")["ExcludeRetainedVariantProperties"]
        excluded[name] = [row["VariantPropertyType"] for row in rows]
    assert counts == {"fixed": 3, "scaled": 1}  # full has min: 2, of which the scalable target alone knows
    assert "DesiredInstanceCount" in excluded["fixed"]
    assert "DesiredInstanceCount" not in excluded["scaled"]
    assert not ids["fixed"] & ids["scaled"], "where scaling ends, the endpoint gets another configuration in any case"


def test_a_log_group_is_the_stacks_or_is_left_alone_or_is_kept(synthesize: Synthesize) -> None:
    made = synthesize({name: MINIMAL + f"logs: {{{{{name}: true}}}}\n" for name in ("existing", "keep")})
    existing, keep = (made[f"InferentiaEndpoint-{name}"] for name in ("existing", "keep"))
    assert not resources(existing, "AWS::Logs::LogGroup")
    (policy,) = only(existing, "AWS::IAM::Role")["Policies"]
    (write,) = (row for row in policy["PolicyDocument"]["Statement"] if row["Sid"] == "WriteLogs")
    assert text(write["Resource"]).endswith(":log-group:/aws/sagemaker/Endpoints/existing:*")
    for kind in ("AWS::Logs::LogGroup", "AWS::KMS::Key"):  # logs whose key is gone cannot be read
        (row,) = resources(keep, kind).values()
        assert row["DeletionPolicy"] == "RetainExceptOnCreate"


def test_endpoints_that_share_have_one_key_and_one_topic(synthesize: Synthesize) -> None:
    shares = MINIMAL + "alarms: {{shared: true, notify: ['{name}@example.com']}}\njob: {{}}\n"
    made = synthesize({"one": shares, "two": shares})
    common = made["InferentiaShared"]
    addresses = [row["Properties"]["Endpoint"] for row in resources(common, "AWS::SNS::Subscription").values()]
    assert sorted(addresses) == ["one@example.com", "two@example.com"]
    statements = [text(row) for row in only(common, "AWS::KMS::Key")["KeyPolicy"]["Statement"]]
    (logs,) = (row for row in statements if row.get("Sid") == "LogsEncrypt")
    groups = logs["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
    assert [group.rsplit(":", 1)[1] for group in groups] == [
        "/aws/sagemaker/Endpoints/*",
        "/aws/vendedlogs/states/InferentiaCompile-*",
    ]
    for name in ("one", "two"):
        for kind in ("InferentiaEndpoint", "InferentiaCompile"):
            template = made[f"{kind}-{name}"]
            assert not resources(template, "AWS::KMS::Key")
            assert not resources(template, "AWS::SNS::Topic")
            assert "${import InferentiaShared:" in text(only(template, "AWS::Logs::LogGroup"))["KmsKeyId"]
        for alarm in resources(made[f"InferentiaEndpoint-{name}"], "AWS::CloudWatch::Alarm").values():
            (action,) = text(alarm["Properties"]["AlarmActions"])
            assert action.startswith("${import InferentiaShared:")


@pytest.mark.parametrize(("metrics", "enhanced", "detailed"), [("standard", True, False), ("detailed", True, True)])
def test_more_metrics_where_they_are_wanted(
    synthesize: Synthesize, metrics: str, enhanced: bool, detailed: bool
) -> None:
    config = only(one(synthesize, f"serve: {{{{metrics: {metrics}}}}}\n"), "AWS::SageMaker::EndpointConfig")
    assert config["MetricsConfig"] == {
        "EnableEnhancedMetrics": enhanced,
        "EnableDetailedObservability": detailed,
    }


def test_scaling_by_requests_a_minute(synthesize: Synthesize) -> None:
    template = one(synthesize, "scale: {{policy: invocations, target_value: 1200.0}}\n")
    tracking = only(template, "AWS::ApplicationAutoScaling::ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 1200
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "SageMakerVariantInvocationsPerInstance"


def test_image_of_ones_own_is_in_ones_own_account(synthesize: Synthesize) -> None:
    template = one(synthesize, "serve: {{server: native}}\n")
    image = platforms.image("inf1", "native")
    container = text(only(template, "AWS::SageMaker::Model"))["PrimaryContainer"]
    assert container["Image"].startswith("${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/")
    assert container["Image"].endswith(f"{image.repository}@{DIGEST}")
    assert "Mappings" not in template


def test_processes_of_the_native_server_are_in_its_environment(synthesize: Synthesize) -> None:
    template = one(synthesize, "serve: {{server: native, processes: 2}}\n")
    environment = only(template, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]
    assert (environment["ENDPOINT_PROCESSES"], environment["NEURON_RT_NUM_CORES"]) == ("2", "4")


def namespaces(template: dict[str, Any]) -> list[str]:
    """Where the container may write metrics."""
    (policy,) = only(template, "AWS::IAM::Role")["Policies"]
    (statement,) = (one for one in policy["PolicyDocument"]["Statement"] if one["Sid"] == "PublishMetrics")
    return list(statement["Condition"]["StringEquals"]["cloudwatch:namespace"])


@pytest.mark.parametrize(
    ("serve", "isolated", "monitored"),
    [
        ("server: torchserve", False, False),
        ("neuron_monitor: true", False, True),
        ("network_isolation: true", True, False),
    ],
)
def test_neuron_monitor_runs_where_it_is_asked_for(
    synthesize: Synthesize, serve: str, isolated: bool, monitored: bool
) -> None:
    template = one(synthesize, f"serve: {{{{{serve}}}}}\n")
    model = only(template, "AWS::SageMaker::Model")
    assert model.get("EnableNetworkIsolation", False) is isolated
    found = {name for name in model["PrimaryContainer"]["Environment"] if name.startswith("NEURON_MONITOR")}
    assert found == ({"NEURON_MONITOR_CW_REGION", "NEURON_MONITOR_CW_NAMESPACE"} if monitored else set())
    own = [name for name in namespaces(template) if name.startswith("InferentiaEndpoints/")]
    assert own == ([model["PrimaryContainer"]["Environment"]["NEURON_MONITOR_CW_NAMESPACE"]] if monitored else [])


def test_the_native_servers_own_metrics_are_on_the_dashboard(synthesize: Synthesize) -> None:
    from inference_code.observability import cloudwatch_emf  # noqa: PLC0415  (cdk may not import it; a test compares the names)

    bodies = [
        json.loads(
            only(text(one(synthesize, f"serve: {{{{server: {server}}}}}\n")), "AWS::CloudWatch::Dashboard")[
                "DashboardBody"
            ]
        )
        for server in ("native", "torchserve")
    ]
    native, stock = (
        [metric for widget in body["widgets"] for metric in widget["properties"].get("metrics", [])] for body in bodies
    )
    ours = [metric for metric in native if metric[0] == cloudwatch_emf.NAMESPACE]
    assert {metric[1] for metric in ours} == set(cloudwatch_emf._UNITS)
    assert all(metric[2] == "Endpoint" for metric in ours)
    assert not [metric for metric in stock if metric[0] == cloudwatch_emf.NAMESPACE]


def test_explicit_region_needs_no_mapping(synthesize: Synthesize) -> None:
    template = one(synthesize, "serve: {{server: torchserve}}\n", deployment=Deployment(region="ap-south-2"))
    account = platforms.registry_accounts()["ap-south-2"]
    container = text(only(template, "AWS::SageMaker::Model"))["PrimaryContainer"]
    assert container["Image"].startswith(f"{account}.dkr.ecr.ap-south-2.")
    assert "Mappings" not in template


@pytest.mark.parametrize("region", ["us-west-1", "mars-north-1"])
def test_region_without_images_is_refused(region: str) -> None:
    stack = Stack(App(), "Stack", env={"region": region})
    with pytest.raises(platforms.UnknownPlatform, match=f"{region} cannot be deployed to.*us-west-2"):
        RegistryImage(stack, "Image", image=platforms.image("inf1", "torchserve"))


def test_rehearsal_is_tagged_everywhere_and_pinned_to_the_embedded_account(synthesize: Synthesize) -> None:
    rehearsal = synthesize({"one": MINIMAL}, Deployment(rehearsal=True))
    production = synthesize({"one": MINIMAL + "tags: {{rehearsal-is-not-this: x}}\n"})
    for stack, template in rehearsal.items():
        tagged = {name for name, row in template["Resources"].items() if "Tags" in row.get("Properties", {})}
        for name in tagged:
            assert {"Key": "rehearsal", "Value": "true"} in template["Resources"][name]["Properties"]["Tags"]
        assert tagged, stack
        assert {"Ref": "AWS::AccountId"} not in _leaves(template)
    one_resource = only(production["InferentiaEndpoint-one"], "AWS::SageMaker::Endpoint")
    assert one_resource["Tags"] == [{"Key": "rehearsal-is-not-this", "Value": "x"}]


@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(region="us-west-1"),
        Deployment(cli_region="us-west-1"),
        Deployment(rehearsal=True, region="us-west-1"),
    ],
)
def test_app_refuses_us_west_1_with_the_reason(synthesize: Synthesize, deployment: Deployment) -> None:
    with pytest.raises(platforms.UnknownPlatform, match="AWS publishes no Neuron images in us-west-1"):
        synthesize({"one": MINIMAL}, deployment)


def test_explicit_region_wins_over_the_clis(synthesize: Synthesize) -> None:
    assert one(synthesize, deployment=Deployment(region="us-east-1", cli_region="us-west-1"))


def test_rehearsal_environment_is_not_of_another_account() -> None:
    environment = Deployment(rehearsal=True, account="111122223333").environment
    assert environment is not None
    assert environment.account == REHEARSAL_ACCOUNT


def test_assembly_of_a_rehearsal_is_for_the_embedded_account_only(project: Project, assemble: Assemble) -> None:
    """The CDK CLI compares a stack's account with that of the credentials before it deploys."""
    project.write("one")
    project.lock("one", rehearsal=True)
    for stack in assemble(project, Deployment(rehearsal=True)).stacks:
        assert stack.environment.account == REHEARSAL_ACCOUNT
        assert stack.environment.region == "unknown-region"


def _leaves(value: Any) -> list[Any]:
    """Every intrinsic function of one key, and every plain value."""
    if isinstance(value, dict):
        return [value] * (len(value) == 1) + [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]
