"""Compiling for inf1 and inf2 through stand-ins for the Neuron SDK: what it is asked, how failures are reported."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import endpoint_spec as specs
from compile.analysis import capacity
from compile.errors import CompileError
from compile.frontend import weights
from compile.packaging import archive as package
from compile.pipeline import plan as plans
from compile.pipeline import verify
from compile.pipeline.build import Result, build
from compile.pipeline.plan import plan, survey
from compile.pipeline.repackage import repackage
from compile.progress import Silent
from compile.targets import inf1, inf2, process_runner, resolve, sdk
from endpoint_spec import lock as locks
from inference_code.artifact import manifest as manifests
from tests.compile.projects import ENTRY, ROOT, WITH_SAMPLE, files, run, write_entry
from tests.compile.targets.helpers import in_this_process

Scenario = Callable[[str], None]
# Enough operators for a share of them to stay behind.
DEEP = ENTRY.replace(
    "self.layer = nn.Linear(8, 4)",
    "self.layer = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 4))",
)
SECTION = {"inf1": "{}", "inf2": "{target: inf2}"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants are compiled in this process instead of one of their own; what they print is their log all the same."""
    monkeypatch.setattr(process_runner, "watch", in_this_process)


def compiled(root: Path, section: str = "{}", source: str = DEEP) -> Result:
    path = write_entry(root, source, more=f"compile: {section}\n")
    return build(plans.resolve(plan(specs.load(path), rehearse=False), Silent()), Silent())


def called(root: Path) -> dict[str, object]:
    """What the stand-in was called with."""
    (found,) = (root / "build" / "record" / "own").rglob("called.json")
    return json.loads(found.read_text())


