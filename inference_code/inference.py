"""The entry that SageMaker's containers load (SAGEMAKER_PROGRAM=inference.py); it is packed as code/inference.py."""

from __future__ import annotations

from inference_code.adapters.torchserve import input_fn, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
