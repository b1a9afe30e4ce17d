"""What each of several processes gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_code.errors import LoadError
from inference_code.settings import Settings
from inference_code.workers.resources import ranges, shares
from tests.inference_code.artifacts import sums_artifact


def given(folder: Path, count: int, environment: dict[str, str], **changes: object) -> list[dict[str, str]]:
    sums_artifact(folder, **changes)
    return shares(folder, Settings.from_environment(environment), count, environment)


def test_one_process_gets_everything(tmp_path: Path) -> None:
    assert shares(tmp_path, Settings(), 1) == [{}]  # not even the artifact is looked at


def test_shares_add_up_to_the_whole(tmp_path: Path) -> None:
    environment = {"NEURON_RT_NUM_CORES": "16", "ENDPOINT_WORKERS": "8", "ENDPOINT_MAX_QUEUE": "67"}
    environment |= {"ENDPOINT_DECODE_BYTES": "400", "ENDPOINT_TRANSFER_BYTES": "800", "ENDPOINT_MAX_BODIES": "12"}
    found = given(tmp_path, 4, environment | {"ENDPOINT_HOST_THREADS": "24"}, cores_per_copy=2)
    assert [one["NEURON_RT_VISIBLE_CORES"] for one in found] == ["0-3", "4-7", "8-11", "12-15"]
    assert [one["ENDPOINT_MAX_QUEUE"] for one in found] == ["17", "17", "17", "16"]
    for one in found:
        assert (one["NEURON_RT_NUM_CORES"], one["ENDPOINT_WORKERS"], one["ENDPOINT_HOST_THREADS"]) == ("4", "2", "6")
        assert one["OMP_NUM_THREADS"] == "6"
        assert (one["ENDPOINT_DECODE_BYTES"], one["ENDPOINT_TRANSFER_BYTES"]) == ("100", "200")
        assert one["ENDPOINT_MAX_BODIES"] == "3"


def test_what_the_spec_says_of_threads_is_kept(tmp_path: Path) -> None:
    """derive.py counts them by worker, of all processes."""
    assert [one["OMP_NUM_THREADS"] for one in given(tmp_path, 2, {"OMP_NUM_THREADS": "3"})] == ["3", "3"]


@pytest.mark.parametrize(
    ("rehearsal", "environment", "visible"),
    [
        (False, {}, ["0-1", "2-3"]),  # one copy each
        (True, {}, [None, None]),
        (False, {"NEURON_RT_VISIBLE_CORES": "4-7"}, ["4-5", "6-7"]),
        (False, {"NEURON_RT_VISIBLE_CORES": "0, 2,5-6", "NEURON_RT_NUM_CORES": "4"}, ["0,2", "5-6"]),
    ],
)
def test_neuron_cores(tmp_path: Path, rehearsal: bool, environment: dict[str, str], visible: list[str | None]) -> None:
    found = given(tmp_path, 2, environment, cores_per_copy=2, rehearsal=rehearsal)
    assert [one.get("NEURON_RT_VISIBLE_CORES") for one in found] == visible
    assert [one["ENDPOINT_WORKERS"] for one in found] == ["1", "1"]


def test_ranges() -> None:
    assert [ranges(cores) for cores in ([3], [0, 1, 2], [0, 2])] == ["3", "0-2", "0,2"]


def test_a_folder_without_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"not an unpacked model\.tar\.gz"):
        shares(tmp_path, Settings(), 2)
