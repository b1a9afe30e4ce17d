"""What a real server says of itself: /metrics, the lines on its output and CloudWatch's lines tell one story."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inference_code.artifact.manifest import TaskEntry
from tests.inference_code.artifacts import (
    BUCKET,
    LONE,
    Response,
    Server,
    add_graph,
    doubling_artifact,
    encoded,
    finish,
    npy,
)
from tests.inference_code.helpers import wait_for

SMALL, LARGE = "x=4", "x=8"


class Doubling(torch.nn.Module):
    """[batch, n] -> the same, doubled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@dataclass(frozen=True)
class Story:
    """The requests that were sent, by id, and what the server said afterwards."""

    answers: dict[str, Response]
    metrics: dict[str, float]
    lines: list[dict[str, Any]]

    def line(self, request_id: str) -> dict[str, Any]:
        (found,) = (one for one in self.requests() if one["request_id"] == request_id)
        return found

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == "request"]

    def emf(self, name: str, **dimensions: str) -> list[float]:
        """Every value of a metric of CloudWatch, of these dimensions."""
        lines = [line for line in self.lines if "_aws" in line and dimensions.items() <= line.items()]
        return [value for line in lines for value in line.get(name, ())]

    def of(self, name: str, **labels: str) -> float:
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return self.metrics[f"{name}{{{inside}}}" if inside else name]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("records")
    artifact = folder / "artifact"
    graphs = tuple(
        add_graph(artifact, Doubling(), {"x": torch.zeros(batch, n)}, structure=LONE, bucket={"x": n})
        for n in (4, 8)
        for batch in (1, 4)
    )
    finish(artifact, graphs, "tensor", task=TaskEntry("tensor", {"padding": {"x": 0}, "cut": {"output": "x"}}))
    server = Server(artifact, folder / "log")
    sent: dict[str, tuple[bytes, str]] = {
        "three": (npy(np.ones(3, np.float32)), "application/x-npy"),
        "four": (npy(np.ones(4, np.float32)), "application/x-npy"),
        "seven": (npy(np.ones(7, np.float32)), "application/x-npy"),
        "mixed": (json.dumps([{"x": [1, 2]}, {"x": [1] * 8}, {"y": 1}]).encode(), "application/json"),
        "nonsense": (b"nonsense", "application/x-npy"),
    }
    answers = {
        name: server.request(body=body, Content_Type=kind, X_Request_Id=name) for name, (body, kind) in sent.items()
    }
    answers["lost"] = server.request("/elsewhere", X_Request_Id="lost")
    answers["put"] = server.request(body=b"", method="PUT", X_Request_Id="put")
    text = server.request("/metrics").body.decode()
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return Story(answers, {name: float(value) for name, value in samples}, server.lines)


def test_each_request_is_one_line_with_its_id_status_and_size(story: Story) -> None:
    assert {name: answer.status for name, answer in story.answers.items()} == {
        "three": 200, "four": 200, "seven": 200, "mixed": 200, "nonsense": 400, "lost": 404, "put": 405,
    }  # fmt: skip
    assert [line["request_id"] for line in story.requests()] == list(story.answers)
    for name, answer in story.answers.items():
        line = story.line(name)
        assert answer.headers["x-request-id"] == name
        assert (line["status"], line["response_bytes"]) == (answer.status, len(answer.body))
        assert (line["endpoint"], line["answer"]) == ("tiny", answer.headers["content-type"])
        assert abs(line["time"] / 1000 - time.time()) < 600
        assert line["total_ms"] >= 0
        assert ("error" in line) == (answer.status >= 400)
    assert (story.line("lost")["path"], story.line("three").get("path")) == ("/elsewhere", None)


def test_a_line_tells_where_the_time_went_and_what_was_wasted(story: Story) -> None:
    steps = ("preprocess_ms", "queue_ms", "device_ms", "postprocess_ms")
    for name, bucket, items, padding in (
        ("three", SMALL, 1, 1 / 4),
        ("four", SMALL, 1, 0.0),
        ("seven", LARGE, 1, 1 / 8),
        ("mixed", f"{SMALL}+{LARGE}", 3, 1 / 2),
    ):
        line = story.line(name)
        assert (line["bucket"], line["items"], line["padding"]) == (bucket, items, pytest.approx(padding, abs=1e-4))
        assert (line["core"], line["batch_items"]) == ([0], 1)
        assert all(line[step] >= 0 for step in steps)
        # The waits of items in one request overlap, so only lone ones add up.
        assert name == "mixed" or sum(line[step] for step in steps) <= line["total_ms"] + 0.01
    nonsense = story.line("nonsense")
    assert (nonsense["bucket"], nonsense["items"]) == ("none", 1)
    assert json.loads(nonsense["error"])["error"] == "bad_request"


