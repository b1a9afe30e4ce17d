"""The compile cache: what is there is not compiled again, and what is damaged is never used."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import endpoint_spec as specs
from compile.analysis.variant import AnalyzedVariant
from compile.definition import GraphDefinition, ModelDefinition
from compile.errors import CompileError
from compile.frontend import weights
from compile.pipeline import cache_key, graph
from compile.pipeline import plan as plans
from compile.pipeline.build import Result, build
from compile.pipeline.cache import CAPTURED, Cache
from compile.pipeline.plan import ResolvedPlan, plan, resolve
from compile.progress import Silent
from endpoint_spec.digests import build_content
from tests.compile.projects import ENTRY, WITH_SAMPLE, files, run, write_entry

TWO = "compile: {batch_sizes: [1, 2]}\n"


def cached_build(path: Path, said: list[str] | None = None, limit: int = 10**9) -> Result:
    lines: list[str] = [] if said is None else said
    cache = Cache(path.parents[1] / "build/cache", lines.append, limit)
    return build(resolve(plan(specs.load(path), rehearse=True), Silent()), Silent(), cache)


def variants(root: Path) -> list[Path]:
    return sorted((root / "build/cache").glob(f"*/{CAPTURED}"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The variants that are really made while the test runs."""
    seen: list[str] = []
    capture_variant = graph.capture_variant

    def counted(resolved: ResolvedPlan, analyzed: AnalyzedVariant, *rest: Any) -> graph.CapturedVariant:
        seen.append(str(analyzed.variant))
        return capture_variant(resolved, analyzed, *rest)

    monkeypatch.setattr(graph, "capture_variant", counted)
    return seen


def test_a_second_build_compiles_nothing_and_makes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_entry(tmp_path, WITH_SAMPLE, more=TWO)
    first = cached_build(path)
    assert first.cached == ()
    assert len(variants(tmp_path)) == 2
    before = files(tmp_path)
    assert len(before) == 5
    shutil.rmtree(tmp_path / "build/rehearsal")

    def never(*_: object) -> None:
        raise AssertionError("something was lowered, proven or loaded")

    monkeypatch.setattr(graph, "compare", never)
    monkeypatch.setattr(weights, "fill", never)
    monkeypatch.setattr(plans, "analyzed", never)
    again = cached_build(path)
    assert [str(variant) for variant in again.cached] == ["main, x 8, batch 1", "main, x 8, batch 2"]
    assert files(tmp_path) == before
    assert again.lock == first.lock


def test_another_bucket_leaves_the_first_ones_variant(tmp_path: Path, compiled: list[str]) -> None:
    cached_build(write_entry(tmp_path))
    cached_build(write_entry(tmp_path, more=TWO))
    assert compiled == ["main, x 8, batch 1", "main, x 8, batch 2"]


def test_what_is_asked_of_a_finished_graph_is_no_part_of_its_key(tmp_path: Path, compiled: list[str]) -> None:
    cached_build(write_entry(tmp_path))
    cached_build(write_entry(tmp_path, more="compile: {timeout: 10min, accept: {lowering_tolerance: 1e-4}}\n"))
    assert len(compiled) == 1


def test_weights_and_code_make_another_variant(tmp_path: Path, compiled: list[str]) -> None:
    cached_build(write_entry(tmp_path))
    cached_build(write_entry(tmp_path, weights='"random:1"'))
    cached_build(write_entry(tmp_path, ENTRY.replace("nn.Linear(8, 4)", "nn.Linear(8, 4, bias=False)")))
    cached_build(write_entry(tmp_path))
    assert len(compiled) == 3


WITH_FILE = ENTRY.replace("import torch\n", "import torch\nfrom pathlib import Path\n", 1).replace(
    "        self.layer = nn.Linear(8, 4)",
    "        self.layer = nn.Linear(8, 4)\n        text = Path(__file__).with_name('table.txt').read_text()\n"
    "        WHAT",
)


@pytest.mark.parametrize(
    "what",
    [
        "self.scale = int(text)",
        "self.options = {'a': [float(text)]}",
        "self.register_buffer('scale', torch.tensor(float(text)))",
        "self.layer = nn.Sequential(*[nn.Linear(8, 8) for _ in range(int(text))], nn.Linear(8, 4))",
        "self.layer.stride = type('Config', (), {'__init__': lambda self: setattr(self, 'n', text)})()",
    ],
)
def test_a_file_that_the_entry_reads_makes_another_variant(what: str, tmp_path: Path, compiled: list[str]) -> None:
    path = write_entry(tmp_path, WITH_FILE.replace("WHAT", what))
    for text, made in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
        (tmp_path / "table.txt").write_text(text)
        cached_build(path)
        assert len(compiled) == made


