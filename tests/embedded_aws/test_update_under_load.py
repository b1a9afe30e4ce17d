"""An endpoint is updated while 25 requests a second come in by boto3; every request is counted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.embedded_aws.artifacts import artifact
from tests.embedded_aws.helpers import Hosting
from tests.embedded_aws.packing import packed
from tests.embedded_aws.running import wait_for

RATE = 25  # requests a second


@dataclass
class Load:
    """What was sent and what came back: (number, when it was sent, answer or the error's text)."""

    sent: int = 0
    answers: list[tuple[int, float, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[tuple[int, float, Any]]:
        return [one for one in self.answers if isinstance(one[2], str)]

    def seen(self, since: float = 0.0, until: float = float("inf")) -> set[str]:
        """Which workers answered what was sent in a span of time."""
        return {answer["mode"] for _, when, answer in self.answers if since <= when < until}


@contextmanager
def load(hosting: Hosting, body: bytes = b"hello", kind: str = "text/plain") -> Iterator[Load]:
    """Requests at RATE, whether or not the earlier ones have been answered, until the block ends."""
    found, end, lock = Load(), threading.Event(), threading.Lock()
    client = boto3.client(
        "sagemaker-runtime", endpoint_url=hosting.aws.url, region_name="us-east-1",
        aws_access_key_id=hosting.aws.access_key, aws_secret_access_key=hosting.aws.secret_key,
        config=Config(retries={"total_max_attempts": 1}, proxies={}, max_pool_connections=32),
    )  # fmt: skip

    def ask(number: int) -> None:
        when = time.monotonic()
        try:
            response = client.invoke_endpoint(EndpointName=hosting.name, Body=body, ContentType=kind)
            answer: Any = json.loads(response["Body"].read())
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            answer = repr(error)
        with lock:
            found.answers.append((number, when, answer))

    def send() -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(32) as pool:
            while not end.is_set():
                pool.submit(ask, found.sent)
                found.sent += 1
                time.sleep(max(0.0, began + found.sent / RATE - time.monotonic()))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield found
    finally:
        end.set()
        sender.join()
    assert sorted(number for number, *_ in found.answers) == list(range(found.sent)), "a request was lost or doubled"


def test_an_update_loses_no_request(hosting: Hosting) -> None:
    hosting.up(hosting.config("one", artifact("one")))
    new = hosting.config("two", artifact("two"))
    with load(hosting) as found:
        time.sleep(1)
        began = time.monotonic()
        described = hosting.update(new)
        settled = time.monotonic()
        time.sleep(1)
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == new
    assert not found.failed, found.failed[:3]
    assert found.sent > RATE
    assert found.seen(until=began) == {"one"}
    assert found.seen(since=settled) == {"two"}


def test_a_request_that_is_inside_during_an_update_is_finished(hosting: Hosting) -> None:
    hosting.up(hosting.config("one", artifact("one")))
    new = hosting.config("two", artifact("two"))
    with load(hosting, b"slow") as found:  # each takes 1.5 s, so that some are inside whenever the workers change
        time.sleep(1)
        hosting.update(new)
    assert not found.failed, found.failed[:3]
    assert found.seen() == {"one", "two"}


@pytest.mark.parametrize(
    ("label", "variant"),
    [
        ("broken", {}),
        pytest.param("silent", {"ContainerStartupHealthCheckTimeoutInSeconds": 60}, marks=pytest.mark.slow),
    ],
)
def test_a_broken_update_is_taken_back_and_the_old_worker_answers_throughout(
    hosting: Hosting, label: str, variant: dict[str, Any]
) -> None:
    old = hosting.config("one", artifact("one"))
    hosting.up(old)
    pid = hosting.invoke()["pid"]
    new = hosting.config(label, artifact(label), **variant)
    with load(hosting) as found:
        time.sleep(1)
        hosting.sagemaker.update_endpoint(EndpointName=hosting.name, EndpointConfigName=new)

        def described() -> dict[str, Any] | None:
            answer = hosting.sagemaker.describe_endpoint(EndpointName=hosting.name)
            return None if answer["EndpointStatus"] == "Updating" else answer

        after = wait_for(described, "the update is over", 120)
        time.sleep(1)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", old)
    assert "did not pass the ping health check" in after["FailureReason"]
    assert not found.failed, found.failed[:3]
    assert found.seen() == {"one"}
    assert {answer["pid"] for *_, answer in found.answers} == {pid}


@pytest.mark.slow
def test_the_native_server_is_updated_and_a_broken_update_taken_back(hosting: Hosting, tmp_path: Path) -> None:
    """The same with the project's own server on a model, and with what it refuses: another torch."""
    hosting.up(hosting.config("one", packed(tmp_path / "one", "one")))
    new = hosting.config("two", packed(tmp_path / "two", "two"))
    broken = hosting.config("three", packed(tmp_path / "three", "three", versions={"torch": "1.0.0"}))
    with load(hosting, b'{"x": [1, 2, 3]}', "application/json") as found:
        time.sleep(1)
        first = hosting.update(new)
        second = hosting.update(broken)
        time.sleep(1)
    assert (first["EndpointConfigName"], second["EndpointConfigName"]) == (new, new)
    assert "torch 1.0.0" in second["FailureReason"]
    assert not found.failed, found.failed[:3]
    assert found.seen() == {"one", "two"}
    assert all(answer["doubled"] == [2, 4, 6] for *_, answer in found.answers)
