"""Tiny projects in temporary folders, and ways to build them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import endpoint_spec as specs
from compile.cli import app
from compile.pipeline.build import Result, build
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "{hidden_size: 24, heads: 2, layers: 4, layers_out: [1, 2, 3, 4], neck: [8, 8, 16, 16], fusion: 8, image_size: 56}"
)

# A model of one's own in ten lines; tests change single lines of it.
ENTRY = """\
import torch
from torch import nn
from compile import GraphDefinition, ModelDefinition

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.tanh(x)  # two operators: a lone one stays on the host
        return self.layer(x)

def references(bucket, batch):
    return [{"x": torch.randn(batch, 8, generator=torch.Generator().manual_seed(i))} for i in range(5)]

def build():
    graph = GraphDefinition(Net().eval(), lambda bucket, batch: references(bucket, batch)[0], references)
    return ModelDefinition({"main": graph}, [{"x": 8}], "tensor")
"""


# The same model with a sample request, which a build answers through the packaged code.
WITH_SAMPLE = ENTRY.replace("ModelDefinition\n", "ModelDefinition, SampleRequest\n", 1).replace(
    '"tensor")',
    '"tensor", sample=sample)\n\n'
    "def sample(bucket):\n"
    "    return SampleRequest(b'{\"x\": [1, 2, 3, 4, 5, 6, 7, 8]}', 'application/json', 'application/json')\n",
)
# A handler whose answer is a number that tests change.
HANDLER = """\
from inference_code.tasks.tensor import preprocess

def postprocess(outputs, item):
    return {"version": 1}
"""


def write_spec(root: Path, name: str = "tiny", weights: str = '"random:0"', more: str = "") -> Path:
    """A spec of the tiny depth network."""
    path = root / "endpoints" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = f"{{family: depth_anything_v2, variant: vits, weights: {weights}, options: {TINY}}}"
    path.write_text(f"name: {name}\nmodel: {model}\n{more}")
    return path


def write_entry(
    root: Path, source: str = ENTRY, *, name: str = "own", weights: str = '"random:0"', more: str = ""
) -> Path:
    """A spec whose entry is model.py:build with this source."""
    path = root / "endpoints" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / "model.py").write_text(source)
    path.write_text(f'name: {name}\nmodel: {{entry: "model.py:build", weights: {weights}}}\n{more}')
    return path


def rehearse(path: Path) -> Result:
    """Builds a spec file as a rehearsal."""
    return build(resolve(plan(specs.load(path), rehearse=True), Silent()), Silent())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python -m compile ARGUMENTS` in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["compile", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def files(root: Path) -> dict[str, bytes]:
    """Every file below build/, by path: to see that nothing half-written stays, or that nothing changed."""
    folder = root / "build"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
