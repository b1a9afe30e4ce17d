"""A web page in a real browser, against a server that runs on the same machine: nothing happens, and it reads nothing.

The page does what any page may do without its user's leave: fetch with and without CORS, XMLHttpRequest, forms. It is
served from another port of this machine, and from a name whose address becomes the server's (DNS rebinding): to the
browser that page and the server are one origin, and requests carry neither Sec-Fetch-Site nor, for GET, Origin.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NAME, chromium_or_skip, visit
from tests.embedded_aws.artifacts import artifact
from tests.embedded_aws.asking import ask
from tests.embedded_aws.helpers import Hosting
from tests.embedded_aws.running import Aws, running

pytestmark = pytest.mark.slow

PAGE = """<!doctype html><title>an ordinary page</title><body><script>
const bases = BASES, instances = INSTANCES, endpoint = "/endpoints/ENDPOINT/invocations";
const scope = service => `AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/${service}/aws4_request`;
const signed = service => (
  {Authorization: `AWS4-HMAC-SHA256 Credential=${scope(service)}, SignedHeaders=host, Signature=0`});
const form = {"Content-Type": "application/x-www-form-urlencoded"}, json = {"Content-Type": "application/json"};
const plain = {"Content-Type": "text/plain"}, fast = '{"waits": 1000}', body = "a picture";
const fault = '{"kind": "job", "action": "kill"}';
const report = [];

