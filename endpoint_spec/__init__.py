"""The spec of an endpoint, the platform table, the lock, and everything derived from them."""

from . import derive, digests, lock, platforms
from .endpoint import EndpointSpec
from .errors import ProjectError, SpecError, SpecErrors
from .loading import find, load, load_all, spec_files
from .weights import FileWeights, HubWeights, RandomWeights, S3Weights

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
