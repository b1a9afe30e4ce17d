"""Templates and projects for the tests of cdk/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import endpoint_spec as specs
from cdk.node import use_supported_node
from tests.cdk.projects import COMPILED, FULL, MACHINE_IMAGE, MINIMAL, Assemble, Project, Synthesize, new_project

if TYPE_CHECKING:
    from aws_cdk.cx_api import CloudAssembly

    from cdk.deployment import Deployment

use_supported_node()  # before anything imports aws_cdk


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write tests/cdk/snapshots anew")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Assemble:
    """The assembly of a project as it stands, composed in this process, with cdk-nag."""
    from aws_cdk import App  # noqa: PLC0415

    import app as application  # noqa: PLC0415
    from cdk.deployment import Deployment  # noqa: PLC0415

    def run(project: Project, deployment: Deployment | None = None) -> CloudAssembly:
        outdir = tmp_path_factory.mktemp("assembly")
        cdk_app = App(context=application.feature_flags(), analytics_reporting=False, outdir=str(outdir))
        application.compose(cdk_app, specs.load_all(project.root), deployment or Deployment())
        return cdk_app.synth()

    return run


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory, assemble: Assemble) -> Synthesize:
    """Templates by stack name, of the spec texts given by name; every spec gets a lock that fits."""

    def run(texts: Mapping[str, str], deployment: Deployment | None = None) -> dict[str, dict[str, Any]]:
        project = new_project(tmp_path_factory.mktemp("synth") / "project")
        for name, text in texts.items():
            project.write(name, text)
            project.lock(name, rehearsal=deployment is not None and deployment.rehearsal)
        return {stack.stack_name: stack.template for stack in assemble(project, deployment).stacks}

    return run


@pytest.fixture(scope="session")
def templates(synthesize: Synthesize) -> dict[str, dict[str, Any]]:
    """Artifacts, `small` (a spec of two lines), `full` (every section), `large` (Inf2 with a canary)."""
    large = MINIMAL + "compile: {{target: inf2}}\nrollout: {{strategy: canary}}\nscale: {{min: 2, max: 4}}\n"
    return synthesize({"small": MINIMAL, "full": FULL, "large": large})


@pytest.fixture(scope="session")
def compiling(synthesize: Synthesize) -> dict[str, dict[str, Any]]:
    """The stacks of `processing` and `ec2`, endpoints that are compiled where their names say."""
    from cdk.deployment import Deployment  # noqa: PLC0415

    images = {"inf1": MACHINE_IMAGE}
    return synthesize(COMPILED, Deployment(compile_ami=images))


@pytest.fixture
def artifacts(templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return templates["InferentiaArtifacts"]


@pytest.fixture
def full(templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return templates["InferentiaEndpoint-full"]


@pytest.fixture
def small(templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return templates["InferentiaEndpoint-small"]


@pytest.fixture
def large(templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return templates["InferentiaEndpoint-large"]
