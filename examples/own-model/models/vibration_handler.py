"""Requests and answers of endpoints/vibration.yaml: a window as CSV or JSON in, a verdict as JSON out.

This file travels inside the artifact, with windows.py, which it imports.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from windows import BANDS, CHANNELS, SAMPLES

from inference_code.errors import BadRequest, UnsupportedMediaType
from inference_code.request import Request

WORN = 0.5


def preprocess(request: Request) -> dict[str, np.ndarray]:
    """One window: 256 lines of x,y,z (text/csv), or {"samples": [[x, y, z], ...], "recorded_at": seconds}."""
    recorded_at = 0.0
    try:
        if request.content_type == "text/csv":
            rows = [line.split(",") for line in request.body.decode().split()]
        elif request.content_type == "application/json":
            record = json.loads(request.body)
            rows, recorded_at = record["samples"], float(record.get("recorded_at", 0.0))
        else:
            raise UnsupportedMediaType(f"{request.content_type or 'no type'}: send text/csv or application/json")
        samples = np.asarray(rows, np.float32)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"the window cannot be read: {error}") from error
    if samples.shape != (SAMPLES, CHANNELS) or not np.isfinite(samples).all():
        raise BadRequest(f"a window is {SAMPLES} moments of {CHANNELS} finite numbers, this one is {samples.shape}")
    return {"samples": np.ascontiguousarray(samples.T), "recorded_at": np.array([recorded_at], np.float32)}


def postprocess(outputs: Any, item: dict[str, np.ndarray]) -> dict[str, Any]:
    """The outputs arrive nested as the model returned them: a dict that holds a dataclass that holds a dict."""
    wear = outputs["wear"]
    residual = item["samples"] - outputs["rebuilt"]
    return {
        "verdict": "worn" if wear.score > WORN else "sound",
        "score": float(wear.score),
        "bands": {name: float(wear.bands[name]) for name in BANDS},
        "largest_residual_g": float(np.abs(residual).max()),
    }
