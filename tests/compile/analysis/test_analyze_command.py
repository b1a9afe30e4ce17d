"""`inferentia analyze` and `read-log` as a person or a script calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from rich.console import Console

from compile.cli import analyze, app

ROOT = Path(__file__).resolve().parents[3]
MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    def forward(self, x):
        return torch.erfinv(self.body(x).clamp(-0.5, 0.5)) + 1

def build():
    return Net(), torch.rand(1, 3, 8, 8)

def supported():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.rand(2, 4),)

def function():
    return (lambda x, y: torch.relu(x) @ y), {"y": torch.rand(4, 4), "x": torch.rand(4, 4)}

def definition():
    from compile import GraphDefinition, ModelDefinition
    def example(bucket, batch):
        return {"x": torch.rand(batch, *bucket["size"])}
    def graph(width):
        return GraphDefinition(nn.Linear(4, width).eval(), lambda b, n: {"input": torch.rand(n, *b["size"])},
                               lambda b, n: [{"input": torch.rand(n, *b["size"])} for _ in range(5)])
    graphs = {"encoder": graph(8), "step": graph(2)}
    return ModelDefinition(graphs=graphs, buckets=[{"size": (4,)}], task="vectors", weights_module=nn.Identity())

def number():
    return 3

def broken():
    raise ValueError("the weights are gone")

def needs(size):
    return None
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "own").mkdir()
    (folder / "own" / "__init__.py").write_text("")
    (folder / "own" / "models.py").write_text(MODELS)
    (folder / "endpoints").mkdir()
    (folder / "endpoints" / "mine.yaml").write_text(
        "name: mine\nmodel: {entry: own/models.py:definition, weights: random:1}\nserve: {handler: own/handler.py}\n"
    )
    (folder / "own" / "handler.py").write_text(
        "def preprocess(request):\n    return request.body\n\ndef postprocess(outputs, item):\n    return {}\n"
    )
    return folder


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(project, monkeypatch, capsys):
    """The command line in this process (a process of its own imports torch anew): arguments -> Done."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(analyze, "out", Console(width=200, emoji=False))
    torch.set_num_threads(1)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["compile", *arguments])
        code = 0
        try:
            app.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def analyzed(command):
    """arguments of analyze -> its JSON."""

    def run(*arguments: str) -> dict:
        done = command("analyze", *arguments, "--json", "-")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_file_from_anywhere(analyzed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "net.py"
    elsewhere.write_text(
        "import torch\n\ndef build():\n    return torch.nn.Linear(4, 4).eval(), (torch.zeros(1, 4),)\n"
    )
    assert analyzed(f"{elsewhere}:build")["total"] == 1


def test_file_and_function(analyzed):
    found = analyzed("own/models.py:build")
    assert found["name"] == "own/models.py:build"
    assert (found["total"], found["supported"]) == (7, 6)
    assert found["percent"] == 85.71
    assert found["operators"]["aten::erfinv"]["supported"] is False
    assert found["operators"]["aten::erfinv"]["places"][0]["source"] == "own/models.py:10"
    assert found["operators"]["aten::relu"] | {"count": 2, "supported": True} == found["operators"]["aten::relu"]
    assert found["environment"]["grad"] is True
    assert set(found["environment"]) == {"python", "torch", "grad"}
    assert found["partition"]["predicted"] is True
    for plan in ("safe", "as_logged"):
        part = found["partition"][plan]
        assert (part["compiled"], part["percent"], part["subgraphs"], part["candidates"]) == (5, 71.43, 1, 2)
    assert found["flops"]["total"] > found["flops"]["host"] > 0


def test_every_form_of_what(analyzed, project):
    for what in ("own/models.py:supported", "own.models:supported"):
        assert analyzed(what)["percent"] == 100.0
    assert analyzed("own.models:function")["total"] == 2
    assert analyzed(str(project / "own" / "models.py") + ":supported")["total"] == 2


@pytest.mark.parametrize("what", ["own/models.py:definition", "mine"])
def test_graphs_of_a_definition_are_summed(analyzed, what):
    found = analyzed(what)
    assert found["total"] == 2
    assert [graph["total"] for graph in found["graphs"]] == [1, 1]
    assert found["operators"]["aten::linear"]["count"] == 2
    assert found["partition"]["safe"]["candidates"] == 2
    assert "encoder" in found["graphs"][0]["name"]


def test_built_in_family(analyzed):
    found = analyzed("resnet:resnet50", "--target", "inf1")
    assert found["total"] > 150
    assert found["percent"] == 100.0
    assert found["partition"]["safe"]["subgraphs"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--fail-under", "85"), 0),
        (("--fail-under", "85.72"), 1),
        (("--fail-under", "100"), 1),
        (("--exclude", "erfinv,relu", "--fail-under", "80"), 1),
        (("--fail-under", "101"), 2),
        (("--fail-under", "-1"), 2),
        (("--fail-under", "many"), 2),
        (("--target", "inf2", "--fail-under", "50"), 2),
        (("--target", "tpu"), 2),
        (("--sdk", "0.0.1"), 2),
        (("--exclude", "a b"), 2),
        (("--against", "nothing.log"), 2),
        (("--json", "no/such/folder.json"), 2),
        (("--unknown",), 2),
    ],
)
def test_exit_codes(command, arguments, code):
    done = command("analyze", "own/models.py:build", *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stderr.strip()


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("own/nothing.py:build", 2, "no file"),
        ("own/models.py:nothing", 2, "no function"),
        ("own.models:nothing", 2, "no function"),
        ("no.such.module:build", 2, "no family and no Python module"),
        ("resnet:none", 2, "not a variant"),
        ("nobody", 2, "endpoints/nobody.yaml"),
        ("a b:c", 2, "neither"),
        (":x", 2, "not complete"),
        ("own/models.py:number", 2, "returned int"),
        ("own/models.py:needs", 2, "needs arguments (size)"),
        ("own/models.py:broken", 1, "the weights are gone (own/models.py:35)"),
    ],
)
def test_what_that_names_nothing(command, what, code, says):
    done = command("analyze", what)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "->" in done.stderr, "no remedy"
    assert "Traceback" not in done.stderr


