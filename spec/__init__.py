"""The spec of an endpoint, the platform table, the lock, and everything derived from them."""

from spec import derive, digests, lock, platforms
from spec.endpoint import EndpointSpec
from spec.errors import SpecError, SpecErrors
from spec.loading import load, load_all, spec_files
from spec.weights import FileWeights, HubWeights, RandomWeights, S3Weights

__all__ = [
    "EndpointSpec",
    "FileWeights",
    "HubWeights",
    "RandomWeights",
    "S3Weights",
    "SpecError",
    "SpecErrors",
    "derive",
    "digests",
    "load",
    "load_all",
    "lock",
    "platforms",
    "spec_files",
]
