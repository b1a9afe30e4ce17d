"""python -m endpoint_spec: check and schema, as a user or a machine runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from endpoint_spec import cost, strict_yaml
from endpoint_spec.__main__ import app
from endpoint_spec.schema import schema
from tests.endpoint_spec.projects import FULL, SMALL, Loader, a_lock

ROOT = Path(__file__).resolve().parents[2]
run = CliRunner()


def test_all_right(read: Loader, project: Path) -> None:
    read(SMALL)
    result = run.invoke(app, ["check", "--root", str(project)])
    assert result.exit_code == 0
    assert "depth" in result.stdout
    assert "endpoints/depth.lock.json is missing" in result.stdout
    assert "1 checked, 0 wrong." in result.stderr


def test_as_json(read: Loader, project: Path) -> None:
    spec = read(SMALL)
    (project / "endpoints/depth.lock.json").write_text(a_lock(spec).dump())
    (project / "endpoints/bad.yaml").write_text("name: bad\nscale: {min: 0}\n")
    result = run.invoke(app, ["check", "--root", str(project), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    bad, good = found["files"]
    assert [(error["line"], error["key"]) for error in bad["errors"]] == [(1, "model"), (2, "scale.min")]
    assert set(bad["errors"][0]) == {"file", "line", "key", "value", "problem", "remedy", "text"}
    assert (good["ok"], good["name"], good["workers"], good["lock_problems"]) == (True, "depth", 4, [])
    assert good["processes"] == 1  # of the native server, whose workers are threads


def test_the_table_says_where_workers_share_processes(read: Loader, project: Path) -> None:
    read(SMALL + "serve: {server: native, processes: 2}\n")
    result = run.invoke(app, ["check", "--root", str(project)])
    assert "4 in 2" in result.stdout
    assert json.loads(run.invoke(app, ["check", "--root", str(project), "--json"]).stdout)["files"][0]["processes"] == 2


@pytest.mark.parametrize(
    ("sdk", "code", "words"),
    [
        ("", 0, ()),
        (", sdk: 2.22.0", 0, ("warning: compile.sdk: 2.22.0 has Neuron runtime 2.24.53", "2.20.28", "driver 2.19,")),
        (", sdk: 2.29.1", 0, ("warning: compile.sdk: 2.29.1 has Neuron runtime 2.31.24", "2.27.4", "driver 2.19,")),
        (
            ", sdk: 2.31.1",
            1,
            ("2.31.1 has Neuron runtime 2.33.10", "driver 2.27 or later", "have driver 2.19 (al2-ami"),
        ),
        (", sdk: 2.20.2", 1, ("no Neuron SDK release with an image for inf2", "2.21.1, 2.22.0, 2.29.1, 2.31.1")),
    ],
)
def test_a_runtime_that_the_hosts_driver_does_not_start_is_refused_and_an_unknown_one_is_reported(
    project: Path, sdk: str, code: int, words: tuple[str, ...]
) -> None:
    """https://awsdocs-neuron.readthedocs-hosted.com/en/latest/release-notes/components/runtime.html, 2.30.0."""
    path = project / "endpoints/depth.yaml"
    path.write_text(SMALL + f"compile: {{target: inf2{sdk}}}\n")
    result = run.invoke(app, ["check", str(path)])
    assert result.exit_code == code
    assert all(word in result.output for word in words), result.output
    assert ("warning" in result.output) is (bool(words) and code == 0)


def test_one_file_and_its_errors(project: Path) -> None:
    path = project / "endpoints/depth.yaml"
    path.write_text(SMALL + "scale:\n  min: 0\n")
    result = run.invoke(app, ["check", str(path)])
    assert result.exit_code == 1
    assert "endpoints/depth.yaml:4: scale.min: 0 is not possible: a real-time endpoint keeps" in result.stderr


def test_prices_of_ones_own(read: Loader, project: Path) -> None:
    read(SMALL)
    prices = "date: '2027-01-01'\nregion: eu-west-1\nsagemaker: {source: bill, usd_per_hour: {ml.inf1.2xlarge: 0.5}}\n"
    (project / "prices.yaml").write_text(prices)
    result = run.invoke(app, ["check", "--root", str(project), "--json"])
    assert json.loads(result.stdout)["files"][0]["sagemaker_price"]["usd_per_hour"] == 0.5
    (project / "prices.yaml").write_text("- none\n")
    result = run.invoke(app, ["check", "--root", str(project)])
    assert result.exit_code == 1
    assert "prices.yaml:1: " in result.stderr


def test_the_month_is_shown_with_what_is_unknown(read: Loader, project: Path) -> None:
    spec = read(SMALL + "scale: {min: 2, max: 3}\nserve: {server: torchserve}\n")
    month = json.loads(run.invoke(app, ["check", "--root", str(project), "--json"]).stdout)["files"][0]["month"]
    assert month["minimum"] == round(2 * 730 * 0.471 + 1 + 0.1 * cost.ALARM_METRICS + 3, 2)
    assert month["maximum"] == round(month["minimum"] + 730 * 0.471, 2)
    assert month["unknown"] == ["alarms of scaling", "logs", "all else"]
    (project / "endpoints/depth.lock.json").write_text(a_lock(spec).dump())
    result = run.invoke(app, ["cost", "depth", "--root", str(project)])
    assert result.exit_code == 0
    assert f"{month['maximum']:.2f}" in result.stdout
    found = json.loads(run.invoke(app, ["cost", "--root", str(project), "--json"]).stdout)
    assert found["endpoints"]["depth"]["minimum"] == month["minimum"]
    assert found["shared"]["minimum"] == 1