def keyed(path: Path, rehearsal: bool = True, **environment: str) -> str:
    planned = plan(specs.load(path), rehearse=True, check=False)
    found = weights.resolve(planned.spec).report
    known = cache_key.shared(build_content(planned.spec), found, rehearsal, environment)
    return cache_key.key(known, planned.variants[0])


def test_what_a_key_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_entry(tmp_path)
    known = {keyed(path), keyed(path, torch="1.13.1"), keyed(path, torch="2.13.0"), keyed(path, False)}
    known.add(keyed(path, stand_in="True"))
    with torch.no_grad():
        known.add(keyed(path))
    section = "compile: {fast_math: none, lowering: {off: [interpolate]}}\n"
    known |= {keyed(write_entry(tmp_path, more=more)) for more in (section, "compile: {target: inf2}\n")}
    code = cache_key._code()
    assert {
        "compile/lowering/registry.py",
        "compile/analysis/operators.json",
        "endpoint_spec/data/compilers.yaml",
    } <= set(code)
    assert not [name for name in code if name.startswith(("compile/models/", "compile/cli/"))]
    path = write_entry(tmp_path)
    for name in ("compile/lowering/recorder.py", "compile/analysis/operators.json", "compile/verification/parity.py"):
        monkeypatch.setattr(cache_key, "_code", lambda name=name: {**code, name: "changed"})
        known.add(keyed(path))
    assert len(known) == 11
    monkeypatch.undo()
    assert keyed(write_entry(tmp_path)) in known


def test_a_key_does_not_depend_on_where_the_project_lies(tmp_path: Path) -> None:
    assert keyed(write_entry(tmp_path / "a")) == keyed(write_entry(tmp_path / "b/c d"))