def test_missing_argument_is_wrong_use(command):
    assert command("analyze").returncode == 2


def test_exclude_and_whitelist(analyzed):
    without = analyzed("own/models.py:build", "--exclude", "aten::relu")
    assert without["supported"] == 4
    assert without["operators"]["aten::relu"]["reason"] == "excluded by --exclude"
    only = analyzed("own/models.py:build", "--op-whitelist", "_convolution", "--op-whitelist", "aten::erfinv")
    assert only["supported"] == 3


def test_release_and_grad(analyzed):
    old = analyzed("own/models.py:supported", "--sdk", "1.15", "--no-grad")
    assert old["release"] == "1.15.0"
    assert old["environment"]["grad"] is False
    assert old["operators"]["aten::linear"]["supported"] is False  # added by 1.16.0


def test_inf2_has_no_operator_table(analyzed):
    found = analyzed("own/models.py:build", "--target", "inf2")
    assert found["coverage"] == "unknown: no public operator table"
    assert found["supported"] is None
    assert found["percent"] is None
    assert found["partition"]["safe"] is None
    assert found["total"] == 7
    assert found["flops"]["total"] > 0
    assert found["memory"]["weight_bytes"] == 4 * (3 * 4 * 9 + 4 + 4 * 4 * 9 + 4)
    assert found["inputs"][0]["shape"] == [1, 3, 8, 8]


LOG = """\
INFO:Neuron:There are 1 ops of 1 different types in the TorchScript that are not compiled by neuron-cc: aten::erfinv,
INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 7, fused = 5, percent fused = 71.43%
INFO:Neuron:Number of arithmetic operators (post-compilation) before = 7, compiled = 5, percent compiled = 71.43%
INFO:Neuron:Neuron successfully compiled 1 sub-graphs, Total fused subgraphs = 1, Percent = 100.0%
INFO:Neuron:Compiled these operators (and operator counts) to Neuron:
INFO:Neuron: => aten::_convolution: 2
INFO:Neuron: => aten::relu: 2
INFO:Neuron: => aten::hardtanh: 1
INFO:Neuron:Not compiled operators (and operator counts) to Neuron:
INFO:Neuron: => aten::erfinv: 1 [not supported]
INFO:Neuron: => aten::add: 1 [supported]
"""


def test_against_a_log(command, analyzed, tmp_path):
    (tmp_path / "compile.log").write_text(LOG)
    found = analyzed("own/models.py:build", "--against", str(tmp_path / "compile.log"))
    rows = {row["what"]: row for row in found["against"][0]["rows"]}
    assert rows["operators"] == {"what": "operators", "predicted": 7, "logged": 7, "difference": 0}
    assert rows["compiled"]["difference"] == 0
    assert found["against"][0]["operators"] == {
        "aten::clamp": {"predicted": 1, "logged": 0},
        "aten::hardtanh": {"predicted": 0, "logged": 1},
    }
    shown = command("analyze", "own/models.py:build", "--against", str(tmp_path / "compile.log")).stdout
    assert "prediction against the log" in shown
    assert "aten::hardtanh" in shown