def test_a_month_of_unknown_price_is_unknown_until_prices_yaml_names_it(read: Loader, project: Path) -> None:
    read(SMALL + "serve: {instance_type: ml.inf1.24xlarge}\n")
    assert "unknown" in run.invoke(app, ["check", "--root", str(project)]).stdout
    asked = ["cost", "depth", "--root", str(project), "--json"]
    found = json.loads(run.invoke(app, asked).stdout)["endpoints"]["depth"]
    assert found["lines"][0]["minimum"] is None
    assert found["unknown"][0] == "instances, 1 to 2 x ml.inf1.24xlarge"
    (project / "prices.yaml").write_text(
        "date: '2027-01-01'\nregion: eu-west-1\nsagemaker: {source: bill, usd_per_hour: {ml.inf1.24xlarge: 5}}\n"
        "services: {dashboard: {usd: 4, source: bill}}\n"
    )
    lines = json.loads(run.invoke(app, asked).stdout)["endpoints"]["depth"]["lines"]
    assert (lines[0]["minimum"], lines[0]["maximum"]) == (3650, 7300)
    (dashboard,) = (line for line in lines if line["what"] == "dashboard")
    assert dashboard["minimum"] == 4
    assert "prices.yaml, 2027-01-01" in dashboard["how"]
    (project / "prices.yaml").write_text("services: 3\n")
    assert run.invoke(app, asked).exit_code == 1
    assert run.invoke(app, ["cost", "nobody", "--root", str(project)]).exit_code == 2


def test_a_damaged_lock_is_said(read: Loader, project: Path) -> None:
    read(SMALL)
    (project / "endpoints/depth.lock.json").write_text("<<<<<<< HEAD")
    result = run.invoke(app, ["check", "--root", str(project)])
    assert result.exit_code == 0
    assert "depth.lock.json is not a lock" in result.stdout


def test_what_a_removed_spec_left_is_listed_with_its_removal(read: Loader, project: Path) -> None:
    read(SMALL)
    (project / "endpoints/old.lock.json").write_text("{}")
    result = run.invoke(app, ["check", "--root", str(project)])
    assert result.exit_code == 0
    assert "there is no endpoints/old.yaml" in result.stdout
    removal = "aws cloudformation delete-stack --stack-name InferentiaEndpoint-old; git rm endpoints/old.lock.json"
    assert removal in result.stdout
    result = run.invoke(app, ["check", "--root", str(project), "--json"])
    assert json.loads(result.stdout)["without_spec"] == {"old": removal}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "none.yaml"], "There is no file none.yaml"),
        (["check", "--root", "/none"], "holds no endpoints/ folder. Run from the project root"),
        (["check", "--jsn"], "No such option"),
        (["chek"], "No such command"),
    ],
)
def test_wrong_use(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run.invoke(app, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_a_project_without_specs(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    result = run.invoke(app, ["check", "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no spec. Make one" in result.stderr


def test_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "endpoint_spec", "check", "zoo/depth-anything-v2-small.yaml", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"][0]["lock_problems"] is None


def test_spec_needs_neither_torch_nor_aws() -> None:
    code = (
        "import sys; import endpoint_spec, endpoint_spec.__main__, endpoint_spec.schema; "
        "print([m for m in ('torch', 'boto3', 'aws_cdk', 'transformers', 'compile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schema_command() -> None:
    result = run.invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == schema()


GRAPH = "name: taken\nmodel: {graph: theirs.graph}\n"


@pytest.mark.parametrize("text", [SMALL, FULL, GRAPH])
def test_schema_takes_what_is_right(text: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(strict_yaml.parse(text, "x").data, schema())


@pytest.mark.parametrize(
    "more",
    [
        "scaling: {}",
        "scale: {min: one}",
        "serve: {instance_type: ml.g5.xlarge}",
        "serve: {max_batch_delay: 5}",
        "alarms: {error_rate: 0.01}",
        "rollout: {strategy: slow}",
    ],
)
def test_schema_refuses_what_is_wrong(more: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(strict_yaml.parse(SMALL + more, "x").data, schema())


def test_schema_gives_defaults_with_their_units() -> None:
    parts = schema()["$defs"]
    assert parts["Compile"]["properties"]["timeout"]["default"] == "45min"
    assert parts["Accept"]["properties"]["min_supported"]["default"] == "100%"
    assert parts["Alarms"]["properties"]["p99_latency"]["default"] == "1s"
    assert parts["Model"]["properties"]["family"]["anyOf"][0]["enum"]
    for name, part in parts.items():
        jsonschema = pytest.importorskip("jsonschema")
        for key, field in part.get("properties", {}).items():
            if "default" in field:
                jsonschema.validate(field["default"], {**field, "$defs": parts}), (name, key)
