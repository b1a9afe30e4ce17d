"""Compile jobs without AWS: the bundle, what a job does with it, and adopting what comes back."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from compile.pipeline.cache import Cache, of_project
from compile.pipeline.cache_key import driver_files
from compile.portable import decode, file, job
from compile.portable.kept import pack
from compile.progress import Silent
from compile.remote import bundle
from endpoint_spec import archives, jobs
from endpoint_spec.loading import load
from endpoint_spec.lock import read_lock
from tests.compile.projects import ENTRY, ROOT, WITH_SAMPLE, run, write_entry
from tests.job_python import bare, needs_old

TWO = "compile: {batch_sizes: [1, 2]}\n"
OWN = ROOT / "examples/own-model"
STAND_IN = Path(__file__).parents[1] / "targets" / "stand_in"
CODE = {f"code/{path.relative_to(ROOT).as_posix()}" for path in driver_files()} | {"code/compile/__init__.py"}


@dataclass
class Place:
    """A machine with a job's inputs, outputs and message file."""

    folder: Path
    python: Path = Path(sys.executable)

    @property
    def inputs(self) -> Path:
        return self.folder / "input"

    @property
    def outputs(self) -> Path:
        return self.folder / "output"

    @property
    def bundle(self) -> Path:
        return self.inputs / "project"

    @property
    def plan(self) -> jobs.Plan:
        return jobs.read_plan(self.bundle / jobs.PLAN)

    @property
    def message(self) -> str:
        return (self.folder / "message").read_text()

    def command(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """A job with what SageMaker's container has in its environment, from a folder that is nobody's."""
        known = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.bundle / jobs.CODE)}
        return {
            "args": [str(self.python), "-m", jobs.MODULE, *arguments],
            "cwd": "/",
            "env": known | {"INFERENTIA_MESSAGE_FILE": str(self.folder / "message")} | environment,
        }

    def job(self, index: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        command = self.command(str(index), str(self.inputs), str(self.outputs), **environment)
        return subprocess.run(**command, capture_output=True, text=True, timeout=300, check=False)

    def brought(self, to: Path) -> Path:
        """What operations does: the plan and the compiled variant, under its key."""
        (to / "variants").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.bundle / jobs.PLAN, to)
        text = (self.outputs / "variant" / jobs.VARIANT).read_bytes()
        for variant in self.plan.variants:
            if variant.key.encode() in text[:2000]:
                home = to / "variants" / variant.key
                home.mkdir()
                (home / jobs.VARIANT).write_bytes(text)
        return to


