"""Digests: equal wherever the checkout lies, and different exactly when what they stand for is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from endpoint_spec import EndpointSpec, SpecErrors, digests, load, places
from endpoint_spec.digests import (
    build_digest,
    definition_code,
    file_digest,
    handler_digest,
    local_sources,
    text_digest,
)
from tests.endpoint_spec.projects import FULL, SMALL, fill

OWN = FULL.replace(", sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an installation, small enough to change."""
    root = tmp_path / "installed"
    for file, text in {
        "compile/__init__.py": "class ModelDefinition: ...\n",
        "compile/models/__init__.py": "",
        "compile/models/_shared.py": "",
        "compile/models/depth_anything_v2.py": "import compile.models\nfrom compile.models.parts import image\n",
        "compile/models/parts/image.py": "from . import sizes\n",
        "compile/models/parts/sizes.py": "from compile.lowering import rules\n",
        "compile/models/parts/other.py": "",
        "compile/models/bert.py": "def build(): ...\n",
        "compile/lowering/rules.py": "",
        "inference_code/__init__.py": "",
        "inference_code/tasks/depth_estimation.py": "SIZE = 518\n",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    monkeypatch.setattr("endpoint_spec.places.INSTALLED", root)
    monkeypatch.setattr("endpoint_spec.digests.INSTALLED", root)
    return root


def at(root: Path, text: str = OWN, name: str = "invoices") -> EndpointSpec:
    path = root / "endpoints" / f"{name}.yaml"
    path.write_text(text)
    return load(path)


def both(root: Path, text: str = OWN, name: str = "invoices") -> tuple[str, str]:
    spec = at(root, text, name)
    digests._serving_code.cache_clear()  # a test writes new code into one installation
    return build_digest(spec), handler_digest(spec)


def test_the_same_from_two_checkouts_and_on_another_day(tmp_path: Path) -> None:
    here, there = fill(tmp_path / "a"), fill(tmp_path / "else/where/b c")
    for file in there.rglob("*"):
        os.utime(file, (1, 1))
    assert both(here) == both(there)
    os.chdir(there)
    relative = load(Path("endpoints/invoices.yaml"), Path())
    assert (build_digest(relative), handler_digest(relative)) == both(here)


def test_the_same_through_a_link(tmp_path: Path) -> None:
    here = fill(tmp_path / "a")
    (tmp_path / "link").symlink_to(here)
    assert both(here) == both(tmp_path / "link")


def replaced(old: str, new: str) -> Callable[[Path], str]:
    def change(_: Path) -> str:
        assert old in OWN
        return OWN.replace(old, new)

    return change


def rewritten(file: str, text: str) -> Callable[[Path], str]:
    def change(root: Path) -> str:
        (root / file).write_text(text)
        return OWN

    return change


BUILD, HANDLER = True, True
CHANGES: dict[str, tuple[Callable[[Path], str], bool, bool]] = {
    "nothing": (replaced("name", "name"), not BUILD, not HANDLER),
    "a comment": (replaced("name: ", "# a comment\nname: "), not BUILD, not HANDLER),
    "the order of keys": (replaced("{min: 1, max: 8", "{max: 8, min: 1"), not BUILD, not HANDLER),
    "a default written out": (replaced("  target: inf1\n", ""), not BUILD, not HANDLER),
    "another form of a duration": (replaced("timeout: 45min", "timeout: 2700s"), not BUILD, not HANDLER),
    "another form of a percentage": (replaced("100%", "100.0 %"), not BUILD, not HANDLER),
    "tags": (replaced("documents", "papers"), not BUILD, not HANDLER),
    "scale": (replaced("max: 8", "max: 9"), not BUILD, not HANDLER),
    "alarms": (replaced("250ms", "300ms"), not BUILD, not HANDLER),
    "serve": (replaced("ml.inf1.2xlarge", "ml.inf1.6xlarge"), not BUILD, not HANDLER),
    "options": (replaced("  weights: {", "  options: {a: 1}\n  weights: {"), BUILD, not HANDLER),
    "buckets": (replaced("[224, 224]", "[224, 448]"), BUILD, not HANDLER),
    "order of buckets": (
        replaced("[{image: [224, 224]}, {image: [448, 448]}]", "[{image: [448, 448]}, {image: [224, 224]}]"),
        BUILD,
        not HANDLER,
    ),
    "batch sizes": (replaced("[1, 4]", "[1, 2]"), BUILD, not HANDLER),
    "fast_math": (replaced("fp32-cast-matmult", "none"), BUILD, not HANDLER),
    "timeout": (replaced("45min", "50min"), BUILD, not HANDLER),
    "a tolerance": (replaced("1e-5", "1e-6"), BUILD, not HANDLER),
    "the weights": (rewritten("weights/invoices.safetensors", "other"), BUILD, not HANDLER),
    "the entry": (rewritten("models/invoices.py", "import layers\n\nbuild = layers.net\n"), BUILD, not HANDLER),
    "a module of the entry": (rewritten("models/layers.py", "def net():\n    return 1\n"), BUILD, not HANDLER),
    "a file beside": (rewritten("models/unused.py", "x = 1\n"), not BUILD, not HANDLER),
    "a module of the handler": (rewritten("models/shared.py", "def item(r):\n    return 1\n"), not BUILD, HANDLER),
    "no handler": (replaced("  handler: models/invoices_handler.py\n", ""), not BUILD, HANDLER),
}


@pytest.mark.parametrize(("change", "build", "handler"), CHANGES.values(), ids=CHANGES.keys())
def test_change_exactly_when_they_should(
    change: Callable[[Path], str], build: bool, handler: bool, tmp_path: Path
) -> None:
    root = fill(tmp_path / "a")
    before = both(root)
    after = both(root, change(root))
    assert (before[0] != after[0], before[1] != after[1]) == (build, handler)


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"])
def test_line_ends_change_nothing(ends: bytes, tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    before = both(root)
    for file in root.rglob("*.py"):
        file.write_bytes(file.read_bytes().replace(b"\n", ends))
    assert both(root) == before


def test_bytes_of_a_binary_file_are_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\r\n")
    (tmp_path / "b").write_bytes(b"\0\n")
    assert text_digest(tmp_path / "a") != text_digest(tmp_path / "b")
    assert text_digest(tmp_path / "a") == file_digest(tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "build", "handler"),
    [
        ("compile/models/depth_anything_v2.py", True, False),
        ("compile/models/parts/image.py", True, False),
        ("compile/models/parts/sizes.py", True, False),
        ("compile/models/parts/other.py", False, False),
        ("compile/models/__init__.py", False, False),
        ("compile/models/bert.py", False, False),
        ("compile/lowering/rules.py", False, False),
        ("inference_code/tasks/depth_estimation.py", False, True),
        ("inference_code/tasks/new.py", False, True),
        ("inference_code/notes.txt", False, False),
    ],
)
def test_code_of_the_installation(file: str, build: bool, handler: bool, installed: Path, tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    before = both(root, SMALL, "depth")
    (installed / file).write_text("# changed\n")
    after = both(root, SMALL, "depth")
    assert (before[0] != after[0], before[1] != after[1]) == (build, handler)


def test_families_are_files(installed: Path, tmp_path: Path) -> None:
    assert places.families() == ("bert", "depth_anything_v2")
    spec = at(fill(tmp_path / "a"), SMALL, "depth")
    assert list(definition_code(spec)) == [
        "compile/models/depth_anything_v2.py",
        "compile/models/parts/image.py",
        "compile/models/parts/sizes.py",
    ]


def digest_with(root: Path, weights: str) -> str:
    return build_digest(at(root, f"name: depth\nmodel: {{family: depth_anything_v2, weights: {weights}}}\n", "depth"))


def test_weights_are_their_content_not_their_place(tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    sha = "9e45de5cd1ed9a8a8d7e9c5ce8fb3a4dce53dd37b1f7e2f4e7bd4de3a8b5b8c5"
    (root / "weights/copy.safetensors").write_bytes(b"weights")
    first, second = (digest_with(root, f"{{file: weights/{name}.safetensors}}") for name in ("invoices", "copy"))
    assert first == second
    declared = digest_with(root, f"{{file: weights/copy.safetensors, sha256: {sha}}}")
    assert declared == digest_with(root, f"{{s3: s3://bucket/x.safetensors, sha256: {sha}}}")
    assert declared != digest_with(root, "{file: weights/copy.safetensors}")
    assert declared == digest_with(root, f"{{file: weights/copy.safetensors, sha256: {sha}, license: MIT}}")


def test_every_source_of_weights_is_another_build(tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    sources = [
        '"random:0"', '"random:1"', '"hub:a/b"', '"hub:a/b@v1"', '"hub:a/c"', '"s3://bucket/a.pth"', '"s3://bucket/b.pth"',
        "{file: weights/invoices.safetensors}", "{file: weights/invoices.safetensors, key: ema}",
        "{file: weights/invoices.safetensors, prefix: ema}",
    ]  # fmt: skip
    assert len({digest_with(root, source) for source in sources}) == len(sources)


def test_an_index_changes_with_each_of_its_files(tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    (root / "weights/a.index.json").write_text('{"weight_map": {"a": "a-1.bin", "b": "a-2.bin"}}')
    found = set()
    for first, second in (("1", "2"), ("1", "3"), ("3", "2")):
        (root / "weights/a-1.bin").write_text(first)
        (root / "weights/a-2.bin").write_text(second)
        found.add(digest_with(root, "{file: weights/a.index.json}"))
    assert len(found) == 3


def test_weights_that_went_away(tmp_path: Path) -> None:
    root = fill(tmp_path / "a")
    spec = at(root)
    (root / "weights/invoices.safetensors").unlink()
    with pytest.raises(SpecErrors, match=r"invoices\.safetensors: cannot be read"):
        build_digest(spec)


def sources(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = local_sources(root / next(iter(files)), root)
    return [path.relative_to(root.resolve()).as_posix() for path in found]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"m/e.py": "import numpy, json, os.path"}, ["m/e.py"]),
        ({"m/e.py": "import a", "m/a.py": "import b", "m/b.py": "import a"}, ["m/a.py", "m/b.py", "m/e.py"]),
        ({"m/e.py": "from m.a import x", "m/a.py": "x = 1"}, ["m/a.py", "m/e.py"]),
        ({"m/e.py": "from m import a", "m/__init__.py": "", "m/a.py": ""}, ["m/__init__.py", "m/a.py", "m/e.py"]),
        ({"m/e.py": "import lib.x.y as z", "lib/x/y.py": "", "lib/x/__init__.py": "import lib.w", "lib/w.py": ""},
         ["lib/w.py", "lib/x/__init__.py", "lib/x/y.py", "m/e.py"]),
        ({"m/e.py": "from .a import *", "m/a.py": ""}, ["m/a.py", "m/e.py"]),
        ({"m/e.py": "from . import a", "m/a.py": ""}, ["m/a.py", "m/e.py"]),
        ({"m/n/e.py": "from .a import x", "m/n/a.py": "x = 1", "m/n/__init__.py": "", "m/__init__.py": "import b",
          "b.py": "", "__init__.py": ""},
         ["b.py", "m/__init__.py", "m/n/__init__.py", "m/n/a.py", "m/n/e.py"]),
        ({"m/e.py": "from ..n import a", "n/__init__.py": "", "n/a.py": ""}, ["m/e.py", "n/__init__.py", "n/a.py"]),
        ({"m/e.py": "def f():\n    try:\n        import a\n    except ImportError:\n        pass", "m/a.py": ""},
         ["m/a.py", "m/e.py"]),
        ({"m/e.py": "from a import value", "m/a.py": "value = 1", "a.py": "value = 2"}, ["m/a.py", "m/e.py"]),
        ({"m/e.py": "x = 'import a'  # import a", "m/a.py": ""}, ["m/e.py"]),
    ],
    ids=range(12),
)  # fmt: skip
def test_local_sources(files: dict[str, str], found: list[str], tmp_path: Path) -> None:
    assert sources(tmp_path, files) == found


def test_rooms_of_the_project_are_no_local_sources(installed: Path) -> None:
    files = {"examples/own/e.py": "from compile import ModelDefinition\nimport compile.models.bert"}
    assert sources(installed, files) == ["examples/own/e.py"]


def test_local_sources_outside_the_root(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("")
    with pytest.raises(SpecErrors, match=r"outside\.py: lies outside the project root\. Keep the code"):
        sources(tmp_path / "root", {"m/e.py": "from ... import outside"})


def test_local_sources_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors, match=r"gone\.py: cannot be read: No such file"):
        local_sources(tmp_path / "gone.py", tmp_path)


def test_local_sources_that_are_not_python(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors, match=r"a\.py:2: is not valid Python: .*Correct it"):
        sources(tmp_path, {"m/e.py": "import a", "m/a.py": "\ndef f(:\n"})
