"""What decides how a graph comes out of the compiler: one sha256, the key of a compiled variant.

Two builds with the same key make the same graph, so the second need not compile it. The key leaves out what is asked
of a finished graph (compile.accept), how long it may take, and the other graphs of the matrix.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers

from compile.definition import GraphVariant
from compile.frontend.weights import WeightsReport
from endpoint_spec.digests import code_of, digest, file_digest
from endpoint_spec.places import INSTALLED

if TYPE_CHECKING:
    from compile.targets import Target

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
    """The environment of a compilation on this machine, for `shared`."""
    return {**versions(target), "stand_in": str(target.stand_in)}


def shared(
    content: Mapping[str, Any], weights: WeightsReport, rehearsal: bool, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The part of the keys that all variants of a build share.

    content: of the build, as digests.build_content has it. environment: what is known of the machine that compiles:
    versions, or the image that has them.
    """
    return {
        "format": FORMAT,
        "model": {name: value for name, value in content["model"].items() if name != "weights"},
        "definition": content["code"],
        "weights": weights.sha256 or weights.source,
        "compile": {name: value for name, value in content["compile"].items() if name not in _BESIDE_A_GRAPH},
        "code": _code(),
        "rehearsal": rehearsal,
        "grad": torch.is_grad_enabled(),
        "environment": dict(environment),
    }


def key(known: Mapping[str, Any], variant: GraphVariant) -> str:
    """64 hex digits. known: what `shared` returned."""
    own = {"role": variant.role, "bucket": dict(variant.bucket), "batch": variant.batch}
    return digest({**known, "variant": own})


@functools.cache
def _code() -> dict[str, str]:
    """The code that has a part in a graph, with operator table and compiler options. Families are the definition's."""
    roots = [INSTALLED / name for name in _ROOTS]
    code = code_of(roots, ("compile", "inference_code"), left_out=("compile/models",))
    data = [*(INSTALLED / "compile").rglob("*.json"), *(INSTALLED / name for name in _TABLES)]
    return code | {path.relative_to(INSTALLED).as_posix(): file_digest(path) for path in data}
