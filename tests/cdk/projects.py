"""Project roots with specs and hand-written locks. Nothing here needs torch, boto3, AWS or a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endpoint_spec as specs
from endpoint_spec import built_images, platforms
from endpoint_spec.built_images import BuiltImage
from endpoint_spec.lock import Lock, artifact_key, lock_path

REPOSITORY = Path(__file__).resolve().parents[2]
ENTRY = "def build():\n    raise NotImplementedError('synthesis never calls this')\n"
SHA256 = "5e" * 32
MINIMAL = 'name: {name}\nmodel: {{entry: "model.py:build", weights: "random:0"}}\n'
FULL = """\
name: {name}
model: {{entry: "model.py:build", weights: "random:0"}}
compile: {{target: inf1, batch_sizes: [1, 4]}}
serve: {{instance_type: ml.inf1.2xlarge}}
scale: {{min: 2, max: 6, target_value: 3.0}}
alarms:
  p99_latency: 250ms
  error_rate: 2%
  min_requests: 50
  notify: [ops@example.com, "arn:aws:sns:us-east-1:111122223333:pager"]
tags: {{team: documents, cost-centre: "42"}}
"""
# One spec for each place of compiling.
COMPILED = {
    where: f"""\
name: {{name}}
model: {{{{entry: "model.py:build", weights: "random:0"}}}}
compile: {{{{batch_sizes: [1, 4]}}}}
alarms: {{{{notify: [ops@example.com, "arn:aws:sns:us-east-1:111122223333:pager"]}}}}
tags: {{{{team: documents}}}}
job: {{{{where: {where}}}}}
"""
    for where in ("processing", "ec2")
}
MACHINE_IMAGE = "ami-0123456789abcdef0"
# Every image of the native server, as if built in the account and region of AWS's examples.
DIGEST = f"sha256:{'ab' * 32}"
IMAGES = {
    built_images.key(image): BuiltImage(
        digest=DIGEST,
        tag=image.tag,
        base=image.base or platforms.base_of(image).repository,
        base_digest=DIGEST,
        sources=SHA256,
        account="111122223333",
        region="eu-west-1",
    )
    for image in platforms.images()
    if image.registry == "own"
}
# Makes templates by stack name of spec texts by name; the fixture of this name in conftest.
Synthesize = Callable[..., dict[str, dict[str, Any]]]
# Makes the assembly of a project; the fixture of this name in conftest.
Assemble = Callable[..., Any]


def lock_of(endpoint: specs.EndpointSpec, **changes: Any) -> Lock:
    """A lock that fits the endpoint, as a build would have written it; `changes` replaces fields."""
    tensor = {"name": "image", "shape": [1, 3, 32, 32], "dtype": "float32"}
    graphs = [
        {"role": "main", "batch_size": size, "file": f"graphs/main-{size}.pt", "inputs": [tensor], "outputs": [tensor]}
        for size in endpoint.compile.batch_sizes
    ]
    fields: dict[str, Any] = {
        "name": endpoint.name,
        "rehearsal": False,
        "target": endpoint.compile.target,
        "digests": {
            "build": specs.digests.build_digest(endpoint),
            "handler": specs.digests.handler_digest(endpoint),
            "artifact": SHA256,
        },
        "artifact": {"key": artifact_key(endpoint.name, SHA256), "bytes": 100_000_000},
        "manifest_sha256": SHA256,
        "versions": {"torch": "1.13.1"},
        "task": {"name": "tensor"},
        "weights": {"source": "random:0"},
        "graphs": graphs,
        "parity": {"inputs": 5, "error": 0.0, "bound": 1e-6, "maximum": 1.0},
    }
    return Lock.model_validate(fields | changes)


@dataclass(frozen=True)
class Synthesized:
    """What one run of app.py printed, and the assembly that it wrote."""

    code: int
    stdout: str
    stderr: str
    assembly: Path


def error_annotations(assembly: Path, stack: str) -> list[str]:
    """The error annotations of a stack, which make the CDK CLI refuse it."""
    file = assembly / f"{stack}.metadata.json"
    entries = json.loads(file.read_text()).get(f"/{stack}", []) if file.exists() else []
    return [entry["data"] for entry in entries if entry["type"] == "aws:cdk:error"]


@dataclass(frozen=True)
class Project:
    """A project root with endpoints/ and their locks."""

    root: Path

    def write(self, name: str, text: str = MINIMAL) -> Path:
        """Write endpoints/NAME.yaml; {name} stands for the name."""
        path = self.root / "endpoints" / f"{name}.yaml"
        path.write_text(text.format(name=name))
        return path

    def lock(self, name: str, *, rehearsal: bool = False, **changes: Any) -> Path:
        """Write the lock that fits endpoints/NAME.yaml as it is now."""
        endpoint = specs.load(self.root / "endpoints" / f"{name}.yaml", self.root)
        path = lock_path(endpoint, rehearsal)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lock_of(endpoint, rehearsal=rehearsal, **changes).dump())
        return path

    def add(self, name: str, text: str = MINIMAL) -> None:
        """A spec and its fitting lock."""
        self.write(name, text)
        self.lock(name)

    def run(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        blocked: tuple[str, ...] = (),
        **context: str,
    ) -> Synthesized:
        """Run app.py in the project as the CDK CLI does. blocked: modules whose import is made to fail."""
        assembly = self.root / "assembly"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
        variables = {
            **inherited,
            "CDK_OUTDIR": str(assembly),
            "CDK_CONTEXT_JSON": json.dumps(context),
            "CDK_VALIDATION": "false",
            **(environment or {}),
        }
        block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        start = f"import runpy; sys.argv = ['app.py']; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        program = block + start + f"runpy.run_path({str(REPOSITORY / 'app.py')!r}, run_name='__main__')"
        answer = subprocess.run(
            [sys.executable, "-c", program], cwd=self.root, env=variables, capture_output=True, text=True, check=False
        )
        return Synthesized(answer.returncode, answer.stdout, answer.stderr, assembly)


def new_project(root: Path) -> Project:
    (root / "endpoints").mkdir(parents=True)
    (root / "model.py").write_text(ENTRY)
    (root / built_images.FILE).write_text(built_images.text(IMAGES))
    return Project(root)
