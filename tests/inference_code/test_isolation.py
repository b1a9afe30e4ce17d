"""What inference_code may import: it runs in containers that have torch, numpy and Pillow, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import inference_code
from tests.inference_code.artifacts import child_environment, depth_artifact

# Not in the Inf1 container, or another room of this project.
NEVER = (
    "pydantic",
    "transformers",
    "starlette",
    "yaml",
    "boto3",
    "endpoint_spec",
    "compile",
    "cdk",
    "operations",
    "embedded_aws",
    "httpx",
)
SERVER_ONLY = ("uvicorn",)

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
"""

USE = """
import io, pkgutil, importlib
import inference_code
for module in pkgutil.walk_packages(inference_code.__path__, "inference_code."):
    if module.name not in {servers!r}:
        importlib.import_module(module.name)
from PIL import Image
from inference_code import inference
stream = io.BytesIO()
Image.new("RGB", (20, 10), "red").save(stream, "PNG")
served = inference.model_fn({folder!r})
done = inference.predict_fn(inference.input_fn(stream.getvalue(), "image/png"), served)
for accept in ("application/x-npy", "image/png", "application/json"):
    body, kind = inference.output_fn(done, accept)
    assert kind == accept, kind
print("answered")
"""

SERVE = """
import inference_code.server.process
print("answered")
"""


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
        timeout=120,
    )


def test_the_handler_answers_with_everything_else_blocked(tmp_path: Path) -> None:
    use = USE.format(
        servers=("inference_code.server.process", "inference_code.server.app"), folder=str(depth_artifact(tmp_path))
    )
    found = run(BLOCK.format(blocked=NEVER + SERVER_ONLY) + use)
    assert (found.returncode, found.stdout) == (0, "answered\n"), found.stderr


def test_the_server_needs_only_uvicorn_more() -> None:
    found = run(BLOCK.format(blocked=NEVER) + SERVE)
    assert (found.returncode, found.stdout) == (0, "answered\n"), found.stderr


def test_the_server_does_need_them() -> None:
    """The block blocks."""
    found = run(BLOCK.format(blocked=SERVER_ONLY) + SERVE)
    assert found.returncode != 0
    assert "uvicorn is blocked" in found.stderr


@pytest.mark.parametrize(
    "module",
    [
        "inference_code.artifact.manifest",
        "inference_code.artifact.pytree",
        "inference_code.server",
        "inference_code.workers.supervisor",
    ],
)
def test_manifest_and_supervisor_need_the_standard_library_alone(module: str) -> None:
    source = f"""
import sys
before = set(sys.modules)
import {module}
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names))
"""
    assert run(source).stdout == "['inference_code']\n"


def test_nothing_unpickles() -> None:
    for path in Path(inference_code.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for word in ("allow_pickle=True", "import pickle", "torch.load(", "np.load("):
            assert word not in text, f"{path.name}: {word}"