def test_what_the_key_of_a_compiled_variant_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"target": "inf1", "keywords": {"compiler_args": ["--fast-math", "none"]}, "bounds": [1e-6]}
    here = {"torch-neuron": "1.13.1.2.11.13.0"}

    def key(graph: str = "a", environment: dict[str, str] = here, **changed: Any) -> str:
        return cache_key.compiled_key(graph, {**asked, **changed}, environment)

    known = {
        key(),
        key("b"),
        key(keywords={}),
        key(bounds=[2e-6]),
        key(environment={}),
        key(environment={"image": "x"}),
    }
    names = [path.name for path in cache_key.driver_files()]
    assert {"driver.py", "job.py", "replay.py", "operators.json"} <= set(names)
    monkeypatch.setattr(cache_key, "driver_files", lambda: [cache_key.PORTABLE / "driver.py"])
    known.add(key())
    assert len(known) == 7
    monkeypatch.undo()
    assert key() in known


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_members(file: Path, content: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def flipped(file: Path, name: str) -> None:
    content = members(file)
    data = bytearray(content[name])
    data[len(data) // 2] ^= 1
    write_members(file, {**content, name: bytes(data)})


def described(file: Path, **changes: Any) -> None:
    """captured.json says something else, and its digest still is what it was before."""
    content = members(file)
    said = json.loads(content["captured.json"]) | changes
    write_members(file, {**content, "captured.json": json.dumps(said).encode()})


GRAPH = "model.graph"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda file: os.truncate(file, 3000), "damaged"),
    "empty": (lambda file: os.truncate(file, 0), "damaged"),
    "no tar": (lambda file: file.write_bytes(b"x" * 5000), "damaged"),
    "a bit of the graph": (lambda file: flipped(file, GRAPH), f"{GRAPH} is missing, unexpected, or has another"),
    "a bit of the description": (
        lambda file: flipped(file, "captured.json"),
        "captured.json is missing, unexpected, or has another",
    ),
    "another parity": (
        lambda file: described(file, unused_inputs=["x"]),
        "captured.json is missing, unexpected, or has another",
    ),
    "no graph": (
        lambda file: write_members(file, {k: v for k, v in members(file).items() if k != GRAPH}),
        f"{GRAPH} is missing",
    ),
    "a file too many": (lambda file: write_members(file, {**members(file), "x/y": b""}), "x/y is"),
    "a path outside": (lambda file: write_members(file, {**members(file), "../x": b""}), "damaged"),
    "no description": (
        lambda file: write_members(file, {k: v for k, v in members(file).items() if k != "files.json"}),
        "files.json is not there",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_said_and_compiled_again(
    damage: Callable[[Path], object], words: str, tmp_path: Path, compiled: list[str]
) -> None:
    path = write_entry(tmp_path)
    lock = cached_build(path).lock
    (variant,) = variants(tmp_path)
    damage(variant)
    said: list[str] = []
    assert cached_build(path, said).lock == lock
    assert len(compiled) == 2
    assert len(said) == 1
    assert said[0].startswith("The compile cache is damaged, main, x 8, batch 1 is made again: ")
    assert words in said[0]
    assert "\n" not in said[0]
    assert cached_build(path).cached


def test_a_variant_under_another_key_is_not_taken(tmp_path: Path, compiled: list[str]) -> None:
    cached_build(write_entry(tmp_path, weights='"random:1"'))
    (other,) = variants(tmp_path)
    path = write_entry(tmp_path)
    cached_build(path)
    (mine,) = (variant for variant in variants(tmp_path) if variant != other)
    mine.write_bytes(other.read_bytes())
    said: list[str] = []
    cached_build(path, said)
    assert len(compiled) == 3
    assert "has the key" in said[0]


def test_a_cache_that_cannot_be_written_stops_no_build(tmp_path: Path) -> None:
    path = write_entry(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/cache").write_text("a file where the folder would be")
    said: list[str] = []
    assert cached_build(path, said).changed
    assert len(said) == 1
    assert re.fullmatch(
        r"captured\.tar of [0-9a-f]{64} is not kept in the compile cache: (File exists|Not a directory)", said[0]
    )


def test_the_least_recently_used_go_beyond_the_limit(tmp_path: Path) -> None:
    cached_build(write_entry(tmp_path))
    (first,) = variants(tmp_path)
    os.utime(first, (1, 1))
    limit = int(1.5 * first.stat().st_size)
    cached_build(write_entry(tmp_path, weights='"random:1"'), limit=limit)
    (left,) = variants(tmp_path)
    assert left != first
    cached_build(write_entry(tmp_path, weights='"random:2"'), limit=1)
    assert len(variants(tmp_path)) == 1  # the newest stays, however large


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_entry(tmp_path)
    asked = ("build", "own", "--rehearse", "--root", str(tmp_path))
    assert run(monkeypatch, *asked, "--no-cache", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cached"] == []
    assert not (tmp_path / "build/cache").exists()
    assert run(monkeypatch, *asked) == 0
    assert "from the cache" not in capsys.readouterr().err
    assert run(monkeypatch, *asked) == 0
    shown = capsys.readouterr()
    assert "(from the cache)" in " ".join(shown.err.split())
    assert "(from the cache)" in " ".join(shown.out.split())
    assert run(monkeypatch, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cached"] == ["main, x 8, batch 1"]
    assert run(monkeypatch, "cache", "--json", "--root", str(tmp_path)) == 0
    (variant,) = json.loads(capsys.readouterr().out)["variants"]
    assert variant["bytes"] == variants(tmp_path)[0].stat().st_size
    assert run(monkeypatch, "cache", "--root", str(tmp_path)) == 0
    assert "1 graphs" in capsys.readouterr().out
    assert run(monkeypatch, "cache", "--empty", "--root", str(tmp_path)) == 0
    assert "Removed 1 graphs" in capsys.readouterr().out
    assert variants(tmp_path) == []


@pytest.mark.parametrize("kind", ["meta", "sparse", "conjugate", "quantized", "bfloat16"])
def test_a_model_may_hold_tensors_of_any_kind(kind: str) -> None:
    plain = torch.tensor([1.0, 0.0, 3.0])
    made = {
        "meta": lambda: plain.to("meta"),
        "sparse": plain.to_sparse,
        "conjugate": (plain * (1 + 1j)).conj,
        "quantized": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        "bfloat16": plain.bfloat16,
    }
    digests = []
    for value in (made[kind](), made[kind]() if kind == "meta" else made[kind]() * 2 if kind != "quantized" else plain):
        module = torch.nn.Linear(3, 3)
        torch.nn.init.ones_(module.weight)
        torch.nn.init.ones_(module.bias)
        module.held = value
        graph_definition = GraphDefinition(module.eval(), lambda *_: {}, lambda *_: [])
        digests.append(cache_key.model_digest(ModelDefinition({"main": graph_definition}, [{"x": 3}], "tensor")))
    assert (digests[0] == digests[1]) == (kind == "meta")


def test_what_is_in_the_cache_is_judged_by_the_spec_of_now(tmp_path: Path, compiled: list[str]) -> None:
    """A finding that another spec accepted is none that this one accepts."""
    decides = ENTRY.replace("return self.layer(x)", "return self.layer(x) * (2 if x.mean() > -50 else 1)")
    cached_build(write_entry(tmp_path, decides, more="compile: {accept: {findings: [data-dependent]}}\n"))
    assert len(compiled) == 1
    with pytest.raises(CompileError, match=r"data-dependent, .*compile\.accept\.findings"):
        cached_build(write_entry(tmp_path, decides))
    assert len(compiled) == 1
