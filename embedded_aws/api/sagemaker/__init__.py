"""SageMaker: one table of the operations that are answered here; every other operation stays moto's."""

from __future__ import annotations

from . import hosting, jobs, tags
from .request import SageMakerRequest

OPERATIONS = {operation.__name__: operation for operation in (*hosting.OPERATIONS, *jobs.OPERATIONS, *tags.OPERATIONS)}
SageMaker: type[SageMakerRequest] = type("SageMaker", (SageMakerRequest,), OPERATIONS)
