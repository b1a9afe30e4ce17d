"""The stock CDK CLI against a server of its own: bootstrap, deploy, no changes, update, failing update, destroy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdk.node import use_supported_node
from tests.embedded_aws.running import ROOT, Aws, running

CLI = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
SYNTHESIZED = ("--app", "cdk.out")  # what the last command left; synthesizing again takes seconds
APP = """
import os
import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch, aws_s3 as s3, aws_sns as sns, aws_ssm as ssm

app = cdk.App()
producer, consumer = cdk.Stack(app, "Producer"), cdk.Stack(app, "Consumer")
bucket = s3.Bucket(producer, "Bucket", enforce_ssl=True, removal_policy=cdk.RemovalPolicy.DESTROY)
sns.Topic(producer, "Topic", topic_name=os.environ.get("TOPIC", "first"))
metric, threshold = cloudwatch.Metric(namespace="N", metric_name="M"), float(os.environ.get("THRESHOLD", "1"))
cloudwatch.Alarm(producer, "Alarm", metric=metric, threshold=threshold, evaluation_periods=1)
value = bucket.bucket_arn + os.environ.get("TAIL", "")
ssm.StringParameter(consumer, "Where", parameter_name="/where", string_value=value)
if os.environ.get("BROKEN"):
    cdk.CfnResource(consumer, "Taken", type="AWS::S3::Bucket", properties={"BucketName": "taken-already"})
cdk.CfnOutput(consumer, "BucketArn", value=bucket.bucket_arn)
app.synth()
"""


@dataclass
class Cli:
    """The CDK CLI in a small app's folder."""

    aws: Aws
    folder: Path

    def __call__(self, *arguments: str, fails: bool = False, **environment: str) -> str:
        """Run it; what it printed, in one line (the CLI wraps its lines)."""
        base = {
            name: os.environ[name] for name in ("PATH", "LANG", "JSII_NODE", "CDK_VALIDATION") if name in os.environ
        }
        # Without it the CDK's libraries, 100 MB, are unpacked anew below the test's own HOME.
        unpacked = {"JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache")}
        done = subprocess.run(
            [use_supported_node(), str(CLI), *arguments],
            cwd=self.folder,
            env={**base, **unpacked, "HOME": str(self.folder), **self.aws.environment(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return " ".join(done.stdout.split())

    def deploy(self, *more: str, **environment: str) -> str:
        """Deploy both stacks."""
        return self("deploy", "--all", "--require-approval", "never", *more, **environment)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    if not CLI.exists():
        pytest.skip("the CDK CLI is not installed: run `make setup`")
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    context = {"@aws-cdk/core:defaultCrossStackReferences": "strong"}
    settings = {"app": f"{sys.executable} app.py", "context": context, "notices": False}
    (folder / "cdk.json").write_text(json.dumps(settings))
    with running(tmp_path / "aws") as aws:
        yield Cli(aws, folder)


@pytest.mark.slow  # test_rehearsal deploys with the CLI, test_stacks has the failures
def test_the_stock_cli_does_its_whole_round(cli: Cli) -> None:
    ssm, sns, stacks = (cli.aws.client(service) for service in ("ssm", "sns", "cloudformation"))
    where = lambda: ssm.get_parameter(Name="/where")["Parameter"]["Value"]  # noqa: E731
    topics = lambda: [item["TopicArn"].rsplit(":", 1)[-1] for item in sns.list_topics()["Topics"]]  # noqa: E731

    assert "bootstrapped" in cli("bootstrap", "aws://123456789012/us-east-1", "--app", "")
    assert int(ssm.get_parameter(Name="/cdk-bootstrap/hnb659fds/version")["Parameter"]["Value"]) >= 30
    first = cli.deploy()
    assert f"Consumer.BucketArn = {where()}" in first
    assert topics() == ["first"]

    assert cli.deploy(*SYNTHESIZED).count("(no changes)") == 2

    changed = cli.deploy(TOPIC="second", TAIL="/models")
    assert "(no changes)" not in changed
    assert where().endswith("/models")
    assert topics() == ["second"], "a renamed topic is another topic, and the old one is gone"

    swapped = cli("deploy", "Producer", "--hotswap", fails=True, TOPIC="second", TAIL="/models", THRESHOLD="2")
    assert "the embedded AWS has no hotswap" in swapped
    (alarm,) = cli.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["Threshold"] == 1

    cli.aws.client("s3").create_bucket(Bucket="taken-already")
    failed = cli("deploy", "Consumer", "--exclusively", fails=True, TOPIC="second", TAIL="/other", BROKEN="1")
    assert "taken-already already exists" in failed
    assert stacks.describe_stacks(StackName="Consumer")["Stacks"][0]["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert where().endswith("/models")

    refused = cli("destroy", "Producer", "--exclusively", "--force", *SYNTHESIZED, fails=True)
    assert "cannot be deleted as it is in use by Consumer" in refused
    cli("destroy", "--all", "--force", *SYNTHESIZED)
    assert {stack["StackName"] for stack in stacks.describe_stacks()["Stacks"]} == {"CDKToolkit"}
    assert topics() == []
