"""The lock: the same text for the same lock, read back whole, and checked against the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from endpoint_spec import EndpointSpec, digests
from endpoint_spec.lock import Lock, LockError, artifact_path, check, lock_path, read_lock
from tests.endpoint_spec.projects import SHA, SMALL, Loader, a_lock

FULL_FIELDS: dict[str, Any] = {
    "previous": {"key": f"models/depth/{'a' * 64}/model.tar.gz", "bytes": 5},
    "measured": {"instance_type": "ml.inf1.2xlarge", "p50_ms": 12.5},
    "sample": {
        "request": {"content_type": "image/png", "accept": "application/x-npy", "body": "AAAA"},
        "answer": {
            "content_type": "application/x-npy",
            "shape": [518, 518],
            "dtype": "float32",
            "positions": [0, 5],
            "values": [0.25, 1.5e-7],
            "tolerance": 1e-5,
        },
    },
}


@pytest.fixture
def spec(read: Loader) -> EndpointSpec:
    return read(SMALL + "compile: {batch_sizes: [1, 4]}\n")


@pytest.mark.parametrize("fields", [{}, FULL_FIELDS, {"rehearsal": True, "stand_in": True}])
def test_round_trip(fields: dict[str, Any], spec: EndpointSpec, tmp_path: Path) -> None:
    lock = a_lock(spec, **fields)
    path = tmp_path / "depth.lock.json"
    path.write_text(lock.dump(), encoding="utf-8")
    again = read_lock(path)
    assert again == lock
    assert again.dump() == lock.dump()


def test_the_text_is_canonical(spec: EndpointSpec) -> None:
    lock = a_lock(spec, **FULL_FIELDS)
    text = lock.dump()
    assert text.endswith("}\n")
    assert json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n" == text
    shuffled = Lock.model_validate(dict(reversed(json.loads(text).items())))
    assert shuffled.dump() == text
    assert '"values"' in text
    assert '"json"' in text
    assert "json_value" not in text


def test_a_json_answer(spec: EndpointSpec, tmp_path: Path) -> None:
    answer = {"content_type": "application/json", "json": {"label": "cat", "score": 0.5}, "tolerance": 0.01}
    lock = a_lock(spec, sample=FULL_FIELDS["sample"] | {"answer": answer})
    (tmp_path / "x").write_text(lock.dump())
    found = read_lock(tmp_path / "x").sample
    assert found is not None
    assert found.answer.json_value == {"label": "cat", "score": 0.5}


def test_digest_of_an_artifact_is_in_its_key(spec: EndpointSpec) -> None:
    assert a_lock(spec).artifact.sha256 == SHA


def changed(lock: Lock, **fields: Any) -> str:
    return json.dumps(json.loads(lock.dump()) | fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2}, "has the lock format 2, but this version reads 1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"graphs": []}, "graphs: List should have at least 1 item"),
        ({"target": "gpu"}, "target: Input should be 'inf1', 'inf2' or 'cpu'"),
        ({"digests": {"build": "x", "handler": SHA, "artifact": SHA}}, r"digests\.build: String should match"),
        ({"artifact": {"key": f"models/other/{SHA}/model.tar.gz", "bytes": 1}}, r"artifact\.key does not name depth"),
        ({"artifact": {"key": "models/depth/model.tar.gz", "bytes": 1}}, r"artifact\.key: String should match"),
        ({"parity": {"inputs": 5, "error": -1, "bound": 1, "maximum": 1}}, r"parity\.error: Input should be greater"),
    ],
)
def test_a_lock_that_does_not_fit(fields: dict[str, Any], words: str, spec: EndpointSpec, tmp_path: Path) -> None:
    path = tmp_path / "depth.lock.json"
    path.write_text(changed(a_lock(spec), **fields))
    with pytest.raises(LockError, match=rf"depth\.lock\.json.*{words}.*Build again"):
        read_lock(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"<<<<<<< HEAD\n{}", b'{"format": 1, "format": 1}', b"\xff\xfe", b"[" * 100_000],
)
def test_a_file_that_is_no_lock(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.lock.json").write_bytes(content)
    with pytest.raises(LockError) as caught:
        read_lock(tmp_path / "x.lock.json")
    assert "\n" not in str(caught.value)


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"none\.json cannot be read: No such file"):
        read_lock(tmp_path / "none.json")


def test_nan_is_no_parity(spec: EndpointSpec, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="finite"):
        a_lock(spec, parity={"inputs": 5, "error": float("nan"), "bound": 1, "maximum": 1})
    (tmp_path / "x").write_text(a_lock(spec).dump().replace("1e-07", "NaN"))
    with pytest.raises(LockError, match=r"parity\.error"):
        read_lock(tmp_path / "x")


def test_places(spec: EndpointSpec, project: Path) -> None:
    assert lock_path(spec) == project / "endpoints/depth.lock.json"
    assert lock_path(spec, rehearsal=True) == project / "build/rehearsal/depth.lock.json"
    assert artifact_path(spec) == project / "build/artifacts/depth/model.tar.gz"
    assert artifact_path(spec, rehearsal=True) == project / "build/rehearsal/depth/model.tar.gz"


def test_a_lock_that_fits(spec: EndpointSpec) -> None:
    assert check(spec, a_lock(spec)) == []
    assert check(spec, a_lock(spec, rehearsal=True), rehearsal=True) == []


def test_sections_that_need_no_build(spec: EndpointSpec, read: Loader) -> None:
    lock = a_lock(spec)
    more = "compile: {batch_sizes: [1, 4]}\nalarms: {p99_latency: 2s}\nscale: {max: 5}\nserve: {cores_per_worker: 2}\n"
    assert check(read(SMALL + more), lock) == []


def test_missing(spec: EndpointSpec) -> None:
    (problem,) = check(spec, None)
    assert problem.startswith("endpoints/depth.lock.json is missing")
    assert problem.endswith("Run: inferentia build depth")
    (problem,) = check(spec, None, rehearsal=True)
    assert problem.startswith("build/rehearsal/depth.lock.json is missing")
    assert problem.endswith("Run: inferentia build depth --rehearse")


def test_stale(spec: EndpointSpec, read: Loader) -> None:
    lock = a_lock(spec)
    (problem,) = check(read(SMALL + "compile: {batch_sizes: [1, 8]}\n"), lock)
    assert "is stale" in problem
    assert lock.digests.build[:12] in problem
    assert problem.endswith("Run: inferentia build depth")


def test_handler_changed(read: Loader, project: Path) -> None:
    spec = read(SMALL + "serve: {handler: models/invoices_handler.py}\n")
    lock = a_lock(spec)
    assert check(spec, lock) == []
    (project / "models/shared.py").write_text("def item(request):\n    return 1\n")
    (problem,) = check(spec, lock)
    assert "handler code of depth changed" in problem
    assert problem.endswith("Run: inferentia package depth")


def test_another_endpoints_lock(spec: EndpointSpec) -> None:
    (problem,) = check(spec, a_lock(spec).model_copy(update={"name": "other"}))
    assert problem.startswith("The lock is of other, not of depth")


@pytest.mark.parametrize("fields", [{"rehearsal": True}, {"stand_in": True}])
def test_not_for_aws(fields: dict[str, Any], spec: EndpointSpec) -> None:
    (problem,) = check(spec, a_lock(spec, **fields))
    assert "must not be deployed to AWS" in problem
    assert check(spec, a_lock(spec, **fields), rehearsal=True) == []


def test_an_artifact_too_large_for_the_host(spec: EndpointSpec, read: Loader) -> None:
    lock = a_lock(spec, size=3 * 2**30)
    (problem,) = check(read(SMALL + "compile: {batch_sizes: [1, 4]}\nserve: {server: torchserve}\n"), lock)
    assert "endpoints/depth.yaml: serve.cores_per_worker: 1 makes 4 workers" in problem
    assert "16 GiB of ml.inf1.2xlarge" in problem
    native = read(SMALL + "compile: {batch_sizes: [1, 4]}\n")
    assert check(native, lock) == []
    several = read(SMALL + "compile: {batch_sizes: [1, 4]}\nserve: {server: native, processes: 4}\n")
    (problem,) = check(several, lock)
    assert "endpoints/depth.yaml: serve.processes: 4 makes 4 processes of about" in problem
    assert problem.endswith("Write fewer processes, or choose a larger instance_type.")


def test_a_rehearsal_runs_the_sources_that_it_was_built_with(spec: EndpointSpec) -> None:
    same = a_lock(spec, rehearsal=True).model_copy(update={"image_sources": digests.image_sources()})
    assert check(spec, same, rehearsal=True) == []
    (problem,) = check(spec, same.model_copy(update={"image_sources": "0" * 64}), rehearsal=True)
    assert problem == "images/ changed after the rehearsal of depth was built. Run: inferentia build depth --rehearse"


def test_more_processes_need_no_new_build(read: Loader) -> None:
    lock = a_lock(read(SMALL + "serve: {server: native}\n"))
    assert check(read(SMALL + "serve: {server: native, processes: 2}\n"), lock) == []
