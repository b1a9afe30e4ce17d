"""`measure`: what is counted, where the figures go, and what is made of them. Nothing here asserts a time."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

import endpoint_spec as specs
from compile.errors import CompileError
from compile.packaging import artifact
from compile.profiling import benchmark
from compile.profiling.benchmark import Report, Row, Settings, cost_per_million, machine_for, mark_pareto, recommend
from compile.profiling.latency import modes, percentiles
from compile.profiling.results import can_plot, keep
from compile.progress import Silent
from endpoint_spec.lock import artifact_key, read_lock
from tests.compile.projects import ENTRY, rehearse, run, write_entry

ROW = Row("main", "x 8", 1, 1, 1, 1, 100, 1.0, 100.0, 1.0, 10.0, 1.0, {"p99": 12.0}, None, None)


def row(throughput: float, p99: float, role: str = "main") -> Row:
    return dataclasses.replace(ROW, throughput_avg=throughput, latency_ms={"p99": p99}, role=role)


def test_percentiles_from_the_least_to_the_most() -> None:
    found = percentiles([float(n) for n in range(101)])
    assert found == pytest.approx(
        {"p0": 0, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9, "p100": 100}
    )  # fmt: skip


def test_two_groups_of_latencies_are_flagged() -> None:
    draw = random.Random(1)
    fast, slow = [draw.gauss(10, 0.3) for _ in range(700)], [draw.gauss(20, 0.5) for _ in range(300)]
    found = modes(fast + slow)
    assert found is not None
    assert found.low_ms == pytest.approx(10, rel=0.05)
    assert found.high_ms == pytest.approx(20, rel=0.05)
    assert found.share_high == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_one_group_is_not_flagged(seed: int) -> None:
    draw = random.Random(seed)
    assert modes([draw.gauss(10, 1) for _ in range(1000)]) is None
    assert modes([draw.lognormvariate(1, 0.4) for _ in range(1000)]) is None
    assert modes([10.0] * 100) is None
    assert modes([1.0] * 10 + [9.0] * 10) is None  # too few to say


def test_cost_per_million_is_reckoned_as_neuronperf_does() -> None:
    """Published: BERT-base on inf1.xlarge, 1180.7 inferences a second at 0.228 $/h."""
    assert cost_per_million(1180.7, 0.228) == pytest.approx(0.0536, abs=0.0001)


def test_pareto_and_the_recommended_configuration() -> None:
    rows = [row(100, 5), row(200, 9), row(150, 10), row(300, 40), row(10, 1, "step")]
    marked = list(mark_pareto(rows))
    assert [r.pareto for r in marked] == [True, True, False, True, True]
    chosen, notes = recommend(marked, 20.0)
    assert [(r.role, r.throughput_avg) for r in chosen] == [("main", 200), ("step", 10)]
    assert notes == ()
    chosen, notes = recommend(marked[:4], 2.0)
    assert chosen[0].p99 == 5
    assert "no configuration has a p99 within alarms.p99_latency (2 ms)" in notes[0]


def measured(root: Path, settings: Settings) -> tuple[Report, bool]:
    path = write_entry(root, more="compile: {batch_sizes: [1, 4]}\n")
    spec = rehearse(path).spec
    built = artifact.find(spec, rehearsal=True)
    with artifact.unpacked(built) as files:
        report = benchmark.measure(spec, built.lock, files.folder, files.manifest, settings, Silent())
    return report, keep(spec, built.lock, report).locked


def test_every_configuration_of_a_rehearsal_is_measured_and_stays_in_build(tmp_path: Path) -> None:
    report, locked = measured(tmp_path, Settings(n_models=(1, 2), workers_per_model=(1, 2), seconds=0.1))
    found = [(r.batch_size, r.n_models, r.workers_per_model) for r in report.rows]
    assert found == [(b, n, w) for b in (1, 4) for n in (1, 2) for w in (1, 2)]
    for one in report.rows:
        assert one.calls > 0
        assert one.throughput_avg == pytest.approx(one.calls * one.batch_size / one.seconds, rel=0.05)
        levels = list(one.latency_ms.values())
        assert levels == sorted(levels)
        assert one.latency_ms["p0"] <= one.latency_ms_avg <= one.latency_ms["p100"]
        assert one.cost_per_1m_inf is None  # this machine's speed and another one's price are no cost
    assert not locked
    assert read_lock(tmp_path / "build" / "rehearsal" / "own.lock.json").measured is None
    place = tmp_path / "build" / "measured" / "own" / "rehearsal"
    kept = json.loads((place / "measured.json").read_text())
    assert kept["machine"]["name"] == report.machine.name
    assert kept["machine"]["reason"] == "it is a rehearsal"
    assert len(kept["recommended"]) == 1
    if can_plot():
        assert (place / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_a_price_that_is_given_makes_a_cost(tmp_path: Path) -> None:
    settings = Settings(
        batch_sizes=(4,), n_models=(1,), workers_per_model=(1,), seconds=0.1, price_per_hour=0.5
    )  # fmt: skip
    report, _ = measured(tmp_path, settings)
    (only,) = report.rows
    assert only.cost_per_1m_inf == pytest.approx(cost_per_million(only.throughput_avg, 0.5))
    with pytest.raises(CompileError, match="there are 1, 4"):
        measured(tmp_path, Settings(batch_sizes=(3,)))


def test_figures_enter_the_lock_only_from_the_target_instance_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = rehearse(write_entry(tmp_path)).spec
    rehearsed = read_lock(tmp_path / "build" / "rehearsal" / "own.lock.json")
    digest = rehearsed.digests.artifact
    real = rehearsed.model_copy(update={"rehearsal": False})
    product = tmp_path / "product_name"
    product.write_text("inf1.2xlarge\n")
    monkeypatch.setattr(benchmark, "has_device", lambda: True)
    machine = machine_for(spec, real, product)
    assert (machine.target, machine.instance_type, machine.reason) == (True, "ml.inf1.2xlarge", "")
    report = Report("own", digest, "2026-01-01T00:00:00Z", machine, None, (ROW,), (ROW,))
    assert keep(spec, real, report).locked
    locked = read_lock(tmp_path / "endpoints" / "own.lock.json")
    assert locked.measured == json.loads(json.dumps(dataclasses.asdict(report)))
    assert locked.artifact.key == artifact_key("own", digest)
    assert not machine_for(spec, rehearsed, product).target
    assert not machine_for(spec, real.model_copy(update={"stand_in": True}), product).target
    product.write_text("inf1.6xlarge\n")
    assert "this machine is ml.inf1.6xlarge" in machine_for(spec, real, product).reason
    product.write_text("inf1.2xlarge\n")
    monkeypatch.setattr(benchmark, "has_device", lambda: False)
    assert machine_for(spec, real, product).reason == "there is no NeuronCore"
    assert machine_for(spec, real, tmp_path / "nowhere").instance_type is None


def test_a_graph_that_fails_is_told(tmp_path: Path) -> None:
    class Broken:
        def __call__(self, *_: object) -> None:
            raise RuntimeError("stack\nthe device is gone")

    with pytest.raises(CompileError, match="the device is gone"):
        benchmark._load([Broken(), Broken()], 2, (), Settings(seconds=0.1))


def test_measure_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse(write_entry(tmp_path, ENTRY))
    options = ("--seconds", "0.1", "--n-models", "1", "--workers-per-model", "1", "--root", str(tmp_path))
    assert run(monkeypatch, "measure", "own", "--rehearse", "--json", *options) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["in_lock"]
    assert len(said["rows"]) == 1
    assert run(monkeypatch, "measure", "own", "--rehearse", *options) == 0
    shown = capsys.readouterr()
    assert "recommended" in shown.out
    assert "it is a rehearsal" in shown.err
    assert run(monkeypatch, "measure", "own", "--rehearse", "--n-models", "two", "--root", str(tmp_path)) == 2
    assert run(monkeypatch, "measure", "own", "--root", str(tmp_path)) == 1
    assert "inferentia build own" in capsys.readouterr().err


def test_without_a_chip_what_is_compiled_is_not_measured(tmp_path: Path) -> None:
    spec = rehearse(write_entry(tmp_path)).spec
    built = artifact.find(spec, rehearsal=True)
    real = built.lock.model_copy(update={"rehearsal": False})

    class Nowhere:
        runs_here = False

    with pytest.MonkeyPatch.context() as patch, artifact.unpacked(built) as files:
        patch.setattr(benchmark, "resolve", lambda *_: Nowhere())
        with pytest.raises(CompileError, match="measure own --rehearse"):
            benchmark.measure(specs.load(spec.path), real, files.folder, files.manifest, Settings(), Silent())


def test_a_missing_plot_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse(write_entry(tmp_path))
    monkeypatch.setattr("compile.profiling.results.can_plot", lambda: False)
    options = ("--seconds", "0.1", "--n-models", "1", "--workers-per-model", "1", "--root", str(tmp_path))
    assert run(monkeypatch, "measure", "own", "--rehearse", *options) == 0
    assert "matplotlib is not installed here" in " ".join(capsys.readouterr().err.split())
