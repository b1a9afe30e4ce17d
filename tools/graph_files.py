"""Specs made into graph files as `inferentia submit` makes them, and the files replayed and traced by another Python.

What coverage_table.py and current_models.py have in common. Run as a script it is the other Python's part, which needs
torch alone: `python graph_files.py GRAPH OUT` writes what `replayed` finds, as JSON.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from compile.pipeline.graph import CapturedVariant
    from compile.pipeline.plan import ResolvedPlan

TIMEOUT = 3600


def captured(folder: Path, text: str, path: Path) -> tuple[ResolvedPlan, list[CapturedVariant]]:
    """A spec's variants, captured and proven item by item; their graph file is written to `path`.

    folder: a project, into which the spec is written. Raises CompileError and SpecError where a build does.
    """
    from compile.pipeline.capture import capture  # noqa: PLC0415  (the other Python has none of this)
    from compile.pipeline.graph import Places  # noqa: PLC0415
    from compile.progress import Silent  # noqa: PLC0415
    from compile.remote.bundle import planned  # noqa: PLC0415
    from endpoint_spec import load  # noqa: PLC0415

    spec, scratch = folder / "endpoints" / "model.yaml", folder / "build"
    spec.parent.mkdir(parents=True)
    spec.write_text(text, encoding="utf-8")
    scratch.mkdir()
    resolved = planned(load(spec), rehearse=False, reporter=Silent())
    places = Places.inside(scratch, resolved.plan.record)
    found, _ = capture(resolved, places, Silent())
    places.captures.write(path, resolved.header, [one.variant.file for one in found])
    return resolved, found


def replayed(path: Path) -> list[dict[str, Any]]:
    """For each variant of a graph file: errors, each output's largest distance from the recorded ones; what `account`
    says of the compiled part, as this torch's trace of the replay has it; and differing, the operators that the trace
    has more or less often than the file, with both counts."""
    import torch  # noqa: PLC0415

    from compile.packaging import graph_file  # noqa: PLC0415

    file = graph_file.read(path)
    with torch.no_grad():
        return [_replayed(file, variant) for variant in file.variants]


def _replayed(file: Any, variant: Any) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    from compile.analysis import analyze  # noqa: PLC0415
    from compile.portable.replay import distance  # noqa: PLC0415
    from tests.compile.portable.replays import device_inputs, tables  # noqa: PLC0415

    whole, errors = file.whole(variant), [0.0] * len(variant.outputs)
    for number in range(len(variant.references)):
        inputs, expected = file.reference(variant, number)
        apart = [distance(*pair, nan_equal=True) for pair in zip(whole(*inputs), expected, strict=True)]
        errors = [error if error > new else new for error, new in zip(errors, apart, strict=True)]
    written, traced = tables(file, variant)
    _, device = file.parts(variant)
    report = analyze(device, device_inputs(file, variant))
    differing = {
        f"{part}: {kind}": [counts.get(kind, 0), traced[part].get(kind, 0)]
        for part, counts in written.items()
        for kind in counts | traced[part]
        if counts.get(kind, 0) != traced[part].get(kind, 0)
    }
    return {"errors": errors, **account(report), "differing": differing, "torch": str(torch.__version__)}


def account(report: Any) -> dict[str, Any]:
    """Of the analysis of a graph for inf1. unsupported: by operator; reason: what is on the host, and why."""
    refused = {kind: row for kind, row in report.operators.items() if not row.supported}
    left = {kind: row.count - row.supported_count for kind, row in refused.items()}
    reasons = [f"{count} {kind}: {refused[kind].reason}" for kind, count in left.items()]
    if report.safe.compiled < report.total:
        reasons += [f"{count} supported ones: {why}" for why, count in report.safe.host_reasons.items()]
    return {
        "operators": report.total,
        "supported": report.supported,
        "unsupported": left,
        "subgraphs": report.safe.subgraphs,
        "flops": report.flops,
        "flops_host": report.safe.flops_host,
        "reason": "; ".join(reasons),
    }


def run_replay(python: str, graph: Path, out: Path) -> str | None:
    """Lets another Python write what it finds to `out`; why it failed, or None."""
    command = [python, "-W", "ignore", str(Path(__file__).resolve()), str(graph), str(out)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"stopped after {TIMEOUT} s"
    if done.returncode == 0:
        return None
    return f"the process ended with {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-1:])}"


def beyond_bounds(outputs: Sequence[Mapping[str, Any]], errors: Sequence[float]) -> str:
    """Names the outputs whose replay is further off than twice the bound: each torch rounds within it."""
    return "; ".join(
        f"output {output['name']} of the replay differs by {error:.3e}, twice the bound is {2 * output['bound']:.3e}"
        for output, error in zip(outputs, errors, strict=True)
        if not error <= 2 * output["bound"]
    )


def relative_error(outputs: Sequence[Mapping[str, Any]], errors: Sequence[float]) -> float:
    """The largest of a replay's errors, as a share of its output's maximum; NaN where one is."""
    pairs = zip(outputs, errors, strict=True)
    shares = [error / output["maximum"] if output["maximum"] else error for output, error in pairs]
    return math.nan if any(map(math.isnan, shares)) else max(shares)


def main(graph: Path, out: Path) -> None:
    """The other Python's part."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    out.write_text(json.dumps(replayed(graph)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
