"""scale.measured: a target that follows from figures needs these figures, and says how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from endpoint_spec import EndpointSpec, SpecErrors, derive, load
from endpoint_spec.lock import check
from tests.endpoint_spec.projects import SHA, a_lock

HEAD = 'name: depth\nmodel: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'
ROWS = [
    {"n_models": 4, "workers_per_model": 2, "batch_size": 4, "throughput_avg": 50.0},
    {"n_models": 2, "workers_per_model": 1, "batch_size": 8, "throughput_avg": 100.0},
]


def spec_of(tmp_path: Path, scale: str) -> EndpointSpec:
    path = tmp_path / "endpoints" / "depth.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{HEAD}scale: {scale}\n")
    return load(path)


def figures(artifact: str = SHA, instance_type: str = "ml.inf1.2xlarge") -> dict[str, Any]:
    return {"artifact": artifact, "machine": {"instance_type": instance_type}, "recommended": ROWS}


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (None, "the lock has no measured figures"),
        (figures(artifact="0" * 64), "of another artifact"),
        (figures(instance_type="ml.inf1.6xlarge"), "of another instance type"),
    ],
)
def test_without_fitting_figures_one_is_told_how_to_get_them(
    tmp_path: Path, measured: dict[str, Any] | None, said: str
) -> None:
    spec = spec_of(tmp_path, "{measured: true}")
    (problem,) = check(spec, a_lock(spec, measured=measured))
    assert said in problem
    assert "Run on an inf1.2xlarge instance: inferentia measure depth" in problem
    rehearsed = a_lock(spec, rehearsal=True)
    assert check(spec, rehearsed, rehearsal=True) == []
    assert derive.target_value(spec, rehearsed) == pytest.approx(
        2.8
    )  # 4 workers, batch 1: the rule of every other spec


def test_the_smallest_of_several_graphs_decides(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "{measured: true}")
    lock = a_lock(spec, measured=figures())
    assert check(spec, lock) == []
    assert derive.target_value(spec, lock) == pytest.approx(16 * 0.7)
    by_minute = spec_of(tmp_path, "{measured: true, policy: invocations}")
    assert derive.target_value(by_minute, a_lock(by_minute, measured=figures())) == pytest.approx(50 * 60 * 0.7)


def test_a_target_is_written_or_measured(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors, match="is given beside target_value, 3"):
        spec_of(tmp_path, "{measured: true, target_value: 3.0}")
