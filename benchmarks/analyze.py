"""What the analysis costs beside the trace that it needs, for graphs of about 100, 1,000 and 9,000 operators.

    python benchmarks/analyze.py [--json FILE] [--repeat N]

The figure that matters is the ratio: seconds of analysis for one second of tracing. Both are taken in one process on
the machine at hand, the best of N runs each; the ratio per operator shows whether the analysis grows with the graph.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compile.analysis import CoverageReport, analyze  # noqa: E402
from tests.published.architectures.craft import Craft  # noqa: E402
from tests.published.architectures.parseq import Parseq  # noqa: E402

SUBJECTS = (
    ("CRAFT", Craft, (1, 3, 64, 64)),
    ("PARSeq, 2 characters", lambda: Parseq(max_label_length=2, width=64), (1, 3, 32, 128)),
    ("PARSeq, 50 characters", lambda: Parseq(max_label_length=50, width=64), (1, 3, 32, 128)),
)


def best(name: str, make, shape: tuple[int, ...], repeat: int) -> dict:
    """Trace and analysis seconds, the best of `repeat` runs each."""
    module, image = make().eval(), torch.rand(shape)
    runs: list[CoverageReport] = [analyze(module, (image,)) for _ in range(repeat)]
    trace = min(run.trace_seconds for run in runs)
    analysis = min(run.analysis_seconds for run in runs)
    total = runs[0].total
    return {
        "model": name,
        "operators": total,
        "trace_seconds": round(trace, 4),
        "analysis_seconds": round(analysis, 4),
        "ratio": round(analysis / trace, 3),
        "analysis_microseconds_per_operator": round(1e6 * analysis / total, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts (default 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [best(name, make, shape, arguments.repeat) for name, make, shape in SUBJECTS]
    machine = {"python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine()}
    print(f"torch {machine['torch']}, Python {machine['python']}, one thread, best of {arguments.repeat}")
    print(f"{'model':24}{'operators':>10}{'trace s':>10}{'analysis s':>12}{'ratio':>8}{'us/operator':>13}")
    for row in rows:
        print(
            f"{row['model']:24}{row['operators']:>10}{row['trace_seconds']:>10.3f}{row['analysis_seconds']:>12.3f}"
            f"{row['ratio']:>8.2f}{row['analysis_microseconds_per_operator']:>13.1f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
