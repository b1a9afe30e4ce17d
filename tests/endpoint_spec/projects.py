"""A project of a user's own in a temporary folder, with everything that a spec may name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from endpoint_spec import EndpointSpec
from endpoint_spec.digests import build_digest, handler_digest
from endpoint_spec.lock import Lock, artifact_key

Loader = Callable[..., EndpointSpec]

SHA = "0123456789abcdef" * 4

FULL = f"""\
name: invoices
model:
  entry: models/invoices.py:build
  weights: {{file: weights/invoices.safetensors, sha256: {SHA}}}
compile:
  target: inf1
  buckets: [{{image: [224, 224]}}, {{image: [448, 448]}}]
  batch_sizes: [1, 4]
  pipeline_cores: 1
  fast_math: fp32-cast-matmult
  timeout: 45min
  accept: {{min_supported: 100%, max_subgraphs: 1, lowering_tolerance: 1e-5, device_tolerance: {{cosine: 0.999}}}}
serve:
  handler: models/invoices_handler.py
  server: torchserve
  instance_type: ml.inf1.2xlarge
  cores_per_worker: 1
  max_batch_delay: 5ms
  limits: {{pixels: 40M, items: 16}}
scale: {{min: 1, max: 8, policy: concurrency, target_value: 3}}
alarms: {{p99_latency: 250ms, error_rate: 1%, min_requests: 20, notify: "arn:aws:sns:us-east-1:123456789012:alarms"}}
rollout: {{strategy: all-at-once}}
tags: {{team: documents}}
"""
SMALL = """\
name: depth
model: {family: depth_anything_v2, variant: vits, weights: "hub:depth-anything/Depth-Anything-V2-Small-hf"}
"""


def fill(root: Path) -> Path:
    """Make a project root with a model, a handler, helpers and weights."""
    for folder in ("endpoints", "models", "weights"):
        (root / folder).mkdir(parents=True)
    (root / "models/invoices.py").write_text("import layers\n\n\ndef build():\n    return layers.net()\n")
    (root / "models/layers.py").write_text("def net():\n    return None\n")
    (root / "models/invoices_handler.py").write_text(
        "from models import shared\n\n\ndef preprocess(request):\n    return shared.item(request)\n\n\n"
        "def postprocess(outputs, item):\n    return outputs\n"
    )
    (root / "models/shared.py").write_text("def item(request):\n    return request\n")
    (root / "models/half_handler.py").write_text("def preprocess(request):\n    return request\n")
    (root / "models/broken.py").write_text("def build(:\n")
    (root / "weights/invoices.safetensors").write_bytes(b"weights")
    return root


def a_lock(spec: EndpointSpec, *, size: int = 100_000_000, rehearsal: bool = False, **changes: object) -> Lock:
    """A lock that fits the spec."""
    fields: dict[str, object] = {
        "name": spec.name,
        "rehearsal": rehearsal,
        "target": spec.compile.target,
        "digests": {"build": build_digest(spec), "handler": handler_digest(spec), "artifact": SHA},
        "artifact": {"key": artifact_key(spec.name, SHA), "bytes": size},
        "manifest_sha256": SHA,
        "versions": {"torch": "1.13.1"},
        "task": {"name": "depth-estimation", "settings": {"mean": [0.5]}},
        "weights": {"source": "random:0", "sha256": None},
        "graphs": [
            {
                "role": "main",
                "bucket": {"image": [518, 518]},
                "batch_size": batch,
                "file": f"graphs/main-{batch}.pt",
                "inputs": [{"name": "pixels", "shape": [batch, 3, 518, 518], "dtype": "float32"}],
                "outputs": [{"name": "depth", "shape": [batch, 518, 518], "dtype": "float32"}],
                "coverage": {"total": 10, "supported": 9, "percent": 90.0, "predicted": True, "unsupported": {"a": 1}},
                "subgraphs": {"count": 2, "predicted": True},
            }
            for batch in spec.compile.batch_sizes
        ],
        "parity": {"inputs": 5, "error": 1e-7, "bound": 1e-6, "maximum": 1.5},
    }
    return Lock.model_validate(fields | changes)
