"""The published compile logs: our counts are theirs, the partition as logged is within 3 % of what they fused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compile.analysis import CoverageReport, analyze
from tests.published.architectures.craft import Craft
from tests.published.architectures.depth_anything_v2 import DepthAnythingV2
from tests.published.architectures.parseq import Parseq
from tests.published.architectures.resnet50 import ResNet50

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "tests" / "published"
IN_CONTAINER = torch.__version__.startswith("1.13.")
container_only = pytest.mark.skipif(
    not IN_CONTAINER, reason=f"published with torch 1.13.1, which records other operators than {torch.__version__}"
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def published(name: str) -> dict:
    return json.loads((PUBLISHED / f"{name}.json").read_text())


def counts(report: CoverageReport) -> dict[str, int]:
    return {kind: found.count for kind, found in report.operators.items()}


def assert_near(predicted: int, *logged: int) -> None:
    """Within 3 % of one of the published counts."""
    assert min(abs(predicted - known) / known for known in logged) <= 0.03


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("size", [32, 96])
def test_craft(size, grad):
    """The operators do not depend on the size of the image; the log was taken at 2400 x 2400."""
    log = published("craft")
    report = analyze(Craft(), (torch.rand(1, 3, size, size),), grad=grad)
    assert report.total == log["total"] == 95
    assert counts(report) == log["operators"]
    assert report.percent == 100.0
    assert (report.as_logged.compiled, report.as_logged.subgraphs) == (95, 1)
    assert (report.safe.compiled, report.safe.subgraphs) == (95, 1)


@pytest.mark.parametrize("grad", [True, False])
def test_resnet50(grad):
    log = published("resnet50")
    report = analyze(ResNet50(), (torch.rand(1, 3, 32, 32),), grad=grad)
    assert report.total == log["total"] == 175
    assert counts(report) == log["operators"]
    assert (report.as_logged.compiled, report.as_logged.subgraphs) == (175, 1)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("as_published", "total"), [(True, 603), (False, 577)])
def test_depth_anything_v2(as_published, total, grad):
    """A narrow model at the published grid: widths do not change the operators."""
    log = published("depth_anything_v2")
    model = DepthAnythingV2(as_published, width=24, features=8)
    report = analyze(model, (torch.rand(1, 3, 518, 518),), grad=grad)
    assert report.total == total
    assert counts(report)["aten::upsample_bilinear2d"] == 5
    assert not report.operators["aten::upsample_bilinear2d"].supported
    assert report.operators["aten::upsample_bilinear2d"].supported_by_name
    if as_published:
        assert report.total == log["total"]
        assert counts(report)["aten::upsample_bicubic2d"] == 1
        assert report.as_logged.subgraphs == 1
        assert_near(report.as_logged.compiled, log["fused"])


@container_only
def test_parseq():
    log = published("parseq")
    report = analyze(Parseq(width=64), (torch.rand(1, 3, 32, 128),), grad=False)
    assert report.total == log["total"] == 8878
    assert len(log["operators"]) == 42
    assert counts(report) == log["operators"]
    unsupported = {kind: found.count for kind, found in report.operators.items() if not found.supported}
    assert unsupported == log["unsupported"]
    assert report.as_logged.subgraphs == log["subgraphs"]
    assert_near(report.as_logged.compiled, log["fused"])
    assert len(report.as_logged.unsafe) > 1  # the token buffer is written through views
    assert report.safe.candidates > 100  # with them, the decoding steps cannot be one subgraph


_BERT = """
import json, torch, transformers
from compile.analysis import analyze
assert transformers.__version__ == "4.21.3", transformers.__version__
model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2, return_dict=False))
ids = torch.ones(1, 128, dtype=torch.long)
print(json.dumps(analyze(model, (ids, ids, ids), grad=False).to_json()))
"""


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.slow
@container_only
def test_bert_base_table_with_the_published_library():
    """transformers 4.21.3, installed apart from the lane's own into build/."""
    target = ROOT / "build" / "cache" / "transformers-4.21.3"
    if not (target / "transformers").is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
        done = run(
            [*install, "transformers==4.21.3", "tokenizers==0.12.1", "numpy<1.24"]
        )  # torch 1.13.1 takes no newer
        if done.returncode:
            pytest.skip(f"transformers 4.21.3 cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    environment = {**os.environ, "PYTHONPATH": f"{target}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}
    done = run([sys.executable, "-c", _BERT], env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    log = published("bert_base")
    assert {kind: found["count"] for kind, found in report["operators"].items()} == log["operators"]
    assert report["total"] == log["total"]
    unsupported = {kind: found["count"] for kind, found in report["operators"].items() if not found["supported"]}
    assert unsupported == log["unsupported"]
    assert_near(report["partition"]["as_logged"]["compiled"], *log["fused"])
    assert report["partition"]["as_logged"]["subgraphs"] == 1


@pytest.mark.slow
def test_depth_anything_v2_work():
    """Full size: 115 GFLOP, most of them in the encoder; the part behind the first upsampling stays on the host."""
    report = analyze(DepthAnythingV2(), (torch.rand(1, 3, 518, 518),), grad=False)
    assert report.flops / 1e9 == pytest.approx(115.3, rel=0.01)
    assert report.as_logged.flops_host / 1e9 == pytest.approx(14.0, rel=0.1)


def test_published_files_are_consistent():
    """Every table adds up to its total, so that a typing error cannot hide."""
    for path in PUBLISHED.glob("*.json"):
        log = json.loads(path.read_text())
        if "operators" in log:
            assert sum(log["operators"].values()) == log["total"], path.name
        assert log["source"]