def test_metrics_count_what_the_lines_say(story: Story) -> None:
    for status in (200, 400, 404, 405):
        count = sum(line["status"] == status for line in story.requests())
        assert story.of("endpoint_requests_total", status=str(status)) == count
    assert story.of("endpoint_request_seconds_count") == len(story.requests())
    small, large = {"bucket": SMALL, "core": "0"}, {"bucket": LARGE, "core": "0"}
    for place, items, padding in ((small, 3, 1 / 4 + 0 + 1 / 2), (large, 2, 1 / 8)):
        for name in ("queue_seconds", "device_seconds", "batch_items", "padding_share"):
            assert story.of(f"endpoint_{name}_count", **place) == items
        assert story.of("endpoint_batch_items_sum", **place) == items
        assert story.of("endpoint_padding_share_sum", **place) == pytest.approx(padding)
    for name in ("preprocess", "postprocess"):
        for bucket, count in ((SMALL, 2), (LARGE, 1), (f"{SMALL}+{LARGE}", 1), ("none", 1)):
            assert story.of(f"endpoint_{name}_seconds_count", bucket=bucket) == count
    assert story.of("endpoint_requests_inside") == story.of("endpoint_items_waiting") == 0
    assert story.of("endpoint_clients_gone_total") == story.of("endpoint_log_lines_dropped_total") == 0


def test_cloudwatch_gets_the_same_values_as_the_metrics(story: Story) -> None:
    scales = {
        "QueueTime": ("queue_seconds", 1000), "DeviceTime": ("device_seconds", 1000),
        "BatchSize": ("batch_items", 1), "PaddingWaste": ("padding_share", 100),
    }  # fmt: skip
    for bucket in (SMALL, LARGE):
        for name, (metric, scale) in scales.items():
            values = story.emf(name, Endpoint="tiny", Bucket=bucket)
            assert len(values) == story.of(f"endpoint_{metric}_count", bucket=bucket, core="0")
            total = story.of(f"endpoint_{metric}_sum", bucket=bucket, core="0") * scale
            assert sum(values) == pytest.approx(total, abs=1e-3 * len(values))
        for name, metric in (("PreprocessTime", "preprocess"), ("PostprocessTime", "postprocess")):
            values = story.emf(name, Endpoint="tiny", Bucket=bucket)
            assert sum(values) == pytest.approx(
                story.of(f"endpoint_{metric}_seconds_sum", bucket=bucket) * 1000, abs=1e-3 * len(values)
            )
            assert len(values) == story.of(f"endpoint_{metric}_seconds_count", bucket=bucket)


def test_every_line_is_a_requests_or_cloudwatchs(story: Story) -> None:
    assert all(("_aws" in line) != (line.get("event") == "request") for line in story.lines)


def test_the_aspect_distortion_of_images_is_recorded(depth_server: Server) -> None:
    """The server has one bucket, a square."""
    sent = {"wide": (30, 40), "square": (20, 20), "tall": (40, 20)}
    before = depth_server.request("/metrics").body.decode()
    for name, (height, width) in sent.items():
        picture = encoded(Image.new("RGB", (width, height)))
        assert depth_server.request(body=picture, Content_Type="image/png", X_Request_Id=f"sq-{name}").status == 200
    after = depth_server.request("/metrics").body.decode()
    place = f'{{bucket="image={BUCKET}x{BUCKET}"}}'
    count, total = (
        sample(after, f"{name}{place}") - sample(before, f"{name}{place}")
        for name in (
            "endpoint_aspect_distortion_count",
            "endpoint_aspect_distortion_sum",
        )
    )
    assert (count, total) == (3, pytest.approx(1 / 3 + 0 + 1))
    lines: dict[str, Any] = {}

    def written() -> bool:
        lines.update({line["request_id"]: line for line in list(depth_server.lines) if line.get("event") == "request"})
        return all(f"sq-{name}" in lines for name in sent)

    wait_for(written)
    assert [lines[f"sq-{name}"]["aspect_distortion"] for name in sent] == [0.3333, 0, 1]


def sample(text: str, name: str) -> float:
    """The value of a metric; 0 where it has none yet."""
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == name), 0.0)


USERS = """
import numpy as np
from inference_code.codecs.npy import read_npy
import logging, time
def model_fn(model_dir): return lambda *tensors: tensors
def input_fn(body, content_type): return read_npy(body)
def predict_fn(data, model):
    time.sleep(0.02)
    logging.getLogger("mine").info("seen")
    return data * 2
def output_fn(value, accept): return value.tolist()
"""


def test_a_users_predict_fn_is_timed_and_its_own_lines_carry_the_id(tmp_path: Path) -> None:
    server = Server(doubling_artifact(tmp_path / "a", USERS), tmp_path / "log")
    body = npy(np.ones(3, np.float32))
    with ThreadPoolExecutor(2) as pool:
        for name, answer in [
            (name, pool.submit(server.request, body=body, Content_Type="application/x-npy", X_Request_Id=name))
            for name in ("first", "second")
        ]:
            assert answer.result().status == 200, name
    text = server.request("/metrics").body.decode()
    assert server.stop() == 0
    assert re.search(r"^endpoint_predict_fn_seconds_count 2$", text, re.MULTILINE)
    assert all(line["predict_fn_ms"] >= 20 for line in server.lines if line.get("event") == "request")
    log = server.log.read_text()
    assert "mine first: seen" in log
    assert "mine second: seen" in log
