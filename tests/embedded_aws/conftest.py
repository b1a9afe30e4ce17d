"""One server for all tests of this room; each test uses names of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.embedded_aws.helpers import Hosting, Stacks
from tests.embedded_aws.running import Aws, running


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The server."""
    with running(tmp_path_factory.mktemp("aws"), "--wait-speed", "100", "--limit-speed", "60") as found:
        yield found


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def stacks(aws: Aws) -> Stacks:
    return Stacks(aws)


@pytest.fixture
def outputs() -> Callable[[dict[str, Any]], dict[str, str]]:
    return lambda stack: {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}


@pytest.fixture
def hosting(aws: Aws, name: str) -> Iterator[Hosting]:
    found = Hosting(aws, name)
    yield found
    if any(item["EndpointName"] == name for item in found.sagemaker.list_endpoints()["Endpoints"]):
        found.sagemaker.delete_endpoint(EndpointName=name)
