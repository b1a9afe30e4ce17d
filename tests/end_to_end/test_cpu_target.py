"""The target cpu the whole way, as to AWS: no rehearsal, and an image that the embedded CodeBuild builds."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator

import pytest

from endpoint_spec import built_images
from tests.compile.projects import HANDLER, WITH_SAMPLE, write_entry
from tests.end_to_end.rehearsal import CDK, ROOT, Rehearsal

pytestmark = pytest.mark.slow
MORE = "compile: {target: cpu, batch_sizes: [1, 4]}\nserve: {handler: handler.py}\n"


class AsToAws(Rehearsal):
    """The commands that deploy to an account: without -c rehearsal=true."""

    def aws(self, *arguments: str) -> str:
        """The stock CLI, which has to succeed."""
        app = f"{sys.executable} {ROOT / 'app.py'}"
        return self.must(CDK, *arguments, "--app", app, "--progress", "events")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsToAws]:
    """An endpoint of the target cpu, deployed."""
    found = AsToAws(tmp_path_factory.mktemp("cpu"))
    write_entry(found.folder, WITH_SAMPLE, more=MORE)
    (found.folder / "handler.py").write_text(HANDLER)
    try:
        found.start()
        found.python("compile", "build", "own")
        found.aws("bootstrap", "aws://123456789012/us-east-1")
        found.aws("deploy", "--require-approval", "never", "InferentiaArtifacts", "InferentiaImages")
        said = found.python("operations", "image", "build", "own")
        assert 'prove.py: the server answered {"outputs": [2, 4, 6]' in said
        found.python("operations", "publish", "own")
        found.aws("deploy", "--require-approval", "never", "InferentiaEndpoint-own")
        yield found
    finally:
        found.stop()


def test_the_image_has_torch_by_hash_on_a_base_of_python_alone(project: AsToAws) -> None:
    (built,) = built_images.read(project.folder).values()
    assert built.base == "public.ecr.aws/docker/library/python:3.11-slim-bookworm"
    assert "ok" in project.python("operations", "image", "status")


def test_preflight_smoke_and_status_know_it(project: AsToAws) -> None:
    said = project.python("operations", "preflight", "own", "--json")
    found = {row["check"]: row for row in json.loads(said)}
    assert found["quota"]["found"].startswith("ml.c7i.large for endpoint usage")
    assert found["image"]["status"] == "ok"
    assert "smoke passed" in project.python("operations", "smoke", "own")
    assert "unknown" in project.python("endpoint_spec", "cost", "own")  # no price of it is known


def test_it_answers_as_it_was_proven_and_says_nothing_of_a_rehearsal(project: AsToAws) -> None:
    lock = json.loads((project.folder / "endpoints" / "own.lock.json").read_text())
    asked = lock["sample"]["request"]
    answer = project.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="own",
        Body=base64.b64decode(asked["body"]),
        ContentType=asked["content_type"],
        Accept=asked["accept"],
    )
    assert json.loads(answer["Body"].read()) == lock["sample"]["answer"]["json"] == {"version": 1}


def test_a_changed_handler_is_packaged_published_and_deployed(project: AsToAws) -> None:
    (project.folder / "handler.py").write_text(HANDLER.replace("1}", "2}"))
    project.python("compile", "package", "own")
    project.python("operations", "publish", "own")
    project.aws("deploy", "--require-approval", "never", "InferentiaEndpoint-own")
    answer = project.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="own", Body=b'{"x": [1, 2, 3, 4, 5, 6, 7, 8]}', ContentType="application/json"
    )
    assert json.loads(answer["Body"].read()) == {"version": 2}


def test_nothing_is_left(project: AsToAws) -> None:
    project.aws("destroy", "--force", "InferentiaEndpoint-own")
    assert project.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_a_rehearsals_artifact_is_still_refused(project: AsToAws) -> None:
    project.python("compile", "build", "own", "--rehearse")
    lock = project.folder / "endpoints" / "own.lock.json"
    lock.write_bytes((project.folder / "build" / "rehearsal" / "own.lock.json").read_bytes())
    said = project.run(sys.executable, "-m", "operations", "publish", "own")
    assert said.returncode == 1
    assert "is a rehearsal and must not be deployed to AWS" in said.stdout