def make(folder: Path, path: Path, *, rehearse: bool = True, environment: str = "") -> Place:
    """A place that a spec's bundle was brought to."""
    place, spec = Place(folder), load(path)
    place.inputs.mkdir(parents=True)
    cache = of_project(spec.root, print)
    bundle.make(spec, place.bundle, rehearse=rehearse, reporter=Silent(), cache=cache, environment=environment)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make(tmp_path / "job", write_entry(tmp_path / "project", WITH_SAMPLE, more=TWO))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The bundle of the example with its own handler, rewrite and local modules."""
    home = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(OWN, home, ignore=shutil.ignore_patterns("build", "__pycache__"))
    return make(home.parent / "job", home / "endpoints/vibration.yaml")


def test_a_bundle_holds_graphs_and_none_of_the_users_code(example: Place) -> None:
    found = {path: (example.bundle / path).read_bytes() for path in jobs.tree_digests(example.bundle)}
    data = {"plan.json", "graph/graph.json", "graph/tensors.safetensors", "trials.safetensors"}
    assert set(found) == CODE | data
    for source in [*OWN.rglob("*.py"), *OWN.rglob("*.yaml")]:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert digest not in {hashlib.sha256(content).hexdigest() for content in found.values()}
        for line in (line for line in source.read_text().splitlines() if len(line) > 40):
            assert not [name for name, content in found.items() if line.encode() in content]
    text = json.dumps([content.decode() for name, content in found.items() if name.endswith(".json")])
    assert str(ROOT) not in text
    assert str(example.folder) not in text
    graphs = decode.read(example.bundle / "graph")
    assert [str(variant) for variant in graphs.variants] == [variant.label for variant in example.plan.variants]
    assert all(variant.references for variant in graphs.variants)
    assert [file.digest(variant) for variant in graphs.variants] == [one.graph for one in example.plan.variants]


def test_the_code_of_a_bundle_imports_torch_and_the_standard_library_alone(example: Place) -> None:
    known = {*sys.stdlib_module_names, "torch", "compile"}
    for path in sorted(name for name in CODE if name.endswith(".py")):
        for node in ast.walk(ast.parse((example.bundle / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in known, f"{path} imports {name}"
                lazy = path == "code/compile/__init__.py"
                assert lazy or not name.startswith("compile.") or name.startswith("compile.portable"), path


def test_a_bundle_is_the_same_from_anywhere(tmp_path: Path) -> None:
    one, other = (make(tmp_path / f"job {n}", write_entry(tmp_path / n / "x", WITH_SAMPLE)) for n in ("a", "b c"))
    assert jobs.tree_digests(one.bundle) == jobs.tree_digests(other.bundle)


def test_the_environment_makes_other_keys(tmp_path: Path) -> None:
    path = write_entry(tmp_path)
    plain, other = make(tmp_path / "one", path).plan, make(tmp_path / "two", path, environment="ami-1").plan
    assert plain.environment == {"image": "pytorch-inference-neuron:" + plain.environment["image"].partition(":")[2]}
    assert other.environment == {**plain.environment, "environment": "ami-1"}
    assert plain.variants[0].key != other.variants[0].key
    assert plain.variants[0].graph == other.variants[0].graph


def test_a_bundle_goes_into_an_empty_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    asked = ("bundle", "own", "--rehearse", "--root", str(tmp_path), "--to")
    assert run(monkeypatch, *asked, str(tmp_path / "full")) == 2
    assert "full is not an empty folder" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, *asked, str(tmp_path / "new"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs_sha256"] == jobs.files_digest(jobs.tree_digests(tmp_path / "new"))
    assert run(monkeypatch, *asked, str(tmp_path / "third")) == 0
    assert found["plan"]["variants"][0]["key"] in capsys.readouterr().out


@needs_old
def test_from_the_bundle_through_torch_1_13_to_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs have torch 1.13.1 and nothing else; what they make is assembled, sampled and locked here."""
    project = tmp_path / "project"
    place = make(tmp_path / "job", write_entry(project, WITH_SAMPLE, more=TWO))
    place.python = bare(tmp_path / "environment")
    lacking = "import importlib.util as u; print([n for n in ('numpy', 'pydantic', 'transformers') if u.find_spec(n)])"
    assert subprocess.check_output([place.python, "-c", lacking], text=True).strip() == "[]"
    result = tmp_path / "result"
    for index in (0, 1):
        done = place.job(index)
        assert done.returncode == 0, done.stderr
        assert f"batch {index + 1}: compiled in" in done.stdout
        place.brought(result)
    record = place.outputs / "record" / "main-x_8-batch_2"
    assert {"compile.log", "request.json", "result.json"} <= {path.name for path in record.iterdir()}

    def never(*_: object) -> None:
        raise AssertionError("it was captured again")

    monkeypatch.setattr("compile.pipeline.graph.capture_variant", never)
    asked = ("adopt", "own", "--from", str(result), "--root", str(project))
    assert run(monkeypatch, *asked) == 1
    assert "is a rehearsal of own" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, *asked, "--rehearse") == 0
    lock = read_lock(project / "build/rehearsal/own.lock.json")
    assert lock.rehearsal
    assert lock.versions["torch"] == torch.__version__
    assert lock.versions["traced-with-torch"].startswith("1.13.1")
    assert lock.sample is not None
    for details in lock.parity.details.values():
        assert 0 <= details["replayed"]["output"] <= 2 * details["outputs"][0]["bound"]
    with zipfile.ZipFile(_graph(project)) as graph:
        assert graph.read(f"{graph.namelist()[0].split('/')[0]}/version").strip() == b"3"  # as torch 1.13 writes it


def _graph(project: Path) -> Path:
    archives.extract(project / "build/rehearsal/own/model.tar.gz", project / "unpacked", compressed=True)
    return project / "unpacked/graphs/main-x_8-batch_1.pt"


