"""Compile jobs without AWS: the bundle, start.sh with both of its tasks, and adopting what comes back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compile.cli.jobs import _leave
from compile.frontend import weights
from compile.packaging import archive as package
from compile.packaging.archive import write_tar
from compile.progress import Silent
from compile.remote import bundle, log_tail
from compile.targets import process_runner as target_job
from endpoint_spec import archives, jobs
from endpoint_spec.digests import digest, file_digest, handler_digest
from endpoint_spec.loading import load
from endpoint_spec.lock import read_lock
from tests.compile.projects import ROOT, WITH_SAMPLE, rehearse, run, write_entry
from tests.compile.targets.helpers import in_this_process

TWO = "compile: {batch_sizes: [1, 2]}\n"
OWN = ROOT / "examples/own-model"
SCRIPT = ROOT / "compile/remote/start.sh"
STAND_IN = Path(__file__).parents[1] / "targets" / "stand_in"


@dataclass
class Place:
    """A machine with a job's inputs, outputs and message file."""

    folder: Path
    shell: str = "sh"

    @property
    def inputs(self) -> Path:
        return self.folder / "input"

    @property
    def outputs(self) -> Path:
        return self.folder / "output"

    @property
    def message(self) -> Path:
        return self.folder / "output-of-the-job" / "message"

    @property
    def plan(self) -> jobs.Plan:
        return jobs.read_plan(self.inputs / "project" / jobs.PLAN)

    def start(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """start.sh with what SageMaker's container has in its environment, from a folder that is nobody's."""
        known = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder.parent),
            "OMP_NUM_THREADS": "1",
            "PYTHON": sys.executable,
        }
        return subprocess.run(
            [self.shell, str(self.inputs / "project" / jobs.START), *arguments],
            cwd="/",
            env=known | {"INFERENTIA_MESSAGE_FILE": str(self.message)} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *task: str) -> subprocess.CompletedProcess[str]:
        """What start.sh does when everything was found right, in this process: a Python with torch takes seconds."""
        said = io.StringIO()
        root = self.folder / "scratch.here"
        package.extract(self.inputs / "project" / jobs.PROJECT, root)
        asked = ("--inputs", str(self.inputs), "--outputs", str(self.outputs), "--root", str(root / "project"))
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
            patch.setenv("INFERENTIA_MESSAGE_FILE", str(self.message))
            code = run(patch, "job", *task, *asked)
        shutil.rmtree(root)
        return subprocess.CompletedProcess(task, code, "", said.getvalue())

    def variant(self, index: int) -> subprocess.CompletedProcess[str]:
        return self.run("variant", str(index))

    def gather(self) -> subprocess.CompletedProcess[str]:
        return self.run("gather")

    def bring(self, index: int) -> Path:
        """What S3 and the manifest do: the variant comes to the job that gathers, under its key."""
        target = self.inputs / "variants" / self.plan.variants[index].key / jobs.VARIANT
        target.parent.mkdir(parents=True)
        shutil.move(self.outputs / "variant" / jobs.VARIANT, target)
        return target


def make(folder: Path, path: Path, *, rehearse: bool = True, environment: str = "") -> Place:
    """A place that a spec's bundle was brought to, with an empty set of wheels."""
    place = Place(folder)
    (place.inputs / "wheels").mkdir(parents=True)
    (place.inputs / "wheels" / jobs.REQUIREMENTS).write_text("# nothing\n")
    spec = load(path)
    bundle.make(spec, place.inputs / "project", rehearse=rehearse, reporter=Silent(), environment=environment)
    return place


def own_model(tmp_path: Path) -> Path:
    shutil.copytree(OWN, tmp_path / "project", ignore=shutil.ignore_patterns("build", "__pycache__"))
    return tmp_path / "project/endpoints/vibration.yaml"