async function note(name, attempt) {
  let read = null, error = null;
  try { read = await attempt(); } catch (caught) { error = String(caught); }
  report.push({name, read, error});
}
function byFetch(url, method, headers, body, mode) {
  return note(`fetch ${mode} ${method} ${url}`, async () => {
    const answer = await fetch(url, {method, headers, body, mode});
    return answer.type === "opaque" ? null : {status: answer.status, text: await answer.text()};
  });
}
function byXhr(url, method, headers, body) {
  return note(`xhr ${method} ${url}`, () => new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.onload = () => done({status: request.status, text: request.responseText});
    request.onerror = () => failed("XMLHttpRequest failed");
    request.send(body);
  }));
}
function byForm(url, type, fields) {
  return note(`form ${type} ${url}`, () => new Promise(done => {
    const frame = document.createElement("iframe"), sent = document.createElement("form");
    frame.name = `frame${report.length}`;
    sent.target = frame.name; sent.method = "post"; sent.enctype = type; sent.action = url;
    for (const [name, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      input.type = "hidden"; input.name = name; input.value = value;
      sent.append(input);
    }
    document.body.append(frame, sent);
    frame.onload = () => {
      let text = null;
      try { text = frame.contentDocument.documentElement.textContent; } catch (caught) { /* another origin's */ }
      done(text ? {status: 0, text} : null);
    };
    sent.submit();
    setTimeout(() => done(null), 5000);  // an answer that is downloaded or refused loads nothing
  }));
}
async function attack(base) {
  const fields = Object.fromEntries(new URLSearchParams(instances));
  for (const path of ["/", "/ec2_us-east-1/"]) {
    await byFetch(base + path, "POST", {...signed("ec2"), ...form}, instances, "cors");
    await byFetch(base + path, "POST", form, instances, "cors");
    await byFetch(base + path, "POST", plain, instances, "no-cors");
    await byXhr(base + path, "POST", {...signed("ec2"), ...form}, instances);
    await byForm(base + path, "application/x-www-form-urlencoded", fields);
  }
  await byFetch(base + "/_embedded_aws/clock", "POST", plain, fast, "no-cors");
  await byFetch(base + "/_embedded_aws/clock", "POST", json, fast, "cors");
  await byXhr(base + "/_embedded_aws/clock", "POST", json, fast);
  await byForm(base + "/_embedded_aws/clock", "text/plain", {'{"waits": 1000, "limits': '": 1}'});
  await byFetch(base + "/_embedded_aws/faults", "POST", plain, fault, "no-cors");
  await byFetch(base + "/_embedded_aws/faults", "DELETE", {}, undefined, "cors");
  await byFetch(base + endpoint, "POST", {...signed("sagemaker"), ...plain}, body, "cors");
  await byFetch(base + endpoint, "POST", plain, body, "no-cors");
  await byXhr(base + endpoint, "POST", {...signed("sagemaker"), ...plain}, body);
  await byForm(base + endpoint, "multipart/form-data", {body});
  for (const path of ["/", "/BUCKET/secret", "/_embedded_aws/faults", "/moto-api/data.json"]) {
    await byFetch(base + path, "GET", {}, undefined, "cors");
    await byFetch(base + path, "GET", {}, undefined, "no-cors");
    await byFetch(base + path, "GET", signed("s3"), undefined, "cors");
    await byXhr(base + path, "GET", {}, null);
  }
  await byFetch(base + "/moto-api/reset", "POST", {}, "", "no-cors");
  await byForm(base + "/moto-api/reset", "application/x-www-form-urlencoded", {});
}
(async () => {
  for (const base of bases) await attack(base);
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
})();
</script>"""


@dataclass
class Target:
    """A server with something to lose."""

    aws: Aws
    marker: Path
    name: str = "depth-of-mine"

    def __post_init__(self) -> None:
        self.hosting = Hosting(self.aws, self.name)
        assert self.hosting.up(self.hosting.config("one", artifact("one")))["EndpointStatus"] == "InService"
        self.hosting.s3.put_object(Bucket=self.name, Key="secret", Body=b"of the user alone")
        self.aws.control("faults", {"kind": "job", "action": "stop", "where": "armed by the user"})
        self.before = self.state()

    def state(self) -> dict[str, Any]:
        """What a page must not change."""
        bearer = [("Authorization", f"Bearer {self.aws.token}")]
        buckets = self.hosting.s3.list_buckets()["Buckets"]
        return {
            "the user data ran": self.marker.exists(),
            "instances": len(self.aws.client("ec2").describe_instances()["Reservations"]),
            "buckets": [bucket["Name"] for bucket in buckets],
            "clock": ask(self.aws.port, "GET", "/_embedded_aws/clock", bearer).text,
            "faults": ask(self.aws.port, "GET", "/_embedded_aws/faults", bearer).text,
            "invocations": self.aws.client("cloudwatch").list_metrics(Namespace="AWS/SageMaker")["Metrics"],
        }

    def page(self, *bases: str) -> str:
        """The attacking page, which asks each of these addresses of the server."""
        data = base64.b64encode(f"#!/bin/sh\nid > {self.marker}\n".encode()).decode().replace("+", "%2B")
        instances = (
            "Action=RunInstances&Version=2016-11-15&ImageId=ami-12345678&MinCount=1&MaxCount=1"
            f"&UserData={data.replace('=', '%3D')}"
        )
        text = PAGE.replace("INSTANCES", json.dumps(instances)).replace("BASES", json.dumps(bases))
        return text.replace("ENDPOINT", self.name).replace("BUCKET", self.name)

    def refused(self) -> int:
        """How many requests the server has refused, by its log."""
        return (self.aws.directory / "log.txt").read_text().count("embedded_aws.application: refused ")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    chromium_or_skip()
    with running(tmp_path / "aws") as aws:
        yield Target(aws, tmp_path / "marker")


def test_a_page_of_another_origin_does_and_reads_nothing(target: Target) -> None:
    port = target.aws.port
    report = visit(target.page(*(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", NAME))))
    assert target.state() == target.before
    assert [attempt for attempt in report if attempt["read"] is not None] == []
    assert target.refused() >= len(report) > 100, "each attempt reached the server: itself, or its preflight"


def test_a_page_whose_name_was_rebound_to_the_server_does_nothing_and_reads_refusals(target: Target) -> None:
    report = visit(target.page(""), rebound=target.aws.port)
    assert target.state() == target.before
    readable = [attempt["read"] for attempt in report if attempt["read"] is not None]
    assert len(readable) > 20, "to the browser it is the page's own origin"
    assert {answer["status"] for answer in readable} == {0, 403}  # a form's answer has no status to a page
    assert [
        answer for answer in readable if "the embedded AWS does not answer this request" not in answer["text"]
    ] == []
    assert target.refused() >= len(report)