def test_a_stand_in_compiles_and_its_lock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    place = make(tmp_path / "job", write_entry(project, WITH_SAMPLE), rehearse=False)
    code = place.bundle / jobs.CODE
    done = place.job(PYTHONPATH=f"{code}:{STAND_IN}", NEURON_STAND_IN="success")
    assert done.returncode == 0, done.stderr
    assert "INFO:Neuron:" in done.stdout
    # The container's torch is 1.13.1, and this job ran another: a stand-in may.
    result = place.brought(tmp_path / "result")
    assert run(monkeypatch, "adopt", "own", "--from", str(result), "--root", str(project), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lock"]["stand_in"]
    assert found["variants"][0]["record"] == "build/record/own/main-x_8-batch_1"
    assert (project / "build/record/own/main-x_8-batch_1/compile.log").read_text() in done.stdout
    assert found["lock"]["parity"]["details"]["graphs/main-x_8-batch_1.pt"]["device"]["output"]["cosine"] > 0.999


def test_a_compiler_that_fails_leaves_its_log_and_its_reason(tmp_path: Path) -> None:
    place = make(tmp_path / "job", write_entry(tmp_path / "project"), rehearse=False)
    done = place.job(PYTHONPATH=f"{place.bundle / jobs.CODE}:{STAND_IN}", NEURON_STAND_IN="killed")
    assert done.returncode == 1
    assert place.message.startswith("main, x 8, batch 1: the compiler was killed (-9)")
    assert place.message.count("\n") == 1
    assert len(place.message.encode()) <= 1001
    assert (place.outputs / "record/main-x_8-batch_1/compile.log").is_file()
    assert not (place.outputs / "variant").exists()


def test_without_the_neuron_sdk_the_job_says_so(tmp_path: Path) -> None:
    place = make(tmp_path / "job", write_entry(tmp_path / "project"), rehearse=False)
    assert place.job().returncode == 1
    assert place.message.startswith("main, x 8, batch 1: torch_neuron cannot be imported here: missing torch_neuron")


def test_what_a_job_computes_otherwise_is_one_error_with_the_node(place: Place) -> None:
    graph = place.bundle / "graph/graph.json"
    content = json.loads(graph.read_text())
    first, second = content["graphs"][0]["references"][:2]
    first["outputs"] = second["outputs"]
    graph.write_text(json.dumps(content))
    stated(place, "graph/graph.json")
    assert place.job().returncode == 1
    assert "output output of reference 0 differs by" in place.message
    assert " here, " in place.message
    assert " was recorded" in place.message


def stated(place: Place, name: str) -> None:
    """The plan states the digest that a file has now."""
    text = place.plan.model_dump(mode="json")
    text["files"][name] = jobs.tree_digests(place.bundle)[name]
    (place.bundle / jobs.PLAN).write_text(json.dumps(text))


def test_a_graph_with_another_operator_is_refused(place: Place) -> None:
    graph = place.bundle / "graph/graph.json"
    graph.write_text(graph.read_text().replace("aten::tanh", "aten::rand_like"))
    stated(place, "graph/graph.json")
    assert place.job().returncode == 1
    assert "aten::rand_like" in place.message


@pytest.mark.parametrize("name", ["graph/tensors.safetensors", "code/compile/portable/driver.py", "trials.safetensors"])
def test_nothing_runs_unless_its_digest_is_the_plans(place: Place, name: str) -> None:
    with (place.bundle / name).open("ab") as damaged:
        damaged.write(b"\n")
    assert place.job().returncode == 1
    assert f"{name} of the bundle has sha256" in place.message


def test_what_did_not_arrive_is_named(place: Place) -> None:
    (place.bundle / "trials.safetensors").unlink()
    assert place.job().returncode == 1
    assert "trials.safetensors of the bundle is missing. Submit again." in place.message
    (place.bundle / "plan.json").write_text("{")
    assert place.job().returncode == 1
    assert "plan.json of the bundle cannot be read" in place.message


@pytest.mark.parametrize("arguments", [(), ("x", "in", "out"), ("1", "in"), ("-1", "in", "out")])
def test_wrong_use_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(arguments) == 2
    assert "usage: " in capsys.readouterr().err


def test_a_variant_that_the_plan_does_not_have(place: Place) -> None:
    assert place.job(2).returncode == 1
    assert place.message == "The plan has 2 variants, there is none with the index 2.\n"


def wheel(folder: Path) -> str:
    """A wheel named extra with one command; returns its line of requirements.txt."""
    name = "extra-1.0-py3-none-any.whl"
    meta = {
        "extra.py": "def main(): print('the command ran')\n",
        "extra-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n",
        "extra-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "extra-1.0.dist-info/entry_points.txt": "[console_scripts]\nextra = extra:main\n",
    }
    rows = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}\n"
        for path, text in meta.items()
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**meta, "extra-1.0.dist-info/RECORD": rows + "extra-1.0.dist-info/RECORD,,\n"}.items():
            archive.writestr(path, text)
    folder.mkdir()
    (folder / name).write_bytes(made.getvalue())
    return f"extra==1.0 --hash=sha256:{hashlib.sha256(made.getvalue()).hexdigest()}\n"