def test_what_a_bundle_holds(tmp_path: Path) -> None:
    path = own_model(tmp_path)
    (path.parents[1] / "secret.txt").write_text("not part of it")
    (path.parents[1] / "models/unused.py").write_text("")
    place = make(tmp_path / "job", path)
    project = place.inputs / "project"
    assert sorted(jobs.tree_digests(project)) == ["archives.py", "plan.json", "project.tar.gz", "start.sh"]
    plan = place.plan
    assert (plan.name, plan.target, plan.rehearsal, plan.where) == ("vibration", "inf1", True, "processing")
    assert [variant.label for variant in plan.variants] == ["main, samples 256, batch 1", "main, samples 256, batch 4"]
    assert plan.files == {
        name: jobs.tree_digests(project)[name] for name in ("archives.py", "project.tar.gz", "start.sh")
    }
    assert plan.environment["torch"] == str(torch.__version__)
    with tarfile.open(project / "project.tar.gz") as tar:
        names = tar.getnames()
    assert [name for name in names if name.startswith("project/")] == [
        "project/endpoints/vibration.yaml",
        "project/models/vibration.py",
        "project/models/vibration_handler.py",
        "project/models/windows.py",
    ]
    rooms = {name.split("/")[1] for name in names if name.startswith("code/")}
    assert rooms == {"endpoint_spec", "compile", "inference_code"}
    assert {"code/compile/analysis/operators.json", "code/endpoint_spec/data/compile_machines.yaml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_a_bundle_is_the_same_from_anywhere(tmp_path: Path) -> None:
    digests = []
    for folder in ("a", "b/c d"):
        path = write_entry(tmp_path / folder)
        for file in (tmp_path / folder).rglob("*"):
            os.utime(file, (1, 1))
        place = make(tmp_path / f"job of {folder.replace('/', ' ')}", path)
        digests.append(jobs.tree_digests(place.inputs / "project"))
    assert digests[0] == digests[1]


def test_the_environment_makes_other_keys(tmp_path: Path) -> None:
    path = write_entry(tmp_path)
    one, other = (make(tmp_path / word, path, environment=word).plan for word in ("ami-1", "ami-2"))
    assert one.variants[0].key != other.variants[0].key
    assert one.build_digest == other.build_digest


def test_a_bundle_goes_into_an_empty_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_entry(tmp_path)
    asked = ("bundle", "own", "--rehearse", "--root", str(tmp_path), "--to")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    assert run(monkeypatch, *asked, str(tmp_path / "full")) == 2
    assert "not an empty folder" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, *asked, str(tmp_path / "new"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs_sha256"] == jobs.files_digest(jobs.tree_digests(tmp_path / "new"))
    assert said["plan"]["name"] == "own"
    assert run(monkeypatch, *asked, str(tmp_path / "another")) == 0
    assert "variant 0" in capsys.readouterr().out
    assert not list(tmp_path.glob(".staging*"))


@pytest.mark.slow  # three Pythons with torch and a build; the embedded AWS runs the same script in every test run
def test_the_whole_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Bundle, both variants, gather, adopt: what comes back is what a build here makes."""
    path = own_model(tmp_path)
    place = make(tmp_path / "job", path)
    for index in (0, 1):
        ended = place.start("variant", str(index), str(place.inputs), str(place.outputs))
        assert ended.returncode == 0, ended.stderr
        assert f"trace: main, samples 256, batch {(1, 4)[index]}: done in" in ended.stderr
        place.bring(index)
    ended = place.start("gather", str(place.inputs), str(place.outputs))
    assert ended.returncode == 0, ended.stderr
    assert "trace" not in ended.stderr
    assert not place.message.exists()
    assert sorted(path.name for path in place.folder.iterdir()) == ["input", "output"]
    result_folder = place.outputs / "result"
    result = jobs.read_result(result_folder / jobs.RESULT)
    assert (result.name, result.rehearsal, result.stand_in) == ("vibration", True, False)
    assert result.build_digest == place.plan.build_digest

    here = rehearse(path).lock
    shutil.rmtree(path.parents[1] / "build")
    root = str(path.parents[1])
    asked = ("adopt", "vibration", "--from", str(result_folder), "--rehearse", "--root", root)
    assert run(monkeypatch, *asked, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["changed"] is True
    lock = read_lock(path.parents[1] / said["lock_path"])
    assert (lock.digests, lock.artifact, lock.graphs) == (here.digests, here.artifact, here.graphs)
    assert lock.digests.handler == handler_digest(load(path))
    assert run(monkeypatch, *asked) == 0
    assert "the same already" in " ".join(capsys.readouterr().out.split())
    assert sorted(path.name for path in result_folder.iterdir()) == [jobs.LOCK, jobs.ARTIFACT, jobs.RESULT]
    assert run(monkeypatch, "verify", "vibration", "--rehearse", "--root", root) == 0


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A job whose two variants are compiled; tests copy it."""
    folder = tmp_path_factory.mktemp("brought")
    place = make(folder / "job", write_entry(folder / "own", more=TWO))
    for index in (0, 1):
        assert place.variant(index).returncode == 0
        place.bring(index)
    return place


@pytest.fixture
def job(brought: Place, tmp_path: Path) -> Place:
    shutil.copytree(brought.folder, tmp_path / "job")
    return Place(tmp_path / "job")


def started(place: Place, **environment: str) -> subprocess.CompletedProcess[str]:
    return place.start("variant", "0", str(place.inputs), str(place.outputs), **environment)


def refused(ended: subprocess.CompletedProcess[str], place: Place, *words: str, code: int = 1) -> None:
    """A failure with one clear line in the message file and on stderr, and no scratch folder left."""
    assert ended.returncode == code, ended.stderr
    said = place.message.read_text()
    assert said.count("\n") == 1
    for word in words:
        assert word in said
        assert word in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not list(place.folder.glob("scratch.*"))
    assert not list(place.outputs.glob("result/*"))


def test_a_missing_variant_is_named(job: Place) -> None:
    shutil.rmtree(job.inputs / "variants" / job.plan.variants[1].key)
    refused(
        job.gather(), job, "The variant main, x 8, batch 2 cannot be gathered", "is not there", job.plan.variants[1].key
    )


def test_a_damaged_variant_is_named(job: Place) -> None:
    variant = job.inputs / "variants" / job.plan.variants[0].key / jobs.VARIANT
    os.truncate(variant, 3000)
    refused(job.gather(), job, "The variant main, x 8, batch 1 cannot be gathered", "damaged")


def test_variants_of_different_versions_are_not_mixed(job: Place) -> None:
    variant = job.inputs / "variants" / job.plan.variants[1].key / jobs.VARIANT
    archives.extract(variant, job.folder / "open", compressed=False)
    described = job.folder / "open/variant.json"
    said = json.loads(described.read_text())
    said.pop("checksum")
    said["versions"]["transformers"] = "1.0"
    described.write_text(json.dumps({**said, "checksum": digest(said)}))
    write_tar(job.folder / "open", variant)
    shutil.rmtree(job.folder / "open")
    refused(job.gather(), job, "transformers is ", "1.0 for main, x 8, batch 2")


@pytest.mark.parametrize("name", ["project.tar.gz", "start.sh"])
def test_nothing_runs_before_its_digest_is_the_plans(job: Place, name: str) -> None:
    with (job.inputs / "project" / name).open("ab") as stream:
        stream.write(b"\n# changed\n")
    refused(started(job), job, f"{name} of the bundle has sha256", "plan.json says")


def test_files_that_did_not_arrive(job: Place) -> None:
    (job.inputs / "project/project.tar.gz").rename(job.folder / "lost")
    refused(started(job), job, "project.tar.gz of the bundle is missing")
    (job.folder / "lost").rename(job.inputs / "project/project.tar.gz")
    (job.inputs / "project/plan.json").unlink()
    refused(started(job), job, "There is no plan.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "usage"),
        (("variant", "0"), "usage"),
        (("variant", "x", "a", "b"), "not a number"),
        (("gather", "a"), "usage"),
    ],
)
def test_wrong_use_of_the_script(job: Place, arguments: tuple[str, ...], words: str) -> None:
    refused(job.start(*arguments), job, words, code=2)


def test_a_variant_that_the_plan_does_not_have(job: Place) -> None:
    refused(job.variant(7), job, "The plan has 2 variants, there is none with the index 7")


def test_a_plan_of_another_build_is_refused(job: Place) -> None:
    file = job.inputs / "project/plan.json"
    file.write_text(jobs.dump(job.plan.model_copy(update={"build_digest": "0" * 64})))
    refused(job.variant(0), job, "build digest", "0" * 64)


def test_a_variant_gets_under_no_key_but_its_own(job: Place) -> None:
    variants = [variant.model_copy(update={"key": f"{variant.index}" * 64}) for variant in job.plan.variants]
    (job.inputs / "project/plan.json").write_text(jobs.dump(job.plan.model_copy(update={"variants": variants})))
    refused(job.variant(0), job, "the plan states " + "0" * 64)


def test_without_the_neuron_sdk_the_job_says_what_a_user_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_neuron", None)  # as where it is not installed
    place = make(tmp_path / "job", write_entry(tmp_path), rehearse=False)
    assert "image" in place.plan.environment
    refused(place.variant(0), place, "Target inf1 needs torch_neuron, which is not installed here.", "neuron-cc")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for the SDK, and variants compiled in this process."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.delitem(sys.modules, "torch_neuron", raising=False)
    monkeypatch.setattr(target_job, "_watch", in_this_process)
    yield
    sys.modules.pop("torch_neuron", None)


@pytest.mark.usefixtures("stand_in")
def test_a_stand_in_compiles_for_a_plan_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_entry(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_neuron", None)
        without = make(tmp_path / "without", path, rehearse=False)
    refused(without.variant(0), without, "A stand-in for the Neuron SDK: True here, False where")
    place = make(tmp_path / "with", path, rehearse=False)
    assert place.plan.variants[0].key != without.plan.variants[0].key
    ended = place.variant(0)
    assert ended.returncode == 0, ended.stderr
    (log,) = place.outputs.glob("record/*/compile.log")
    assert log.read_text().splitlines()
    assert set(log.read_text().splitlines()) <= set(ended.stderr.splitlines())  # forwarded while it grew
    place.bring(0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_neuron", None)  # to gather needs no compiler
        ended = place.gather()
    assert ended.returncode == 0, ended.stderr
    lock = read_lock(place.outputs / "result" / jobs.LOCK)
    assert (lock.stand_in, lock.rehearsal) == (True, False)
    assert lock.graphs[0].coverage is not None
    assert not lock.graphs[0].coverage.predicted
    assert "torch-neuron" in lock.versions
    asked = ("adopt", "own", "--from", str(place.outputs / "result"), "--root", str(tmp_path))
    assert run(monkeypatch, *asked) == 0
    assert read_lock(tmp_path / "endpoints/own.lock.json").stand_in


@pytest.mark.usefixtures("stand_in")
def test_a_compiler_that_fails_leaves_its_log_and_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make(tmp_path / "job", write_entry(tmp_path), rehearse=False)
    monkeypatch.setenv("NEURON_STAND_IN", "killed")
    refused(place.variant(0), place, "-9")
    assert list(place.outputs.glob("record/*/compile.log"))
    assert not list(place.outputs.glob("variant/*"))


def weighted(tmp_path: Path) -> Path:
    file = tmp_path / "weights/own.safetensors"
    file.parent.mkdir(parents=True)
    save_file({"layer.weight": torch.ones(4, 8), "layer.bias": torch.zeros(4)}, file)
    return write_entry(tmp_path, weights="{file: weights/own.safetensors}")


def test_weights_travel_and_are_checked(tmp_path: Path) -> None:
    path = weighted(tmp_path / "own")
    place = make(tmp_path / "job", path)
    carried = place.inputs / "project/weights/weights/own.safetensors"
    assert "weights/weights/own.safetensors" in place.plan.files
    assert place.variant(0).returncode == 0
    place.bring(0)
    ended = place.gather()
    assert ended.returncode == 0, ended.stderr
    assert read_lock(place.outputs / "result" / jobs.LOCK).weights == rehearse(path).lock.weights
    shutil.rmtree(place.outputs)
    content = bytearray(carried.read_bytes())
    carried.unlink()
    content[-1] ^= 1
    carried.write_bytes(content)
    refused(started(place), place, "weights/weights/own.safetensors of the bundle has sha256")


def test_weights_of_the_hub_are_brought_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job finds them at a path that no revision can lead out of; it asks no hub."""
    file = tmp_path / "cache/model.safetensors"
    file.parent.mkdir()
    save_file({"layer.weight": torch.ones(4, 8), "layer.bias": torch.zeros(4)}, file)
    monkeypatch.setattr(weights, "hf_hub_download", lambda *_, **__: str(file))
    path = write_entry(tmp_path / "own", weights='"hub:org/net@../../main"')
    place = make(tmp_path / "job", path)
    assert "weights/build/weights/org--net@..--..--main/model.safetensors" in place.plan.files
    monkeypatch.setattr(weights, "hf_hub_download", None)
    ended = place.variant(0)
    assert ended.returncode == 0, ended.stderr


def test_wheels_are_installed_by_their_hashes_alone(job: Place) -> None:
    (job.inputs / "wheels" / jobs.REQUIREMENTS).write_text(f"nothing-there==1.0 --hash=sha256:{'0' * 64}\n")
    refused(started(job), job, "The wheels cannot be installed")


def write_wheel(folder: Path) -> str:
    """A wheel with a module and a command; returns its requirement with the hash."""
    info = "probe-1.0.dist-info"
    content = {
        "probe.py": "def main():\n    print('the command ran')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nprobe-command = probe:main\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "probe-1.0-py3-none-any.whl", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return f"probe==1.0 --hash=sha256:{file_digest(folder / 'probe-1.0-py3-none-any.whl')}\n"


def test_wheels_are_found_with_their_commands(job: Place, tmp_path: Path) -> None:
    (job.inputs / "wheels" / jobs.REQUIREMENTS).write_text(write_wheel(job.inputs / "wheels"))
    python = tmp_path / "python"
    asked = f'"$2" = compile ] && {sys.executable} -c "import probe; print(probe.__file__)" && exec probe-command'
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && [ {asked}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    ended = started(job, PYTHON=str(python))
    assert ended.returncode == 0, ended.stderr
    where, said = ended.stdout.splitlines()
    assert where.startswith(str(job.folder / "scratch."))  # beside what is installed, not in it
    assert said == "the command ran"
    assert not list(job.folder.glob("scratch.*"))


def test_a_job_that_is_killed_says_so(job: Place, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && kill -9 $$\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    refused(started(job, PYTHON=str(python)), job, "killed (-9)", code=137)


def test_a_signal_reaches_the_job(job: Place, tmp_path: Path) -> None:
    """SageMaker stops a job with SIGTERM to the shell."""
    python = tmp_path / "python"
    waiting = "import sys, time; print('waiting', flush=True); time.sleep(60)"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && exec {sys.executable} -c "{waiting}"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "INFERENTIA_MESSAGE_FILE": str(job.message)}
    command = ["sh", str(job.inputs / "project/start.sh"), "variant", "0", str(job.inputs), str(job.outputs)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.terminate()
        assert process.wait(30) == 143
    assert job.message.read_text() == "The job was stopped.\n"
    assert not list(job.folder.glob("scratch.*"))


def test_a_log_is_told_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "_SECONDS", 0.01)
    log, said = tmp_path / "main/compile.log", list[str]()
    with log_tail.forward(tmp_path, said.append):
        log.parent.mkdir()
        log.write_bytes(b"one\ntw")
        for _ in range(500):
            if said:
                break
            time.sleep(0.01)
        assert said == ["one"]
        log.write_bytes(b"one\ntwo\nthr\xff")
    assert said == ["one", "two", "thr\ufffd"]


def test_a_message_is_one_line_that_sagemaker_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENTIA_MESSAGE_FILE", str(tmp_path / "message"))
    _leave("what\n  -> do\n" + "\u00e9" * 1000)
    said = (tmp_path / "message").read_bytes()
    assert said.startswith(b"what do ")
    assert len(said) <= 1024
    assert said.decode().count("\n") == 1


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_is_clean() -> None:
    subprocess.run(["shellcheck", "-s", "sh", str(SCRIPT)], check=True)


@pytest.fixture
def result(job: Place, tmp_path: Path) -> Path:
    """A project with the result of its run beside it."""
    assert job.gather().returncode == 0
    write_entry(tmp_path / "own", more=TWO)
    shutil.copytree(job.outputs / "result", tmp_path / "own/result")
    return tmp_path / "own"


def test_what_adopt_refuses(result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def adopt(*more: str, name: str = "own") -> tuple[int, str]:
        code = run(monkeypatch, "adopt", name, "--from", str(result / "result"), "--root", str(result), *more)
        assert not (result / "endpoints/own.lock.json").exists()
        assert not list((result / "build").rglob("*.tar.gz"))
        return code, " ".join(capsys.readouterr().err.split())

    code, said = adopt()
    assert (code, "is a rehearsal of own" in said, "--rehearse" in said) == (1, True, True)
    write_entry(result, name="other", more=TWO)
    code, said = adopt("--rehearse", name="other")
    assert (code, "of own, not of other" in said) == (1, True)

    for name in (jobs.ARTIFACT, jobs.LOCK):
        whole = (result / "result" / name).read_bytes()
        (result / "result" / name).write_bytes(whole[:-10])
        code, said = adopt("--rehearse")
        assert (code, f"{name} has {len(whole) - 10} bytes" in said, "states" in said) == (1, True, True)
        (result / "result" / name).unlink()
        code, said = adopt("--rehearse")
        assert (code, f"{name} is not there" in said) == (1, True)
        (result / "result" / name).write_bytes(whole)

    text = (result / "result" / jobs.RESULT).read_text()
    (result / "result" / jobs.RESULT).write_text(text[:20])
    code, said = adopt("--rehearse")
    assert (code, "result.json is not JSON" in said) == (1, True)
    (result / "result" / jobs.RESULT).write_text(text.replace('"rehearsal": true', '"rehearsal": false'))
    code, said = adopt("--rehearse")
    assert (code, "is no rehearsal of own" in said) == (1, True)
    code, said = adopt()
    assert (code, "rehearsal: result.json states False, lock.json states True" in said) == (1, True)
    (result / "result" / jobs.RESULT).write_text(text)

    changed = result / "model.py"
    changed.write_text(changed.read_text() + "\n# another model\n")
    built = json.loads(text)["build_digest"]
    code, said = adopt("--rehearse")
    assert (code, f"the run built {built}, the spec is now" in said) == (1, True)


def test_adopting_keeps_the_artifact_before(
    result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = result / "endpoints/own.yaml"
    before = rehearse(write_entry(result, WITH_SAMPLE)).lock
    write_entry(result, more=TWO)
    asked = ("adopt", "own", "--from", str(result / "result"), "--rehearse", "--root", str(result))
    assert run(monkeypatch, *asked) == 0
    lock = read_lock(result / "build/rehearsal/own.lock.json")
    assert lock.previous == before.artifact
    assert (result / "build/rehearsal/own/previous.tar.gz").is_file()
    assert load(path).name == lock.name
    capsys.readouterr()
