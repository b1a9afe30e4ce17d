"""Every small family, for both targets: captured, written, and replayed in this torch and in the Inf1 container's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from compile.portable import decode
from compile.portable.replay import largest_of
from tests.compile.models.tiny import TINY
from tests.compile.portable import captures, graph_files, replays

OLD = replays.ROOT / ".venv310" / "bin" / "python"
# For Inf2, nothing is split off: most graphs are the same, so that three stand for all.
CASES = [(key, "inf1") for key in TINY] + [(key, "inf2") for key in TINY if key[0] in ("bert", "dlrm", "resnet")]
NAMES = ["-".join((*key, target)) for key, target in CASES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each graph file unpacked, by name."""
    place = tmp_path_factory.mktemp("graphs")
    return {
        name: graph_files.written(place / f"{name}.graph", *captures.of_family(*case))
        for name, case in zip(NAMES, CASES, strict=True)
    }


@pytest.fixture(scope="module")
def in_torch_1_13(folders: dict[str, Path]) -> dict[str, Any]:
    """What the script says of all of them, in a process of Python 3.10 with torch 1.13.1."""
    if torch.__version__.startswith("1.13.1"):
        pytest.skip("this is torch 1.13.1")
    if not OLD.exists():
        pytest.skip(f"NOT TESTED: there is no {OLD} (make test-python310 creates it)")
    done = subprocess.run(
        [OLD, replays.__file__, *folders.values()], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    return {name: found[str(folder)] for name, folder in folders.items()}


def require(found: dict[str, Any]) -> None:
    assert found["references"] > 0
    assert found["error"] < 1e-4
    assert found["traced"] == found["file"]
    assert all(sum(kinds.values()) > 0 for kinds in found["file"].values())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_original_here(name: str, folders: dict[str, Path]) -> None:
    require(replays.replayed(folders[name]))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_original_in_torch_1_13(name: str, in_torch_1_13: dict[str, Any]) -> None:
    require(in_torch_1_13[name])


def test_for_inf1_look_ups_are_in_a_host_part(folders: dict[str, Path]) -> None:
    names = {name for name in NAMES if any(one.host for one in decode.read(folders[name]).variants)}
    assert "bert-base-uncased-inf1" in names
    assert "resnet-resnet50-inf1" not in names
    assert not any(name.endswith("inf2") for name in names)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (torch.tensor([2.0, -4.0]), 0.0),
        (torch.tensor([2.0, -3.0]), 0.25),
        (torch.tensor([2.0, float("nan")]), float("nan")),
        (torch.tensor([2, -4]), float("inf")),
        (torch.tensor([[2.0, -4.0]]), float("inf")),
    ],
)
def test_the_distance_that_is_judged(made: torch.Tensor, error: float) -> None:
    assert str(replays.distance(made, torch.tensor([2.0, -4.0]))) == str(error)
    assert replays.distance(torch.tensor(3), torch.tensor(3)) == 0
    assert replays.distance(torch.tensor(3), torch.tensor(4)) == float("inf")


INFINITE, UNKNOWN = float("inf"), float("nan")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([], 0),
        ([1, -3, 2], 3),
        ([-1, 4], 4),
        ([1, -INFINITE, 2], 2),
        ([UNKNOWN, -2, INFINITE], 2),
        ([UNKNOWN], 0),
    ],
)
def test_the_largest_of_what_is_finite(values: list[float], kind: torch.dtype, largest: float) -> None:
    assert largest_of(torch.tensor(values, dtype=kind)) == largest


def test_the_largest_of_what_is_no_real_number() -> None:
    assert largest_of(torch.tensor([2, -5])) == 5
    assert largest_of(torch.tensor([False, True])) == 1
    assert largest_of(torch.tensor([3 + 4j])) == 5
