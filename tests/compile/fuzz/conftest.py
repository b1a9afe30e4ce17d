"""A release of PyTorch decides which operators there are: the fuzz draws those of the project's own."""

from __future__ import annotations

import torch

collect_ignore = [] if torch.__version__.startswith("2.") else ["test_fuzz.py"]
