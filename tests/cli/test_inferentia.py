"""The one command: every room's commands are verbs of it, and a room is loaded when its verb runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_group

from cli.verbs import VERBS, find
from compile.cli.app import make_app
from endpoint_spec.__main__ import app as spec_app
from operations.__main__ import app as operations_app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "boto3", "aws_cdk", "moto", "transformers", "pydantic", "endpoint_spec"}


def inferentia(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, check=False, capture_output=True, text=True)


def test_the_help_shows_every_verb_and_loads_no_room() -> None:
    program = (
        "import sys; sys.argv = ['inferentia', '--help']\n"
        "from cli.__main__ import main\n"
        f"try: main()\nfinally: print('LOADED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True)
    assert "LOADED []" in done.stdout
    assert all(f" {verb.name} " in done.stdout for verb in VERBS)


def test_every_command_of_a_room_is_a_verb() -> None:
    rooms: list[typer.Typer] = [make_app(), operations_app, spec_app]
    commands = [name for room in rooms for name in get_group(room).commands]
    assert sorted(commands) == sorted(verb.name for verb in VERBS if verb.name != "rehearsal")


@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_each_verb_is_what_its_module_calls_so(name: str) -> None:
    verb = find(name)
    assert verb is not None
    command = verb.load()
    assert command.name in (name, "")
    assert command.help, "the command's own help"


def test_wrong_use_is_2_and_a_failure_1(tmp_path: Path) -> None:
    unknown = inferentia("nonsense")
    assert (unknown.returncode, "No such command 'nonsense'" in unknown.stderr) == (2, True)
    no_project = inferentia("status", "--offline", cwd=tmp_path)
    assert (no_project.returncode, "holds no endpoints/ folder" in no_project.stderr) == (2, True)
    missing = inferentia("publish", "nobody")
    assert missing.returncode == 2
    assert "nobody" in missing.stderr
    assert "Traceback" not in unknown.stderr + no_project.stderr + missing.stderr


@pytest.mark.parametrize("arguments", ["--help", "check", "schema", "list"])
def test_an_output_that_takes_nothing_is_one_line_and_1(arguments: str) -> None:
    command = [sys.executable, "-m", "cli", *arguments.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_says_that_nothing_is_built(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints/one.yaml").write_text("name: one\nmodel: {family: resnet, weights: 'random:0'}\n")
    done = inferentia("status", "--offline", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"deployed": "not asked"' in done.stdout
    assert "endpoints/one.lock.json is missing" in done.stdout


def test_completion_knows_verbs_and_their_options() -> None:
    asked = {"_INFERENTIA_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "inferentia emp"}
    assert inferentia(**asked).stdout.split() == ["empty-bucket"]
    asked = {"_INFERENTIA_COMPLETE": "complete_bash", "COMP_CWORD": "2", "COMP_WORDS": "inferentia schema --he"}
    assert inferentia(**asked).stdout.split() == ["--help"]
