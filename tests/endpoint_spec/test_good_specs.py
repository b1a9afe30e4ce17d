"""Specs that are right, their defaults, and how they are written back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import endpoint_spec as specs
from endpoint_spec import EndpointSpec, FileWeights, HubWeights, RandomWeights, S3Weights, SpecErrors, load, load_all
from endpoint_spec.weights import parse_weights
from tests.endpoint_spec.projects import FULL, SHA, SMALL, Loader

ROOT = Path(__file__).resolve().parents[2]
MODEL = 'model: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'


def test_the_small_one(read: Loader) -> None:
    spec = read(SMALL)
    assert spec.model.weights == HubWeights(id="depth-anything/Depth-Anything-V2-Small-hf")
    assert (spec.model.family, spec.model.variant, spec.model.entry) == ("depth_anything_v2", "vits", None)
    assert (spec.compile.target, spec.compile.buckets, spec.compile.batch_sizes) == ("inf1", None, (1,))
    assert (spec.serve.server, spec.serve.instance_type) == ("native", "ml.inf1.2xlarge")
    assert (spec.scale.min, spec.scale.max, spec.scale.policy, spec.scale.target_value) == (1, 2, "concurrency", None)
    assert (spec.rollout.strategy, spec.alarms.notify, spec.tags) == ("all-at-once", None, {})


def test_the_one_that_says_everything(read: Loader, project: Path) -> None:
    spec = read(FULL, "invoices")
    assert spec.path == project / "endpoints/invoices.yaml"
    assert spec.root == project
    assert spec.model.weights == FileWeights(path="weights/invoices.safetensors", sha256=SHA)
    assert spec.model.entry == "models/invoices.py:build"
    assert spec.compile.buckets == ({"image": [224, 224]}, {"image": [448, 448]})
    assert spec.compile.batch_sizes == (1, 4)
    assert spec.compile.timeout == timedelta(minutes=45)
    assert spec.compile.accept.min_supported == 1.0
    assert spec.compile.accept.lowering_tolerance == 1e-5
    assert spec.compile.accept.device_tolerance == {"cosine": 0.999}
    assert spec.serve.max_batch_delay == timedelta(milliseconds=5)
    assert (spec.serve.limits.pixels, spec.serve.limits.items) == (40_000_000, 16)
    assert spec.scale.target_value == 3.0
    assert spec.alarms.p99_latency == timedelta(milliseconds=250)
    assert spec.alarms.error_rate == 0.01
    assert spec.alarms.notify == ("arn:aws:sns:us-east-1:123456789012:alarms",)
    assert spec.tags == {"team": "documents"}


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_written_and_read_back(text: str, read: Loader) -> None:
    spec = read(text, "depth" if text is SMALL else "invoices")
    again = EndpointSpec.model_validate(spec.model_dump(mode="json")).located(spec.path, spec.root)
    assert again == spec


def test_a_spec_cannot_be_changed(read: Loader) -> None:
    spec = read(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


@pytest.mark.parametrize(
    ("written", "weights"),
    [
        ('"random:7"', RandomWeights(seed=7)),
        ("random:7", RandomWeights(seed=7)),
        ("hub:a/b", HubWeights(id="a/b")),
        ("hub:a/b@v1.0", HubWeights(id="a/b", revision="v1.0")),
        ("s3://bucket/a/b.safetensors", S3Weights(uri="s3://bucket/a/b.safetensors")),
        (f"{{s3: s3://bucket/a.pth, sha256: {SHA}}}", S3Weights(uri="s3://bucket/a.pth", sha256=SHA)),
        ("file:weights/invoices.safetensors", FileWeights(path="weights/invoices.safetensors")),
        ("{file: weights/invoices.safetensors}", FileWeights(path="weights/invoices.safetensors")),
        (
            "{file: weights/invoices.safetensors, key: ema, prefix: module.}",
            FileWeights(path="weights/invoices.safetensors", key="ema", prefix="module."),
        ),
        (
            f"{{s3: s3://bucket/a.ckpt, sha256: {SHA}, prefix: net.}}",
            S3Weights(uri="s3://bucket/a.ckpt", sha256=SHA, prefix="net."),
        ),
        (
            "{file: weights/invoices.safetensors, license: apache-2.0}",
            FileWeights(path="weights/invoices.safetensors", license="apache-2.0"),
        ),
    ],
)
def test_sources_of_weights(written: str, weights: object, read: Loader) -> None:
    spec = read(f"name: depth\nmodel:\n  family: depth_anything_v2\n  weights: {written}\n")
    assert spec.model.weights == weights
    assert parse_weights(spec.model.model_dump(mode="json")["weights"]) == weights


def test_defaults_that_follow_another_key(read: Loader) -> None:
    inf2 = read("name: depth\n" + MODEL + "compile: {target: inf2}\n")
    assert inf2.serve.instance_type == "ml.inf2.xlarge"
    piped = read("name: depth\n" + MODEL + "compile: {pipeline_cores: 2}\n")
    assert piped.serve.cores_per_worker == 2


@pytest.mark.parametrize(
    "more",
    [
        "compile: {buckets: [{tokens: 128}, {tokens: 512}]}",
        "compile: {fast_math: fp32-cast-matmult no-fast-relayout}",
        "compile: {fast_math: none}",
        "compile: {pipeline_cores: 2}\nserve: {cores_per_worker: 4}",
        "compile: {target: inf2}\nrollout: {strategy: canary}\nscale: {min: 2, initial: 2}",
        "compile: {target: inf2}\nserve: {instance_type: ml.inf2.48xlarge, cores_per_worker: 24}",
        "serve: {instance_type: ml.inf1.24xlarge, server: native}",
        "serve: {server: native, processes: 4}",
        "compile: {pipeline_cores: 2}\nserve: {server: native, processes: 2}",
        "serve: {server: torchserve, processes: 1}",
        "serve: {handler: models/invoices_handler.py, max_batch_delay: 0ms}",
        "serve: {mode: real-time, limits: {pixels: 1.5M}}",
        "scale: {min: 4, max: 4}",
        "scale: {policy: invocations, target_value: 1200}",
        "alarms: {notify: [on-call@example.org, 'arn:aws:sns:eu-west-1:123456789012:x']}",
        "alarms: {p99_latency: 59.5s, error_rate: 0%}",
        "tags: {team: 'a b', 'cost/centre': '7'}",
        "job: {where: processing}\ntags: {cost centre: x}",
        "tags: {switch: on, time: 1:30, day: 2026-11-20, hex: 0x10}",
    ],
)
def test_what_may_be_written(more: str, read: Loader) -> None:
    read("name: depth\n" + MODEL + more + "\n")


def test_an_entry_may_name_dimensions_of_its_own(read: Loader) -> None:
    text = "name: depth\nmodel: {entry: 'models/invoices.py:build', weights: random:0, options: {a: [1, {b: null}]}}\n"
    spec = read(text + "compile: {buckets: [{samples: 16000, image: [8, 8]}]}\n")
    assert spec.compile.buckets == ({"samples": 16000, "image": [8, 8]},)
    assert spec.model.options == {"a": [1, {"b": None}]}


def test_four_functions_make_a_handler(read: Loader, project: Path) -> None:
    (project / "models/four.py").write_text(
        "from shared import input_fn, output_fn\n\n\ndef model_fn(model_dir):\n    ...\n\n\npredict_fn = print\n"
    )
    assert read("name: depth\n" + MODEL + "serve: {handler: models/four.py}\n").serve.handler == "models/four.py"


def test_utf8_with_a_mark_and_windows_lines(project: Path) -> None:
    path = project / "endpoints/depth.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ("name: depth\n" + MODEL + "tags: {ort: Köln}\n").replace("\n", "\r\n").encode())
    assert load(path).tags == {"ort": "Köln"}


def test_load_all(read: Loader, project: Path) -> None:
    read(SMALL)
    read(FULL, "invoices")
    assert list(load_all(project)) == ["depth", "invoices"]
    for name in ("a", "b"):
        (project / f"endpoints/{name}.yaml").write_text(f"name: {name}\n")
    with pytest.raises(SpecErrors) as caught:
        load_all(project)
    assert [error.file for error in caught.value.errors] == ["endpoints/a.yaml", "endpoints/b.yaml"]


def test_load_all_outside_a_project(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors, match=r"holds no endpoints/ folder\. Run from the project root"):
        load_all(tmp_path)


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("zoo/*.yaml")), *sorted(ROOT.glob("endpoints/*.yaml"))], ids=lambda p: p.stem
)
def test_the_specs_of_the_project(path: Path) -> None:
    try:
        assert load(path).name == path.stem
    except SpecErrors as caught:
        (error,) = caught.errors  # trained weights, which no clone has
        assert error.remedy == f"Get it: inferentia weights {path.stem}"


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("build/weights/minilm/model.safetensors", "Get it: inferentia weights minilm"),
        ("build/weights/mine/model.safetensors", "Put the file at build/weights/mine/model.safetensors"),
        ("minilm/model.safetensors", "Put the file at minilm/model.safetensors"),
    ],
)
def test_weights_that_are_not_there_name_what_gets_them(tmp_path: Path, path: str, remedy: str) -> None:
    (tmp_path / "endpoints").mkdir()
    spec = tmp_path / "endpoints" / "one.yaml"
    spec.write_text(f"name: one\nmodel: {{family: resnet, weights: {{file: {path}}}}}\n")
    with pytest.raises(SpecErrors) as caught:
        load(spec)
    (error,) = caught.value.errors
    assert error.remedy.startswith(remedy)


def test_public_names() -> None:
    for name in specs.__all__:
        assert hasattr(specs, name)
