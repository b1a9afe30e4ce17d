"""Will it compile? Operator coverage and a predicted partition for any PyTorch model, without the Neuron SDK."""

from __future__ import annotations

from compile.coverage.analysis import analyze
from compile.coverage.partition import Rules
from compile.coverage.report import CoverageReport

__all__ = ["CoverageReport", "Rules", "analyze"]
