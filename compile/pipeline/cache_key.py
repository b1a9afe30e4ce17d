"""What decides how a graph comes out of the compiler: one sha256, the key of a compiled variant.

Two builds with the same key make the same graph, so the second need not compile it. The key leaves out what is asked
of a finished graph (compile.accept), how long it may take, and the other graphs of the matrix.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers

from compile.definition import GraphVariant
from compile.frontend.weights import WeightsReport
from endpoint_spec.digests import canonical, code_of, compile_section, definition_code, file_digest
from endpoint_spec.places import INSTALLED

if TYPE_CHECKING:
    from compile.targets import Target
    from endpoint_spec import EndpointSpec

# A change of what a variant's file holds, or of what its key means, makes other keys.
FORMAT = 1
_BESIDE_A_GRAPH = ("accept", "timeout", "buckets", "batch_sizes")
# Where compiling begins, here and in the process of its own; lowering finds its rewrites through a registry.
_ROOTS = ("compile/pipeline/graph.py", "compile/targets/compile_process.py")
_TABLES = ("endpoint_spec/compiler_options.py", "endpoint_spec/data/compilers.yaml", "endpoint_spec/data/limits.yaml")


def versions(target: Target) -> dict[str, str]:
    """Versions of everything that has a part in the graphs, as the lock has them."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        **target.versions(),
    }


def here(target: Target) -> dict[str, str]:
    """The environment of a compilation on this machine, for `Identity`."""
    return {**versions(target), "stand_in": str(target.stand_in)}


class Identity:
    """The part of the keys that all variants of a build share; `key` adds one variant's own."""

    def __init__(self, spec: EndpointSpec, weights: WeightsReport, rehearsal: bool, environment: Mapping[str, str]):
        """environment: what is known of the machine that compiles: versions, or the image that has them."""
        model, section = spec.model, compile_section(spec)
        self.environment = dict(environment)
        self._shared: dict[str, Any] = {
            "format": FORMAT,
            "model": {"family": model.family, "variant": model.variant, "entry": model.entry, "options": model.options},
            "definition": definition_code(spec),
            "weights": weights.sha256 or weights.source,
            "compile": {key: value for key, value in section.items() if key not in _BESIDE_A_GRAPH},
            "code": _code(),
            "rehearsal": rehearsal,
            "grad": torch.is_grad_enabled(),
            "environment": self.environment,
        }

    def key(self, variant: GraphVariant) -> str:
        """64 hex digits."""
        own = {"role": variant.role, "bucket": dict(variant.bucket), "batch": variant.batch}
        return hashlib.sha256(canonical({**self._shared, "variant": own}).encode()).hexdigest()


@functools.cache
def _code() -> dict[str, str]:
    """The code that has a part in a graph, with operator table and compiler options. Families are the definition's."""
    roots = [INSTALLED / name for name in _ROOTS]
    code = code_of(roots, ("compile", "inference_code"), left_out=("compile/models",))
    data = [*(INSTALLED / "compile").rglob("*.json"), *(INSTALLED / name for name in _TABLES)]
    return code | {path.relative_to(INSTALLED).as_posix(): file_digest(path) for path in data}
