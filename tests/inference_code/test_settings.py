from __future__ import annotations

import pytest

from inference_code.errors import LoadError
from inference_code.settings import Limits, Settings


def test_defaults_are_the_documented_ones() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Limits() == Limits(pixels=40_000_000, items=16, request_bytes=26_214_400, response_bytes=26_214_400)


def test_each_variable_is_read() -> None:
    settings = Settings.from_environment(
        {
            "ENDPOINT_MAX_PIXELS": "1",
            "ENDPOINT_MAX_ITEMS": "2",
            "ENDPOINT_REQUEST_BYTES": "3",
            "ENDPOINT_RESPONSE_BYTES": " 4 ",
            "ENDPOINT_PROCESSES": "7",
            "ENDPOINT_WORKERS": "5",
            "ENDPOINT_CORES_PER_WORKER": "6",
            "ENDPOINT_MAX_BATCH_DELAY_MS": "0",
            "ENDPOINT_MAX_QUEUE": "8",
            "ENDPOINT_HOST_THREADS": "12",
            "ENDPOINT_BODY_TIMEOUT_S": "0.5",
            "ENDPOINT_DEADLINE_S": "10",
            "ENDPOINT_DRAIN_S": "11",
            "NEURON_RT_NUM_CORES": "9",
            "ENDPOINT_ALLOWED_HOSTS": "Depth.example, depth.example.:8443,[::0001]:9",
            "ENDPOINT_MAX_SIDE": "13",
            "ENDPOINT_MAX_SCANNED_PIXELS": "14",
            "ENDPOINT_MAX_SEGMENTS": "15",
            "ENDPOINT_DECODE_BYTES": "16",
            "ENDPOINT_MAX_BODIES": "17",
            "ENDPOINT_TRANSFER_BYTES": "18",
            "ENDPOINT_HEAD_TIMEOUT_S": "19",
            "ENDPOINT_LEAST_RATE": "20",
            "ENDPOINT_RATE_WINDOW_S": "21",
            "ENDPOINT_MANIFEST_SHA256": "22",
        }
    )
    hosts = ("depth.example", "depth.example:8443", "[::1]:9")
    limits = Limits(1, 2, 3, 4, 13, 14, 15, 16)
    assert settings == Settings(limits, 7, 5, 6, 0.0, 8, 12, 0.5, 10.0, 11.0, 9, hosts, 17, 18, 19.0, 20, 21.0, "22")


def test_all_bad_values_are_named_together() -> None:
    with pytest.raises(LoadError) as caught:
        Settings.from_environment(
            {
                "ENDPOINT_MAX_PIXELS": "40M",
                "ENDPOINT_MAX_ITEMS": "0",
                "ENDPOINT_BODY_TIMEOUT_S": "nan",
                "ENDPOINT_ALLOWED_HOSTS": "good.example,*,http://a.example," + "b" * 100 + "/",
            }
        )
    text = str(caught.value)
    assert "ENDPOINT_MAX_PIXELS is '40M', it must be a whole number, at least 1" in text
    assert "ENDPOINT_MAX_ITEMS is '0'" in text
    assert "ENDPOINT_BODY_TIMEOUT_S is 'nan'" in text
    bad = f"'*', 'http://a.example', '{'b' * 40}'"
    assert f"ENDPOINT_ALLOWED_HOSTS has {bad}, each must be name or name:port, separated by commas" in text
    assert "\n" not in text
