"""SageMaker: the operations that are answered here; every other one stays moto's."""

from __future__ import annotations

from .hosting import Hosting
from .jobs import Jobs
from .tags import Tags


class SageMaker(Hosting, Jobs, Tags):
    """One request to SageMaker's control plane."""
