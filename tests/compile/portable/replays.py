"""Run as a script: replays unpacked graph files, and traces what replays them.

    python replays.py FOLDER...

Prints JSON: for each folder what `replayed` gives. Torch alone, from 1.13.1 on.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def replayed(folder: Path) -> dict[str, Any]:
    """references: how many; error: the largest distance from the original's recorded outputs, as a share of each
    output's maximum, and infinite for whole numbers that differ. file, traced: how often each graph's parts have each
    operator, as the file has it, and as a trace of its replay by this torch has it."""
    import torch  # noqa: PLC0415

    from compile.portable import check, decode  # noqa: PLC0415

    found: dict[str, Any] = {"references": 0, "error": 0.0, "file": {}, "traced": {}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = decode.read(folder)
        check.require(file)
        for variant in file.variants:
            whole = file.whole(variant)
            for number in range(len(variant.references)):
                inputs, outputs = file.reference(variant, number)
                found["references"] += 1
                errors = [distance(*pair) for pair in zip(whole(*inputs), outputs, strict=True)]
                worst = [found["error"], *(float("inf") if math.isnan(one) else one for one in errors)]
                found["error"] = max(worst)
            for name, counts in zip(("file", "traced"), tables(file, variant), strict=True):
                found[name].update({f"{variant}, {part}": kinds for part, kinds in counts.items()})
    return found


def tables(file: Any, variant: Any) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """How often each part of a graph has each operator: in the file, and in this torch's trace of its replay."""
    import torch  # noqa: PLC0415

    host, device = file.parts(variant)
    written, traced = {}, {}
    for name, part, module, inputs in (
        ("host", variant.host, host, _host_inputs(file, variant)),
        ("device", variant.device, device, device_inputs(file, variant)),
    ):
        if part is not None:
            # Each part by itself: where one module calls another, torch's inlining joins a cat with a cat.
            graph = torch.jit.trace(module, inputs, check_trace=False).graph
            kinds = (node.kind() for node in graph.nodes())
            written[name] = Counter(node.operator.partition(".")[0] for node in part.nodes)
            traced[name] = Counter(kind for kind in kinds if not kind.startswith("prim::"))
    return written, traced


def device_inputs(file: Any, variant: Any) -> tuple[Any, ...]:
    """What the compiled part is given for the first reference."""
    host, _ = file.parts(variant)
    made = {"input": file.reference(variant, 0)[0], "host": host(*_host_inputs(file, variant)) if host else ()}
    return tuple(made[source][number] for source, number in variant.wiring.device)


def _host_inputs(file: Any, variant: Any) -> tuple[Any, ...]:
    inputs = file.reference(variant, 0)[0]
    return tuple(inputs[number] for number in variant.wiring.host)


def distance(made: Any, wanted: Any) -> float:
    import torch  # noqa: PLC0415

    if made.dtype != wanted.dtype or made.shape != wanted.shape:
        return float("inf")
    if not made.is_floating_point():
        return 0.0 if torch.equal(made, wanted) else float("inf")
    error = float((made.double() - wanted.double()).abs().max())
    return error / max(float(wanted.double().abs().max()), 1e-9)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({folder: replayed(Path(folder)) for folder in sys.argv[1:]}))
