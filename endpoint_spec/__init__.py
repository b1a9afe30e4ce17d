"""The spec of an endpoint, the platform table, the lock, and everything derived from them."""

from endpoint_spec import derive, digests, lock, platforms
from endpoint_spec.endpoint import EndpointSpec
from endpoint_spec.errors import ProjectError, SpecError, SpecErrors
from endpoint_spec.loading import find, load, load_all, spec_files
from endpoint_spec.weights import FileWeights, HubWeights, RandomWeights, S3Weights

__all__ = [
    "EndpointSpec",
    "FileWeights",
    "HubWeights",
    "ProjectError",
    "RandomWeights",
    "S3Weights",
    "SpecError",
    "SpecErrors",
    "derive",
    "digests",
    "find",
    "load",
    "load_all",
    "lock",
    "platforms",
    "spec_files",
]
