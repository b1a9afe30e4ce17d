"""boto3 clients that talk to this very server, with the user's key of it."""

from __future__ import annotations

import functools
import threading
from typing import Any

import boto3
import botocore.session
from botocore.config import Config


@functools.cache
def service_model(service: str) -> Any:
    """botocore's model of a service."""
    return botocore.session.get_session().get_service_model(service)


class Clients:
    """Makes each client once per service and region; boto3 clients may be shared between threads."""

    def __init__(self, url: str, access_key: str, secret_key: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._session: Any = boto3.session.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key)
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str) -> Any:
        """A client of `service` in `region`, without retries: a local server's answer is final."""
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(
                    service,
                    region_name=region,
                    endpoint_url=self.url,
                    config=Config(
                        retries={"total_max_attempts": 1},
                        read_timeout=900,
                        s3={"addressing_style": "path"},
                        parameter_validation=True,
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._clients[service, region]
