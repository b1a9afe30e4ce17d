"""What the serving benchmark makes of its measurements; nothing is measured here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tests.inference_code import artifacts

pytest.importorskip("psutil", reason="the benchmark runs in the project's own environment")
serving = pytest.importorskip("benchmarks.serving")

WRK = """Running 2s test @ http://127.0.0.1:1/invocations
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    24.06ms   14.57ms 140.27ms   85.71%
  Latency Distribution
     50%   950.00us
     75%   25.97ms
     90%   37.10ms
     99%    1.40s\x20
  1252 requests in 2.02s, 213.00KB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:    619.35
Transfer/sec:    105.47KB
"""


def result(peer: str, case: str, connections: int, rate: float = 100.0, **changes: Any) -> Any:
    values = {"p50": 1.0, "p99": 2.0, "errors": 0, "processor_ms": 1.0, "idle_memory": 100.0, "start_seconds": 1.0}
    return serving.Result(peer, case, connections, rate, **(values | changes))


def test_wrks_report_is_read_with_its_units_and_errors() -> None:
    assert serving.parse_wrk(WRK) == pytest.approx((1252, 619.35, 0.95, 1400.0, 10))


def test_the_median_of_the_rounds_counts_and_no_error_is_forgotten() -> None:
    rounds = [result("native", "npy", 1, rate, errors=errors) for rate, errors in ((100, 0), (300, 2), (200, 1))]
    (found,) = serving.median(rounds)
    assert (found.requests_per_second, found.errors) == (200, 3)


def test_goals_are_ratios_and_only_of_what_was_measured() -> None:
    results = [
        result("native", "npy", 16, 390, idle_memory=49),
        result("torchserve", "npy", 16, 100, idle_memory=100),
        result("native", "accelerator", 16, 780),
        result("native", "npy", 1, p50=1.1),
        result("plain", "npy", 1, p50=1.0),
    ]
    found = {what: (round(value, 3), reached) for what, value, _, reached in serving.goals(results)}
    assert found == {
        "npy, 16 connections: requests/s against TorchServe's": (3.9, False),
        "npy, lone request: p50 against plain Starlette's": (1.1, False),
        "npy: idle memory against TorchServe's": (0.49, True),
        "accelerator, 16 connections: share of the batch-limited maximum": (0.975, True),
    }


def test_two_processes_are_held_to_the_same_goals() -> None:
    results = [
        result("native", "npy", 16, 390, idle_memory=49),
        result("native2", "npy", 16, 410, idle_memory=90),
        result("torchserve", "npy", 16, 100, idle_memory=100),
    ]
    found = {what: (round(value, 3), reached) for what, value, _, reached in serving.goals(results)}
    assert found == {
        "npy, 16 connections: requests/s against TorchServe's": (3.9, False),
        "npy: idle memory against TorchServe's": (0.49, True),
        "npy, 16 connections, 2 processes: requests/s against TorchServe's": (4.1, True),
        "npy, 2 processes: idle memory against TorchServe's": (0.9, False),
    }
    assert "native2 is the native server with two processes." in serving.markdown(results, "wrk", {}, 0.1)


def test_a_device_of_one_core_is_not_given_to_two_processes(tmp_path: Path) -> None:
    case = serving.Case("accelerator", tmp_path, tmp_path / "body", "application/x-npy", accelerator=True)
    with pytest.raises(serving.SkippedError, match="one core"):
        serving.PEERS["native2"](case, 1, tmp_path / "log")


def test_a_peer_is_left_out_only_where_it_does_not_suit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(peer: str, case: Any, *_: Any) -> list[Any]:
        if (peer, case.name) == ("native2", "accelerator"):
            raise serving.SkippedError("one core")
        if peer == "triton":
            raise serving.MissingPeerError("not on this machine")
        return [result(peer, case.name, 1)]

    names = ["npy", "accelerator"]
    cases = {one: serving.Case(one, tmp_path, tmp_path / "body", "a/b", accelerator=False) for one in names}
    monkeypatch.setattr(serving, "HOME", tmp_path)
    monkeypatch.setattr(serving, "cases", lambda _: cases)
    monkeypatch.setattr(serving, "measure", measure)
    peers = ["triton", "native", "native2"]
    options = argparse.Namespace(artifact=None, rounds=2, cases=names, peers=peers, connections=[1], seconds=1.0)
    results, skipped = serving.run(options, None)
    measured = {(one.peer, one.case) for one in results}
    assert measured == {("native", "npy"), ("native2", "npy"), ("native", "accelerator")}
    assert skipped == {"triton": "not on this machine", "native2, accelerator": "one core"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--connections", "1,0"], "'0' is no whole number from 1 on"),
        (["--connections", "x"], "'x' is no whole number from 1 on"),
        (["--seconds", "nan"], "'nan' is no number above 0"),
        (["--minutes", "-4"], "'-4' is no number above 0"),
        (["--rounds", "0"], "'0' is no whole number from 1 on"),
        (["--peers", "native,nobody"], "there is no nobody"),
        (["--cases", "own"], "there is no own"),
        (["--payload", __file__], "--artifact needs --payload"),
        (["--artifact", __file__, "--payload", __file__], "neither a folder nor a model.tar.gz"),
        (["--artifact", ".", "--payload", "nowhere.jpg=image/jpeg"], "there is no file nowhere.jpg"),
    ],
)
def test_wrong_use_ends_before_anything_is_waited_for(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        serving.main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


class Idle:
    """A peer that is running, and does nothing."""

    seconds = 1.0

    def processor(self) -> float:
        return 0.0


def test_nothing_is_measured_before_the_last_load_was_worked_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = serving.Case("npy", tmp_path, tmp_path / "body", "a/b", accelerator=False)
    done: list[str] = []
    monkeypatch.setattr(serving, "settle", lambda *_: done.append("settle"))

    def load(*_: Any) -> tuple[int, float, float, float, int]:
        done.append("load")
        return 10 if len(done) == 2 else 0, 10.0, 1.0, 2.0, 0

    found = serving.observe("plain", case, Idle(), 100.0, 1, 1.0, load)
    assert (done, found.requests_per_second) == (["settle", "load"], 10.0)
    with pytest.raises(serving.SkippedError, match="no answer in 1 s at 1 connections"):
        serving.observe("plain", case, Idle(), 100.0, 1, 1.0, load)


def test_a_payloads_type_is_what_stands_behind_it(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.jpg"
    odd.write_bytes(b"")
    assert serving.payload_file(str(odd)) == (odd, "")
    assert serving.payload_file(f"{odd}=image/jpeg") == (odd, "image/jpeg")
    assert serving.payload_file("photo.jpg") == (Path("photo.jpg"), "")


def test_the_document_has_the_place_for_the_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    text = serving.DOCUMENT.read_text()
    assert text.count(serving.BEGIN) == text.count(serving.END) == 1
    copy = tmp_path / "benchmarks.md"
    copy.write_text(text)
    monkeypatch.setattr(serving, "DOCUMENT", copy)
    monkeypatch.setattr(serving, "plot", lambda *_: None)
    serving.write_document("THE TABLE", [])
    serving.write_document("THE NEXT", [])
    assert "THE NEXT" in copy.read_text()
    assert "THE TABLE" not in copy.read_text()


def test_figures_of_a_busy_machine_are_never_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serving.main(["--busy", "--write"])
    assert caught.value.code == 2
    assert "not busy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "cpu", "rehearsal": False}, "an artifact of the cpu target"),
        ({"target": "inf1", "rehearsal": True}, "a rehearsal of inf1"),
    ],
)
def test_figures_of_an_artifact_say_what_it_is(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = artifacts.sums_artifact(tmp_path, **changes)
    note = serving.said_of(folder)
    assert note == f"own is {words}, served by this processor: none of its figures are Inferentia's."
    assert note in serving.markdown([result("image", "own", 1)], "wrk", {}, 0.0, note)