def test_inf1_in_a_process_of_its_own(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    result = compiled(tmp_path, source=WITH_SAMPLE)
    lock = locks.read_lock(tmp_path / "endpoints" / "own.lock.json")
    assert lock == result.lock
    assert (lock.stand_in, lock.rehearsal, lock.target) == (True, False, "inf1")
    assert lock.versions["torch-neuron"].endswith(".2.11.13.0")
    (graph,) = lock.graphs
    assert graph.coverage is not None
    assert graph.subgraphs is not None
    assert not graph.coverage.predicted
    assert (graph.coverage.supported, graph.coverage.total, graph.subgraphs.count) == (2, 2, 1)
    details = lock.parity.details[graph.file]
    assert details["device"]["output"]["cosine"] > 0.999
    assert "nothing about the device is proven" in details["notes"][0]
    assert lock.sample is not None
    assert lock.sample.answer.tolerance > 0.01  # a device is allowed what compile.accept.device_tolerance says
    package.extract(result.artifact, tmp_path / "unpacked")
    with zipfile.ZipFile(tmp_path / "unpacked" / graph.file) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"neuron" in content
    assert str(tmp_path).encode() not in content
    assert str(ROOT).encode() not in content
    (built,) = result.graphs
    cost = built.cost
    assert cost is not None
    assert cost.peak_bytes > 50 * 2**20  # a Python with torch is never smaller
    record = tmp_path / "build" / "record" / "own" / "main-x_8-batch_1"
    assert "compiled = 1" in (record / "compile.log").read_text()
    assert json.loads((record / "cost.json").read_text()) == dataclasses.asdict(cost)


@pytest.mark.parametrize("scenario", ["hang", "self_killed"])
def test_a_process_that_hangs_or_dies_is_told_and_gone(
    tmp_path: Path, stand_in: Scenario, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    stand_in(scenario)
    monkeypatch.setattr(process_runner, "GRACE_SECONDS", 0.0 if scenario == "hang" else 60.0)
    with pytest.raises(CompileError) as caught:
        compiled(tmp_path, "{timeout: 8s}" if scenario == "hang" else "{}")
    said = {"hang": "did not finish within compile.timeout, 8s", "self_killed": "killed (-9)"}[scenario]
    assert said in str(caught.value)
    assert "build/record/own/main-x_8-batch_1 (log: compile.log)" in str(caught.value)
    for _ in range(50):
        left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
        if not left:
            break
        time.sleep(0.1)
    assert left == []
    assert not (tmp_path / "endpoints" / "own.lock.json").exists()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


FAILURES = {
    "fallback": ("ended with an error", "INFO:Neuron:Compile command returned: 1", "own log"),
    "killed": ("was killed (-9)", "INFO:Neuron:Compile command returned: -9", "more memory"),
    "timeout": ("within compile.timeout", "subprocess.TimeoutExpired", "longer compile.timeout"),
    "nothing": ("not one operator was compiled", "No operations were successfully partitioned", "analyze"),
    "zero": ("none of 14 operators was compiled", "compiled = 0", "analyze"),
    "cpu_graph": ("no neuron:: node", "(post-compilation) before = 14, compiled = 14", "scripted already"),
    "partial": ("13 of 14 operators were compiled (92.86%)", "compiled = 13", "accept less"),
    "many_subgraphs": ("2 subgraphs were compiled", "successfully compiled 2 sub-graphs", "accept more"),
    "silent": ("does not say how many operators", "INFO:Neuron:Compile command returned: 0", "level INFO"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("scenario", FAILURES)
def test_every_silent_fallback_fails_with_the_logs_line(tmp_path: Path, stand_in: Scenario, scenario: str) -> None:
    stand_in(scenario)
    with pytest.raises(CompileError) as caught:
        compiled(tmp_path)
    cause, line, remedy = FAILURES[scenario]
    assert cause in caught.value.problem
    assert line in caught.value.problem
    assert remedy in caught.value.remedy
    assert "main, x 8, batch 1" in caught.value.problem
    if scenario in ("fallback", "killed"):
        assert "falling back to native python function call" in caught.value.problem
    kept = files(tmp_path)
    assert "build/record/own/main-x_8-batch_1/compile.log" in kept
    assert "build/record/own/main-x_8-batch_1/compiler/called.json" in kept
    assert not [name for name in kept if name.endswith("model.tar.gz")]
    assert not (tmp_path / "endpoints" / "own.lock.json").exists()


@pytest.mark.usefixtures("quick")
def test_less_is_taken_when_the_spec_accepts_it(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("partial")
    result = compiled(tmp_path, "{accept: {min_supported: 90%}}")
    coverage = result.lock.graphs[0].coverage
    assert coverage is not None
    assert (coverage.supported, coverage.total, coverage.predicted) == (13, 14, False)
    comparison = result.graphs[0].comparison
    assert comparison is not None
    rows = {row["what"]: row for row in comparison["rows"]}
    assert (rows["compiled"]["predicted"], rows["compiled"]["logged"], rows["compiled"]["difference"]) == (14, 13, 1)


@pytest.mark.usefixtures("quick")
def test_every_option_of_inf1_arrives(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    compiled(
        tmp_path,
        "{pipeline_cores: 2, fast_math: fp32-cast-all no-fast-relayout, timeout: 90s, batch_sizes: [1], "
        "inf1: {arguments: [-O 2, --enable-saturate-infinity], dynamic_batch: true, float32_to_float16: true, "
        "separate_weights: true, op_whitelist: [aten::linear], minimum_segment_size: 1}}",
    )
    assert called(tmp_path) == {
        "compiler_args": [
            "--neuroncore-pipeline-cores", "2", "--fast-math", "fp32-cast-all", "no-fast-relayout",
            "-O", "2", "--enable-saturate-infinity",
        ],
        "compiler_timeout": 90,
        "dynamic_batch_size": True,
        "optimizations": ["FLOAT32_TO_FLOAT16"],
        "separate_weights": True,
        "op_whitelist": ["aten::linear"],
        "minimum_segment_size": 1,
        "jit": [],
    }  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_weights_are_separated_by_size(tmp_path: Path, stand_in: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("success")
    compiled(tmp_path)
    assert called(tmp_path)["separate_weights"] is False
    least = sdk.platforms.compile_machine().model_copy(update={"separate_weights_bytes": 100})
    monkeypatch.setattr(sdk.platforms, "compile_machine", lambda: least)
    compiled(tmp_path)
    assert called(tmp_path)["separate_weights"] is True


@pytest.mark.usefixtures("quick")
def test_dynamic_batch_beside_an_embedding_on_the_host_is_refused(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    source = ENTRY.replace("nn.Linear(8, 4)", "nn.Linear(8, 4); self.table = nn.Embedding(50000, 4)").replace(
        "return self.layer(x)", "return self.layer(x) + self.table((x[:, 0].abs() * 3).long())"
    )
    section = "{accept: {min_supported: 0%, max_subgraphs: 9}, inf1: {dynamic_batch: true}}"
    with pytest.raises(CompileError, match="dynamic_batch does not work with aten::embedding"):
        compiled(tmp_path, section, source)


@pytest.mark.usefixtures("quick")
def test_inf2_with_its_options(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    result = compiled(
        tmp_path,
        "{target: inf2, fast_math: fp32-cast-all-fp16, inf2: {arguments: [-O2, --model-type transformer], "
        "inline_weights_to_neff: false, partitioner: {max_subgraph_count: 3}, input_output_aliases: {x: 0}}}",
    )
    assert called(tmp_path) == {
        "compiler_args": [
            "--target", "inf2", "--auto-cast", "all", "--auto-cast-type", "fp16", "-O2", "--model-type", "transformer",
        ],
        "inline_weights_to_neff": False,
        "partitioner": 3,
        "aliases": [0],
        "cpu_backend": True,
    }  # fmt: skip
    assert result.lock.graphs[0].coverage is None
    assert result.lock.graphs[0].subgraphs is not None
    assert not result.lock.graphs[0].subgraphs.predicted
    # Loaded once, to be compared with the original; its weights were moved to the device for it.
    assert sys.modules["torch_neuronx"].MOVED == [0]
    package.extract(result.artifact, tmp_path / "unpacked")
    assert manifests.read(tmp_path / "unpacked").separate_weights


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("killed", "[F137] neuronx-cc was forcibly killed"),
        ("fallback", "neuronx-cc failed with 70"),
        ("cpu_graph", "no neuron:: node"),
        ("many_subgraphs", "2 subgraphs were compiled"),
    ],
)
def test_failures_of_inf2(tmp_path: Path, stand_in: Scenario, scenario: str, said: str) -> None:
    stand_in(scenario)
    with pytest.raises(CompileError) as caught:
        compiled(tmp_path, "{target: inf2}")
    assert said in caught.value.problem


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_an_argument_that_the_compiler_does_not_know(
    tmp_path: Path, stand_in: Scenario, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The spec would refuse it; a newer table or an older compiler might not."""
    stand_in("success")
    module = {"inf1": inf1, "inf2": inf2}[target]
    monkeypatch.setattr(module.platforms, "compiler_arguments", lambda *_: ("--opt-level", "2"))
    with pytest.raises(CompileError, match="does not know one of its arguments") as caught:
        compiled(tmp_path, SECTION[target])
    assert "unrecognized arguments: --opt-level" in caught.value.problem


CHECKED = ("findings", "device", "items")


@pytest.mark.usefixtures("quick")
def test_what_a_stand_in_makes_is_refused(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    result = compiled(tmp_path)
    (problem,) = locks.check(result.spec, result.lock)
    assert "made with a stand-in for the Neuron SDK and must not be deployed" in problem
    checks = verify.verify(result.spec, rehearsal=False, reporter=Silent())
    assert [check.what for check in checks[1:]] == ["files", *(f"{one}: main, x 8, batch 1" for one in CHECKED)]
    assert all(check.passed for check in checks[1:])


def test_a_module_that_merely_lies_on_the_path_is_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch_neuron.py").write_text("__version__ = '0'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("inf1", False).environment()["stand_in"] == "True"


def installed(folder: Path, version: str) -> None:
    """A distribution named torch-neuron, as pip would install it."""
    (folder / "torch_neuron").mkdir(parents=True)
    (folder / "torch_neuron" / "__init__.py").write_text("")
    meta = folder / f"torch_neuron-{version}.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch-neuron\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.4.1.2.0", "is made for another torch than"), (None, "neuron-cc, the compiler itself, is not installed")],
)
def test_versions_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    here = str(torch.__version__).partition("+")[0]
    installed(tmp_path / "site", version or f"{here}.2.11.13.0")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(CompileError, match=said):
        plan(specs.load(write_entry(tmp_path)), rehearse=False)


def test_too_little_memory_or_disk(tmp_path: Path, stand_in: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs.load(write_entry(tmp_path))
    monkeypatch.setattr(sdk, "available_memory", lambda: 2**29)
    with pytest.raises(CompileError, match=r"0\.5 GiB of memory are free here"):
        plan(spec, rehearse=False)
    monkeypatch.undo()
    stand_in("success")
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_in"))
    monkeypatch.setattr(sdk.shutil, "disk_usage", lambda _: _Usage())
    with pytest.raises(CompileError, match="of disk are free"):
        plan(spec, rehearse=False)


class _Usage:
    free = 2**20


def wide(parameters: int) -> str:
    return ENTRY.replace("nn.Linear(8, 4)", f"nn.Linear(8, {parameters // 8}, bias=False)")


def test_plan_needs_no_sdk_and_names_every_variant(tmp_path: Path) -> None:
    path = write_entry(tmp_path, wide(8000), more="compile: {batch_sizes: [1, 4]}\n")
    found = survey(plan(specs.load(path), rehearse=False, check=False), Silent())
    assert [variant.variant for variant in found.variants] == ["main, x 8, batch 1", "main, x 8, batch 4"]
    assert [variant.weights for variant in found.variants] == [32000, 32000]
    assert found.variants[1].activations == 4 * found.variants[0].activations
    assert found.fits
    device = next(demand for demand in found.demands if demand.resource == "device")
    core = next(demand for demand in found.demands if demand.resource == "core")
    assert core.needed == 64000 + found.variants[1].activations
    assert device.needed == 4 * core.needed


def test_the_host_holds_the_weights_once_for_each_process(tmp_path: Path) -> None:
    needed = {}
    for server, processes in (("torchserve", 1), ("native", 1), ("native", 2)):
        more = f"serve: {{server: {server}, processes: {processes}}}\n"
        found = survey(plan(specs.load(write_entry(tmp_path, more=more)), rehearse=False, check=False), Silent())
        needed[server, processes] = next(one.needed for one in found.demands if one.resource == "host memory")
    one = needed["native", 1]
    assert (needed["native", 2], needed["torchserve", 1]) == (2 * one, 4 * one)


def test_what_does_not_fit_is_refused_before_compiling_with_the_levers(
    tmp_path: Path, stand_in: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("success")
    monkeypatch.setattr(process_runner, "watch", lambda *_: pytest.fail("it was compiled"))
    large = capacity.VariantSize("main, x 8, batch 1", 9 * 2**30, 2**20, 1)
    monkeypatch.setattr(capacity, "size", lambda *_: large)
    with pytest.raises(CompileError) as caught:
        compiled(tmp_path, "{}\nserve: {server: torchserve}")
    said = str(caught.value)
    for words in ("core: 9.00 GiB needed (predicted), 2.00 GiB there", "device: 36.00 GiB", "host memory: 73.00 GiB",
                  "fewer buckets", "separate_weights", "pipeline_cores", "--plan"):  # fmt: skip
        assert words in said


def test_build_plan_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch_neuron", None)
    write_entry(tmp_path, more="compile: {batch_sizes: [1, 2]}\n")
    assert run(monkeypatch, "build", "own", "--plan", "--json", "--root", str(tmp_path)) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["predicted"]
    assert len(said["variants"]) == 2
    assert {demand["resource"] for demand in said["demands"]} == {
        "core",
        "device",
        "host memory",
        "disk of this machine",
    }
    assert run(monkeypatch, "build", "own", "--plan", "--root", str(tmp_path)) == 0
    assert "main, x 8, batch 2" in capsys.readouterr().out
    assert files(tmp_path) == {}


# Ids, a table that stays on the host and one that becomes a product, and a mask of whole numbers.
WITH_TABLES = """\
import torch
from torch import nn
from compile import GraphDefinition, ModelDefinition

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.kinds = nn.Embedding(500, 16), nn.Embedding(3, 16)
        self.layer = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, ids, mask):
        rows = self.words(ids) + self.kinds(torch.remainder(ids, 3))
        return {"found": self.layer(rows * mask.unsqueeze(-1)), "mask": mask.float()}

def references(bucket, batch):
    made = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 500, (batch, 6), generator=generator)
        made.append({"ids": ids, "mask": torch.randint(0, 2, (batch, 6), generator=generator).float()})
    return made

def build():
    graph = GraphDefinition(Net().eval(), lambda bucket, batch: references(bucket, batch)[0], references)
    return ModelDefinition({"main": graph}, [{"tokens": 6}], "tensor")
"""


@pytest.mark.usefixtures("quick")
def test_only_the_device_part_is_compiled_and_the_artifact_holds_both(tmp_path: Path, stand_in: Scenario) -> None:
    stand_in("success")
    result = compiled(tmp_path, "{}", WITH_TABLES)
    (graph,) = result.lock.graphs
    assert graph.coverage is not None
    assert graph.coverage.supported == graph.coverage.total
    host = graph.coverage.model_dump()["host"]
    assert {table["name"]: table["choice"] for table in host["tables"]} == {"words": "host", "kinds": "product"}
    package.extract(result.artifact, tmp_path / "model")
    saved = torch.jit.load(str(tmp_path / "model" / graph.file))
    kinds = [node.kind() for node in saved.inlined_graph.nodes()]
    assert kinds.count("neuron::forward_v2_1") == 1
    assert {"aten::embedding", "aten::one_hot"} <= set(kinds)
    assert "aten::linear" not in kinds
    definition = plan(result.spec, rehearse=True).definition
    weights.fill(result.spec, definition)
    for reference in definition.graphs["main"].reference_inputs({"tokens": 6}, 1):
        with torch.no_grad():
            expected = definition.graphs["main"].module(**reference)
            found = saved(*reference.values())
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected.values(), strict=True))


def test_package_answers_the_sample_from_the_graph_that_was_captured(
    tmp_path: Path, stand_in: Scenario, quick: None
) -> None:
    stand_in("success")
    result = compiled(tmp_path, source=WITH_SAMPLE)
    lock, changed = repackage(result.spec, rehearsal=False, reporter=Silent())
    assert (lock, changed) == (result.lock, False)
    beside = result.artifact.with_name("model.graph")
    other = compiled(tmp_path / "other", source=WITH_SAMPLE.replace("torch.tanh(x)", "torch.relu(x)"))
    beside.write_bytes(other.artifact.with_name("model.graph").read_bytes())
    with pytest.raises(CompileError, match="has another graph of main, x 8, batch 1 than the lock was made of"):
        repackage(result.spec, rehearsal=False, reporter=Silent())
    beside.unlink()
    with pytest.raises(CompileError, match=r"model\.graph is not there"):
        repackage(result.spec, rehearsal=False, reporter=Silent())
