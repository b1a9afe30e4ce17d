"""Run as a script with torch-xla: replays the device parts of unpacked graph files on its CPU backend.

    python xla_replays.py FOLDER...

Prints JSON: for each folder the largest distance of a graph's outputs from the recorded ones, as a share of the
output's maximum. The host part runs in torch, as beside a chip.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def replayed(folder: Path) -> float:
    import torch  # noqa: PLC0415
    import torch_xla.core.xla_model as xm  # noqa: PLC0415

    from compile.portable import decode  # noqa: PLC0415

    file, device, worst = decode.read(folder), xm.xla_device(), 0.0
    with torch.no_grad():
        for variant in file.variants:
            host, part = file.parts(variant)
            part = part.to(device)
            inputs, wanted = file.reference(variant, 0)
            made = {"input": inputs}
            made["host"] = list(host(*(inputs[number] for number in variant.wiring.host))) if host else []
            given = [made[source][number].to(device) for source, number in variant.wiring.device]
            outputs = part(*given)
            xm.mark_step()  # one computation; each .cpu() would be one of its own
            made["device"] = [output.cpu() for output in outputs]
            for (source, number), expected in zip(variant.wiring.outputs, wanted, strict=True):
                apart = (made[source][number].double() - expected.double()).abs().max()
                worst = max(worst, float(apart / max(float(expected.abs().max()), 1e-12)))
    return worst


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("PJRT_DEVICE", "CPU")
    print(json.dumps({folder: replayed(Path(folder)) for folder in sys.argv[1:]}))  # noqa: T201
