"""`report`: one page of what is known of a build, and the commands for what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import endpoint_spec as specs
from compile.pipeline.build import build
from compile.pipeline.plan import plan, resolve
from compile.profiling.results import folder
from compile.progress import Silent
from compile.targets import process_runner
from tests.compile.projects import ENTRY, rehearse, run, write_entry
from tests.compile.targets.helpers import in_this_process

STAND_IN = Path(__file__).parents[1] / "targets" / "stand_in"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setattr(process_runner, "watch", in_this_process)


def reported(root: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[str, dict[str, Any]]:
    assert run(monkeypatch, "report", "own", "--root", str(root), *more) == 0
    stem = "own.rehearsal" if "--rehearse" in more else "own"
    made = root / "build/report"
    assert sorted(path.name for path in made.iterdir()) == [f"{stem}.json", f"{stem}.md"]
    return (made / f"{stem}.md").read_text(), json.loads((made / f"{stem}.json").read_text())


def measured(spec: specs.EndpointSpec, artifact: str, *, rehearsal: bool, target: bool) -> None:
    row = {
        "role": "main", "bucket": "x 8", "batch_size": 1, "n_models": 2, "workers_per_model": 1, "pipeline_size": 1,
        "throughput_avg": 100.0, "latency_ms": {"p50": 1.25, "p99": 2.5}, "bimodal": None, "cost_per_1m_inf": 1.5,
    }  # fmt: skip
    machine = {
        "name": "host",
        "processor": "cpu",
        "cpus": 2,
        "instance_type": None,
        "target": target,
        "reason": "no EC2",
    }
    if target:
        machine |= {"instance_type": "ml.inf1.2xlarge", "reason": ""}
    said = {"artifact": artifact, "date": "2026-11-20T00:00:00Z", "machine": machine, "notes": ["a note"]}
    place = folder(spec, rehearsal)
    place.mkdir(parents=True, exist_ok=True)
    (place / "measured.json").write_text(json.dumps({**said, "rows": [row], "recommended": [row]}))


def commands(found: dict[str, Any]) -> list[str]:
    return [item["command"] for item in found["missing"]]


def test_a_rehearsal_says_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = rehearse(write_entry(tmp_path))
    page, found = reported(tmp_path, monkeypatch, "--rehearse")
    assert page.startswith("# own: rehearsal for inf1, nothing of it ran on a chip\n")
    assert "There is no compiler's log of this build to compare with." in page
    assert "Not measured." in page
    assert commands(found) == [
        "inferentia build own (on a machine with the Neuron SDK)",
        "inferentia verify own --rehearse",
        "inferentia measure own (on an inf1.2xlarge instance)",
    ]
    assert "inferentia verify own --rehearse" in " ".join(capsys.readouterr().out.split())
    assert run(monkeypatch, "verify", "own", "--rehearse", "--root", str(tmp_path)) == 0
    measured(result.spec, result.lock.digests.artifact, rehearsal=True, target=False)
    page, found = reported(tmp_path, monkeypatch, "--rehearse")
    assert len(found["missing"]) == 2
    assert "parity: main, x 8, batch 1 | passed" in page
    assert "These are no figures of ml.inf1.2xlarge: no EC2." in page
    assert "| main x 8 | 1 | 2 | 1 | 100.0 | 1.25 | 2.50 | 1.50 | recommended |" in page
    assert "- a note" in page


@pytest.mark.usefixtures("stand_in")
def test_prediction_against_log_parity_and_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_entry(tmp_path, more="job: {}\n")
    result = build(resolve(plan(specs.load(path), rehearse=False), Silent()), Silent())
    page, found = reported(tmp_path, monkeypatch)
    assert page.startswith("# own: made with a stand-in for the Neuron SDK, nothing of it is proven\n")
    assert commands(found)[0] == "inferentia submit own"
    (graph,) = found["graphs"]
    rows = {row["what"]: row for row in graph["comparison"]["rows"]}
    assert rows["operators"]["predicted"] == rows["operators"]["logged"] == 2
    assert "| operators | 2 | 2 | 0 |" in page
    assert "2 of 2 operators (100.00 %), by the compiler's log; 1 subgraph(s), counted." in page
    assert "Compiling took " in page
    assert graph["device"]["output"]["cosine"] > 0.999
    assert found["versions"]["torch-neuron"] in page
    measured(result.spec, result.lock.digests.artifact, rehearsal=False, target=True)
    page, found = reported(tmp_path, monkeypatch)
    assert "Taken on ml.inf1.2xlarge, 2026-11-20T00:00:00Z." in page
    assert not any("measure" in command for command in commands(found))
    measured(result.spec, "0" * 64, rehearsal=False, target=True)
    assert "Not measured." in reported(tmp_path, monkeypatch)[0]


@pytest.mark.usefixtures("stand_in")
def test_the_record_of_another_build_is_not_this_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(resolve(plan(specs.load(write_entry(tmp_path)), rehearse=False), Silent()), Silent())
    record = tmp_path / "build/record/own/main-x_8-batch_1/comparison.json"
    said = json.loads(record.read_text())
    said["rows"][0]["logged"] = 7
    record.write_text(json.dumps(said))
    page, found = reported(tmp_path, monkeypatch)
    assert found["graphs"][0]["comparison"] is None
    assert "There is no compiler's log of this build" in page


def test_a_changed_model_stands_at_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse(write_entry(tmp_path))
    write_entry(tmp_path, ENTRY + "\n# changed\n")
    page, found = reported(tmp_path, monkeypatch, "--rehearse")
    assert found["problems"]
    assert "**The lock of own is stale" in page.split("##")[0]


def test_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_entry(tmp_path)
    assert run(monkeypatch, "report", "own", "--root", str(tmp_path)) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "endpoints/own.lock.json is not there" in said
    assert "inferentia build own" in said
