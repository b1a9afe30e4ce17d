"""Will it compile? Operator coverage and a predicted partition for any PyTorch model, without the Neuron SDK."""

from __future__ import annotations

from compile.analysis.analyze import analyze
from compile.analysis.partition import Rules
from compile.analysis.report import CoverageReport

__all__ = ["CoverageReport", "Rules", "analyze"]