def test_wheels_are_installed_by_their_hashes_with_their_commands(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = wheel(place.inputs / "wheels")
    (place.inputs / "wheels" / jobs.REQUIREMENTS).write_text(line)
    found = job._wheels(place.inputs / "wheels", place.folder / "installed")
    printed = subprocess.check_output(["extra"], env={**os.environ, **found}, text=True)
    assert printed == "the command ran\n"
    (place.inputs / "wheels" / jobs.REQUIREMENTS).write_text(line[:-2] + ("0\n" if line[-2] != "0" else "1\n"))
    assert place.job().returncode == 1
    assert place.message == "The wheels cannot be installed; pip's own words are in the log.\n"
    (place.inputs / "wheels" / jobs.REQUIREMENTS).write_text("# nothing\n")
    assert job._wheels(place.inputs / "wheels", place.folder / "other") == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_stopped_says_so_and_leaves_no_compiler(tmp_path: Path, number: signal.Signals) -> None:
    place = make(tmp_path / "job", write_entry(tmp_path / "project"), rehearse=False)
    environment = {"PYTHONPATH": f"{place.bundle / jobs.CODE}:{STAND_IN}", "NEURON_STAND_IN": "hang"}
    command = place.command("0", str(place.inputs), str(place.outputs), **environment)
    running = subprocess.Popen(**command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    called = place.outputs / "record/main-x_8-batch_1/compiler/called.json"
    while not called.is_file():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.05)
    running.send_signal(number)
    assert running.wait(30) == 143
    assert place.message == "The job was stopped.\n"
    inside = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(path)]
    assert inside == []
    assert not list(place.folder.glob("scratch-*"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def result(tmp_path: Path) -> tuple[Path, Path, Place]:
    """A project, the result of a rehearsal's run, and where it ran."""
    project = tmp_path / "project"
    place = make(tmp_path / "job", write_entry(project, WITH_SAMPLE))
    assert place.job().returncode == 0
    return project, place.brought(tmp_path / "result"), place


def test_what_adopt_refuses(
    result: tuple[Path, Path, Place], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, folder, place = result
    (variant,) = folder.glob("variants/*/variant.tar")
    sound, plan = variant.read_bytes(), (folder / jobs.PLAN).read_text()

    def refused(words: str, code: int = 1, source: Path = folder) -> None:
        before = sorted(path for path in project.rglob("*") if "cache" not in path.parts and "record" not in path.parts)
        assert run(monkeypatch, "adopt", "own", "--from", str(source), "--rehearse", "--root", str(project)) == code
        assert words in " ".join(capsys.readouterr().err.split())
        after = sorted(path for path in project.rglob("*") if "cache" not in path.parts and "record" not in path.parts)
        assert [path for path in after if path not in before and path.suffix] == []

    refused("is no folder", 2, folder / "none")
    variant.write_bytes(sound[:3000])
    refused("is damaged")
    variant.unlink()
    refused("cannot be read: variant.tar is not there")
    pack(place.folder, ("message",), "0" * 64, variant)
    refused("has the key 000")
    variant.write_bytes(sound)
    for change, words in (
        ({"name": "other"}, "The run is of other, not of own."),
        ({"rehearsal": False}, "is no rehearsal of own"),
        ({"build_digest": "0" * 64}, "own changed since it was sent"),
        ({"format": 1}, "plan.json: format"),
    ):
        (folder / jobs.PLAN).write_text(json.dumps({**json.loads(plan), **change}))
        refused(words)
    other = json.loads(plan)
    other["variants"][0]["graph"] = "1" * 64
    (folder / jobs.PLAN).write_text(json.dumps(other))
    refused("the run was given 1111")
    (folder / jobs.PLAN).write_text(plan)
    (project / "model.py").write_text(ENTRY.replace("torch.tanh(x)", "torch.relu(x)"))
    refused("own changed since it was sent")


@pytest.mark.slow
def test_a_cache_that_was_emptied_is_captured_again(
    result: tuple[Path, Path, Place], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, folder, _ = result
    Cache(project / "build/cache", print).empty()
    asked = ("adopt", "own", "--from", str(folder), "--rehearse", "--root", str(project), "--json")
    assert run(monkeypatch, *asked) == 0
    assert json.loads(capsys.readouterr().out)["changed"]
    assert run(monkeypatch, *asked) == 0
    assert not json.loads(capsys.readouterr().out)["changed"]


@pytest.mark.slow
def test_variants_of_different_versions_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    place = make(tmp_path / "job", write_entry(project, more=TWO))
    for index in (0, 1):
        assert place.job(index).returncode == 0
        folder = place.brought(tmp_path / "result")
    key = place.plan.variants[1].key
    variant = folder / "variants" / key / jobs.VARIANT
    unpacked = tmp_path / "unpacked"
    archives.extract(variant, unpacked, compressed=False)
    found = json.loads((unpacked / "result.json").read_text())
    found["found"]["torch"] = "1.12.0"
    (unpacked / "result.json").write_text(json.dumps(found))
    pack(unpacked, [path.name for path in unpacked.iterdir() if path.name != "files.json"], key, variant)
    assert run(monkeypatch, "adopt", "own", "--from", str(folder), "--rehearse", "--root", str(project)) == 1
    text = " ".join(capsys.readouterr().err.split())
    assert "were not made alike: traced-with-torch is" in text
    assert "1.12.0 for main, x 8, batch 2" in text
