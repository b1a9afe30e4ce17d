"""What a run is for, and that a rehearsal never leaves this machine."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from aws_cdk import App

from cdk.deployment import Deployment, DeploymentError, read_deployment

LOCAL = {"AWS_ENDPOINT_URL": "http://localhost:4566", "CDK_DEFAULT_ACCOUNT": "123456789012"}


def read(environment: Mapping[str, str], **context: object) -> Deployment:
    return read_deployment(App(context=context), environment)


def test_plain_run_is_production_and_environment_agnostic() -> None:
    deployment = read({"CDK_DEFAULT_ACCOUNT": "111122223333", "CDK_DEFAULT_REGION": "eu-west-1"})
    assert deployment == Deployment(cli_region="eu-west-1")
    assert deployment.environment is None
    assert deployment.target_region == "eu-west-1"


def test_explicit_environment() -> None:
    environment = read({"CDK_DEFAULT_REGION": "eu-west-1"}, region="us-east-2", account="111122223333").environment
    assert environment is not None
    assert (environment.account, environment.region) == ("111122223333", "us-east-2")


@pytest.mark.parametrize("value", [True, "true"])
def test_rehearsal_with_a_loopback_endpoint(value: object) -> None:
    assert read(LOCAL, rehearsal=value).rehearsal


def test_rehearsal_may_be_synthesized_without_any_account() -> None:
    assert read({}, rehearsal="true").rehearsal


@pytest.mark.parametrize("value", ["yes", "1", "True", 1.5])
def test_unclear_rehearsal_is_refused(value: object) -> None:
    with pytest.raises(DeploymentError, match="-c rehearsal=true"):
        read({}, rehearsal=value)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CDK_DEFAULT_ACCOUNT": "111122223333"}, "AWS_ENDPOINT_URL is not set"),
        ({**LOCAL, "AWS_ENDPOINT_URL": ""}, "AWS_ENDPOINT_URL is not set"),
        ({**LOCAL, "AWS_ENDPOINT_URL": "https://cloudformation.us-east-1.amazonaws.com"}, "amazonaws.com"),
        ({**LOCAL, "AWS_ENDPOINT_URL": "http://localhost.example.com"}, "localhost.example.com"),
        ({**LOCAL, "AWS_ENDPOINT_URL": "http://localhost@10.0.0.1"}, "10.0.0.1"),
        ({**LOCAL, "AWS_ENDPOINT_URL": "http://0.0.0.0:4566"}, "0.0.0.0"),
        ({**LOCAL, "AWS_ENDPOINT_URL_CLOUDFORMATION": "https://10.1.2.3"}, "AWS_ENDPOINT_URL_CLOUDFORMATION"),
        ({**LOCAL, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    ],
)
def test_rehearsal_beyond_this_machine_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(DeploymentError, match="rehearsal") as refused:
        read(environment, rehearsal="true")
    assert said in str(refused.value)
    assert "rehearsal env" in str(refused.value)


def test_rehearsal_for_another_account_is_refused() -> None:
    with pytest.raises(DeploymentError, match="account=111122223333"):
        read(LOCAL, rehearsal="true", account="111122223333")


def test_production_does_not_care_about_endpoints() -> None:
    assert not read({"CDK_DEFAULT_ACCOUNT": "111122223333", "AWS_ENDPOINT_URL": "https://example.com"}).rehearsal
