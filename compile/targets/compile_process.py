"""`python -m compile.targets.compile_process FOLDER`: compiles the variant that FOLDER/request.json describes.

It makes and lowers the model anew, so that nothing of the parent's has to be copied. What it prints is the log.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from compile.definition import checked_inputs
from compile.errors import CompileError
from compile.files import write_json
from compile.frontend import loading, weights
from compile.ir.flat_module import flat_module
from compile.lowering.config import of_spec
from compile.lowering.for_target import lowered
from compile.portable.joined import joined
from compile.targets import inf1, inf2
from endpoint_spec import load
from endpoint_spec.digests import build_digest


def main(folder: Path) -> None:
    """Writes graph.pt and result.json into `folder`. Whatever goes wrong is printed, and the exit code is not 0."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s:%(name)s:%(message)s")
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    traced, compiled = compile_variant(request)
    torch.jit.save(traced, str(folder / "graph.pt"))
    kinds = Counter(node.kind() for node in _nodes(compiled.inlined_graph))
    neuron = sum(count for kind, count in kinds.items() if kind.startswith("neuron::"))
    # ru_maxrss: kilobytes of the largest process, of this one and of those that it waited for.
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    result = {
        "neuron_nodes": neuron,
        "operators": {kind: count for kind, count in sorted(kinds.items()) if kind.startswith("aten::")},
        "peak_bytes": peak * 1024,
    }
    write_json(folder / "result.json", result)


def compile_variant(request: dict[str, Any]) -> tuple[torch.jit.ScriptModule, torch.jit.ScriptModule]:
    """The graph of a request with its host part, and what was compiled of it (the same where there is no host part).

    Raises CompileError when the spec is not the one that was asked about.
    """
    spec = load(Path(request["spec"]), root=Path(request["root"]))
    if build_digest(spec) != request["digest"]:
        raise CompileError(f"{spec.path.name} or its model changed while it was being built.", "Build it again.")
    definition = loading.definition(spec)
    weights.fill(spec, definition)
    graph = definition.graphs[request["role"]]
    example, _ = checked_inputs(graph, request["role"], request["bucket"], request["batch"])
    tensors = tuple(example.values())
    parts = lowered(flat_module(graph.module, example), tensors, spec.compile.target, of_spec(spec))
    if spec.compile.target == "inf1":
        compiled = inf1.trace(parts.device, parts.device_inputs, request["keywords"])
        if parts.host is None or parts.wiring is None:
            return compiled, compiled
        return joined(parts.host, compiled, parts.wiring, tensors), compiled
    compiled = inf2.trace(parts.device, tensors, request["keywords"], list(example))
    return compiled, compiled


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
