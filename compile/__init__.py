"""From a PyTorch model to an artifact and the proof that it equals the original.

A model is described by a `ModelDefinition`; `inferentia build NAME` turns it into model.tar.gz and a lock.
"""

from __future__ import annotations

from compile.definition import GraphDefinition, ModelDefinition, SampleRequest

__all__ = ["GraphDefinition", "ModelDefinition", "SampleRequest"]
