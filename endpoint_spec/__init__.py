"""The spec of an endpoint, the platform table, the lock, and everything derived from them."""

import signal
import sys

# `python -m endpoint_spec` (argv[0] is "-m" while Python locates it, https://docs.python.org/3/using/cmdline.html#cmdoption-m):
# until a command runs there is nothing to clean up, and Ctrl-C ends it at once.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from . import derive, digests, lock, platforms
from .endpoint import EndpointSpec
from .errors import ProjectError, SpecError, SpecErrors
from .loading import find, load, load_all, load_each, spec_files
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
    "load_each",
    "lock",
    "platforms",
    "spec_files",
]
