"""What one run of the app is for: production or rehearsal, and which account and region."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from aws_cdk import App, Environment

from endpoint_spec.loopback import is_loopback
from endpoint_spec.platforms import Target

# The account that the embedded AWS answers as. AWS uses this number in its own examples.
REHEARSAL_ACCOUNT = "123456789012"
# No image of this name exists.
REHEARSAL_AMI = "ami-00000000000000000"
_AMI = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")


class DeploymentError(ValueError):
    """The app was started in a way that it refuses; the text says which setting, its value and what to do."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Settings of one synthesis.

    rehearsal: use the locks of `compile build --rehearse` (context `rehearsal`, default false).
    region: the explicit region (context `region`); None keeps the templates free of any region (default).
    account: the explicit account (context `account`); None keeps the templates free of any account (default).
    cli_region: the region that the CDK CLI resolved (CDK_DEFAULT_REGION); it never enters a template.
    compile_ami: the machine image of compile instances by target (context `compile_ami`); none by default.
    """

    rehearsal: bool = False
    region: str | None = None
    account: str | None = None
    cli_region: str | None = None
    compile_ami: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Environment | None:
        """The stacks' environment. None means environment-agnostic: one template for every account and region.

        A rehearsal is pinned to the account of the embedded AWS: should its assembly be deployed later, without the
        app being run again, then the CDK CLI itself refuses credentials of any other account.
        """
        account = REHEARSAL_ACCOUNT if self.rehearsal else self.account
        if account is None and self.region is None:
            return None
        return Environment(account=account, region=self.region)

    @property
    def target_region(self) -> str | None:
        """The region that this run is known to aim at, if any."""
        return self.region or self.cli_region

    def machine_image(self, target: str) -> str | None:
        """What compile instances for a target are started from; a rehearsal, where nothing boots, always has one."""
        return self.compile_ami.get(target, REHEARSAL_AMI if self.rehearsal else None)


def read_deployment(app: App, environment: Mapping[str, str] = os.environ) -> Deployment:
    """Read the settings from the app's context (`cdk -c KEY=VALUE`) and the CLI's variables.

    Raises DeploymentError for a value that is not understood and for a rehearsal that is not aimed at this machine.
    """
    rehearsal = _truth(app.node.try_get_context("rehearsal"))
    account = _text(app, "account")
    if rehearsal:
        _refuse_rehearsal_beyond_this_machine(environment, account)
    return Deployment(
        rehearsal=rehearsal,
        region=_text(app, "region"),
        account=account,
        cli_region=environment.get("CDK_DEFAULT_REGION") or None,
        compile_ami=_machine_images(app.node.try_get_context("compile_ami")),
    )


def _truth(value: object) -> bool:
    if value in (None, False, "false"):
        return False
    if value in (True, "true"):
        return True
    raise DeploymentError(f"context value rehearsal={value!r}: write `-c rehearsal=true` or `-c rehearsal=false`.")


def _machine_images(value: object) -> dict[str, str]:
    """compile_ami is one image for every target, or a mapping of targets to images."""
    if value in (None, ""):
        return {}
    images = value if isinstance(value, dict) else dict.fromkeys(get_args(Target), value)
    for target, image in images.items():
        if target not in get_args(Target) or not _AMI.fullmatch(str(image)):
            raise DeploymentError(
                f"context value compile_ami={value!r}: write `-c compile_ami=ami-...`, or in cdk.context.json "
                '"compile_ami": {"inf1": "ami-...", "inf2": "ami-..."}.'
            )
    return {str(target): str(image) for target, image in images.items()}


def _text(app: App, key: str) -> str | None:
    value = app.node.try_get_context(key)
    if value is None or value == "":
        return None
    return str(value)


def _refuse_rehearsal_beyond_this_machine(environment: Mapping[str, str], account: str | None) -> None:
    """A rehearsal's artifact was traced for the CPU: it must never reach AWS.

    Without any account nothing can be deployed, so a plain synth is allowed. As soon as the CLI resolved an account,
    every endpoint that the AWS SDKs would use has to be on this machine.
    """
    remedy = (
        "Start the embedded AWS and take over its environment "
        '(`eval "$(inferentia rehearsal env --directory D)"`), or leave out `-c rehearsal=true`.'
    )
    if account not in (None, REHEARSAL_ACCOUNT):
        raise DeploymentError(
            f"context value account={account}: a rehearsal deploys to the embedded AWS only, account "
            f"{REHEARSAL_ACCOUNT}. {remedy}"
        )
    endpoints = {key: url for key, url in environment.items() if key.startswith("AWS_ENDPOINT_URL") and url}
    for key, url in sorted(endpoints.items()):
        if not is_loopback(url):
            raise DeploymentError(f"{key}={url}: a rehearsal never leaves this machine. {remedy}")
    if not environment.get("CDK_DEFAULT_ACCOUNT"):
        return
    ignored = environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    if "AWS_ENDPOINT_URL" not in endpoints or ignored:
        reason = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true" if ignored else "AWS_ENDPOINT_URL is not set"
        raise DeploymentError(
            f"a rehearsal was asked for with credentials of account {environment['CDK_DEFAULT_ACCOUNT']}, "
            f"but {reason}. {remedy}"
        )