def test_read_log(command, tmp_path):
    (tmp_path / "compile.log").write_text(LOG)
    done = command("read-log", str(tmp_path / "compile.log"), "--json", str(tmp_path / "log.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "log.json").read_text())
    assert (found["total"], found["supported"]) == (7, 6)
    assert found["partition"]["logged"]["compiled"] == 5
    assert "aten::erfinv" in done.stdout
    (tmp_path / "partly.log").write_text(
        "[INFO] The neuron partitioner created 19 sub-graphs\n"
        "[INFO] Neuron successfully compiled 4 sub-graphs, Total fused subgraphs = 18, Percent of ... = 22.2%\n"
    )
    shown = command("read-log", str(tmp_path / "partly.log")).stdout
    assert "compiled in part" in shown
    assert "14 of 18 subgraphs" in shown
    assert "19 subgraphs found, and 18 fused" in shown
    (tmp_path / "other.txt").write_text("nothing to see\n")
    assert command("read-log", str(tmp_path / "other.txt")).returncode == 1
    assert command("read-log", str(tmp_path / "none.txt")).returncode == 2


def test_terminal_report(command):
    shown = command("analyze", "own/models.py:build").stdout
    for text in (
        "6 of 7 (85.71 %)",
        "predicted",
        "aten::erfinv",
        "own/models.py:10",
        "what to do",
        "of it on the host",
    ):
        assert text in shown


def test_page_is_self_contained(command, tmp_path):
    target = tmp_path / "page.html"
    assert command("analyze", "own/models.py:build", "--html", str(target)).returncode == 0
    text = target.read_text()
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", text), "the page needs another file"
    assert "<svg" in text
    assert "body" in text
    assert "aten::erfinv" in text
    assert list(tmp_path.iterdir()) == [target], "a temporary file stayed"
    assert 'class="device"' in text


def test_lowered_and_host_time(analyzed):
    found = analyzed("own/models.py:supported", "--lowered", "--host-time")
    assert found["lowered"]["name"] == f"{found['original']['name']}, lowered"
    for report in (found["original"], found["lowered"]):
        assert "measured on this machine" in report["host_time"]["how"]
        assert report["host_time"]["host_seconds"] == 0.0


UPSAMPLED = """
import torch
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return torch.erfinv(x.clamp(-0.5, 0.5)) + 1

def build():
    return Net().eval(), torch.rand(1, 3, 8, 8)
"""
REWRITE = """
from compile.lowering import FunctionRewrite

class Erfinv(FunctionRewrite):
    name = "erfinv"
    why = "Neuron has no erfinv"
    cost = "three products"
    operators = frozenset({"erfinv"})

    def apply(self, call, input):
        call.adds(flops=3 * input.numel())
        return 0.886227 * (input + 0.261799 * input * input * input)
"""


def test_lowered_beside_the_original(project, analyzed, command):
    (project / "up.py").write_text(UPSAMPLED)
    (project / "mine.py").write_text(REWRITE)
    found = analyzed("up.py:build", "--lowered")
    before, after = found["original"]["operators"], found["lowered"]["operators"]
    assert before["aten::upsample_bilinear2d"]["rewrite"] == "interpolate"
    assert "aten::upsample_bilinear2d" not in after
    assert after["aten::erfinv"]["rewrite"] == ""
    assert found["original"]["supported"] < found["original"]["total"]
    assert found["lowered"]["total"] - found["lowered"]["supported"] == 1
    (lowering,) = found["lowering"]
    assert [use["name"] for use in lowering["rewrites"]] == ["interpolate"]
    own = analyzed("up.py:build", "--lowered", "--rewrites", "mine.py", "--fail-under", "100")
    assert own["lowered"]["percent"] == 100.0
    assert {use["name"]: use["flops_added"] for use in own["lowering"][0]["rewrites"]}["erfinv"] == 3 * 3 * 16 * 16
    shown = command("analyze", "up.py:build", "--lowered").stdout
    for words in ("before and after lowering", "aten::upsample_bilinear2d", "interpolate", "original"):
        assert words in shown
    assert "rewrite interpolate" in command("analyze", "up.py:build").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("own/models.py:supported", "--rewrites", "mine.py"), "belongs to --lowered"),
        (("own/models.py:supported", "--lowered", "--rewrites", "none.py"), "none.py"),
        (("own/models.py:supported", "--lowered", "--rewrites", "own/models.py"), "defines no subclass"),
    ],
)
def test_wrong_use_of_rewrites(command, arguments, said):
    done = command("analyze", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_help_teaches(command):
    done = command("analyze", "--help")
    assert done.returncode == 0
    for option in (
        "--json",
        "--html",
        "--fail-under",
        "--sdk",
        "--op-whitelist",
        "--exclude",
        "--no-grad",
        "--against",
    ):
        assert option in done.stdout


def test_exit_code_of_the_process(project):
    """Once as a script sees it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "compile", "analyze", "own/models.py:build", "--fail-under", "99"]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=project, env=environment)
    assert done.returncode == 1, done.stderr
    assert "--fail-under asks for 99 %" in done.stderr


WITH_TABLE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.dense = nn.Embedding(90, 8), nn.Linear(8, 8)

    def forward(self, ids):
        return torch.relu(self.dense(self.table(ids + 1)))

def build():
    return Net().eval(), torch.randint(0, 80, (1, 4))
"""


def test_lowered_is_what_is_compiled_behind_the_host_part(project, analyzed):
    (project / "ids.py").write_text(WITH_TABLE)
    found = analyzed("ids.py:build", "--lowered", "--fail-under", "100")
    assert "aten::embedding" in found["original"]["operators"]
    assert set(found["lowered"]["operators"]) == {"aten::linear", "aten::relu"}
    host = found["lowered"]["host_part"]
    assert host["operators"] == {"aten::add": 1, "aten::embedding": 1}
    assert [(table["name"], table["choice"]) for table in host["tables"]] == [("table", "host")]
    on_inf2 = analyzed("ids.py:build", "--lowered", "--target", "inf2")
    assert "aten::embedding" in on_inf2["lowered"]["operators"]
