#!/usr/bin/env python3
"""The CDK app: every spec in endpoints/ becomes a stack beside the one that holds the artifacts.

    cdk deploy InferentiaArtifacts        the bucket, first
    cdk deploy InferentiaImages           what builds the native server's image, where a spec runs it
    cdk deploy InferentiaEndpoint-NAME    an endpoint, after `inferentia publish NAME`
    cdk deploy InferentiaCompile-NAME     what compiles it, for a spec with `job:`; needs no lock
    -c rehearsal=true                     use the locks of `compile build --rehearse`; embedded AWS only
    -c compile_ami=ami-...                the machine image, for compiling on EC2
    -c region=REGION [-c account=ID]      templates for one region, instead of templates for all of them

Synthesis needs neither credentials nor torch nor a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdk.node import NodeError, use_supported_node

try:
    use_supported_node()  # before the first import of aws_cdk, which starts Node
except NodeError as error:
    sys.exit(str(error))

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

import endpoint_spec
from cdk.deployment import Deployment, DeploymentError, read_deployment
from cdk.refusal import refuse_deployment
from cdk.stacks.artifacts import STACK_NAME, ArtifactsStack
from cdk.stacks.broken import Broken, BrokenStack, broken
from cdk.stacks.compile import CompileStack
from cdk.stacks.compile import stack_name as compile_stack_name
from cdk.stacks.endpoint import EndpointStack, stack_name
from cdk.stacks.images import STACK_NAME as IMAGES
from cdk.stacks.images import ImagesStack
from cdk.stacks.shared import STACK_NAME as SHARED
from cdk.stacks.shared import SharedStack
from endpoint_spec import built_images, derive
from endpoint_spec.lock import load_checked
from endpoint_spec.platforms import UnknownPlatform, registry_account


def feature_flags() -> dict[str, Any]:
    """The context of cdk.json, so that the templates are the same from the CDK CLI and from Python.

    Stack traces are left out: they would show the temporary folder of this run in messages and in the assembly.
    """
    settings: dict[str, Any] = json.loads(Path(__file__).with_name("cdk.json").read_text())
    return {**settings["context"], "aws:cdk:disable-stack-trace": True}


def compose(
    app: App, specs: dict[str, endpoint_spec.EndpointSpec], deployment: Deployment, faulty: Sequence[Broken] = ()
) -> None:
    """Add the stacks of all specs, and the checks that every synthesis has to pass.

    faulty: endpoints whose specs are wrong. Their stacks are refused, all others deploy.
    """
    if deployment.target_region is not None:
        registry_account(deployment.target_region)  # a region without any Neuron image ends here, with the reason
    compiled_here = [name for name, endpoint in specs.items() if endpoint.job is not None]
    compiled_here += [one.name for one in faulty if one.compiled_here]
    artifacts = ArtifactsStack(app, STACK_NAME, compiled_here=sorted(compiled_here), deployment=deployment)
    own_images = {image for image in map(derive.container_image, specs.values()) if image.registry == "own"}
    if own_images and not deployment.rehearsal:  # a rehearsal runs the server in the project's own Python
        images = sorted(own_images, key=built_images.key)
        ImagesStack(app, IMAGES, images=images, artifacts=artifacts, deployment=deployment)
    sharing = [endpoint for endpoint in specs.values() if endpoint.alarms.shared]
    common = SharedStack(app, SHARED, specs=sharing, deployment=deployment) if sharing else None
    unknown = [problem for one in faulty if one.shares for problem in one.problems]
    if common is not None and unknown:  # receivers that are not known would be taken out
        refuse_deployment(common, unknown)
    for one in faulty:
        stacks = [stack_name(one.name)] + ([compile_stack_name(one.name)] if one.compiled_here else [])
        for name in stacks:
            BrokenStack(app, name, problems=one.problems, deployment=deployment)
    for name, endpoint in sorted(specs.items()):
        shared = common if endpoint.alarms.shared else None
        missing = _without_images(endpoint, deployment)
        if missing:
            BrokenStack(app, stack_name(name), problems=[missing], deployment=deployment)
            if endpoint.job is not None:
                BrokenStack(app, compile_stack_name(name), problems=[missing], deployment=deployment)
            continue
        if endpoint.job is not None:
            CompileStack(
                app,
                compile_stack_name(name),
                spec=endpoint,
                job=endpoint.job,
                artifacts=artifacts,
                deployment=deployment,
                shared=shared,
            )
        # A problem with one lock is no error of the app: that endpoint's stack is refused, all others deploy.
        lock, problems = load_checked(endpoint, deployment.rehearsal)
        EndpointStack(
            app,
            stack_name(name),
            spec=endpoint,
            lock=lock,
            problems=problems,
            artifacts=artifacts,
            deployment=deployment,
            shared=shared,
        )
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def _without_images(spec: endpoint_spec.EndpointSpec, deployment: Deployment) -> str | None:
    """Why a spec cannot be deployed to the region that this run aims at: it has images of the other target alone."""
    if deployment.target_region is None:
        return None
    try:
        registry_account(deployment.target_region, spec.compile.target)
    except UnknownPlatform as error:
        return str(error)
    return None


def main() -> int:
    """Synthesize the project in the current directory.

    Exit code 2: a setting, or a spec's file of which no stack can be named, has to be mended. 1: the templates break a
    rule of cdk-nag. A spec that is wrong otherwise is an error of its own stacks.
    """
    app = App(context=feature_flags(), analytics_reporting=False)
    try:
        specs, faulty = endpoint_spec.load_each(Path.cwd())
        compose(app, specs, read_deployment(app), broken(faulty, list(specs)))
    except (endpoint_spec.SpecErrors, DeploymentError, UnknownPlatform) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    try:
        app.synth()
    except RuntimeError as error:
        if not str(error).startswith("ValidationFailed"):
            raise
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
