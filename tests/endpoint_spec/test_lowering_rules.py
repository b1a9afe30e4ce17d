"""compile.lowering: a switch for each rewrite and files of one's own, silent in old digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint_spec import EndpointSpec, SpecErrors, load
from endpoint_spec.digests import build_digest, rewrites_code
from endpoint_spec.places import rewrites
from endpoint_spec.schema import schema

HEAD = 'name: depth\nmodel: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'
REWRITE = "from compile.lowering import FunctionRewrite\nfrom constants import PI\n\nclass Sinc(FunctionRewrite): ...\n"


def spec_of(root: Path, section: str) -> EndpointSpec:
    path = root / "endpoints" / "depth.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{HEAD}compile: {section}\n")
    return load(path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sinc.py").write_text(REWRITE)
    (tmp_path / "own" / "constants.py").write_text("PI = 3.14\n")
    (tmp_path / "other.py").write_text("class Other: ...\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("class Broken:\n")
    return tmp_path


def test_switches_and_files(project: Path) -> None:
    chosen = spec_of(project, "{lowering: {off: [interpolate, pad], rewrites: [own/sinc.py]}}").compile.lowering
    assert chosen is not None
    assert (chosen.off, chosen.rewrites) == (("interpolate", "pad"), ("own/sinc.py",))
    assert set(schema()["$defs"]["Lowering"]["properties"]["off"]["anyOf"][0]["items"]["enum"]) == set(rewrites())


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{off: [interpolat]}", "Did you mean interpolate?"),
        ("{off: [sinc]}", "is not a built-in rewrite"),
        ("{off: [pad, pad]}", "names pad twice"),
        ("{off: pad}", "is not a list of rewrites"),
        ("{on: [pad]}", "compile.lowering.on"),
        ("{rewrites: [gone.py]}", "does not exist"),
        ("{rewrites: [../gone.py]}", "leads out of the project"),
        ("{rewrites: [own]}", "is not a Python file"),
        ("{rewrites: [empty.py]}", "defines nothing"),
        ("{rewrites: [broken.py]}", "is not valid Python (line 1"),
    ],
)
def test_what_is_wrong_is_said(project: Path, section: str, said: str) -> None:
    with pytest.raises(SpecErrors) as caught:
        spec_of(project, f"{{lowering: {section}}}")
    assert said in str(caught.value)
    assert "compile.lowering" in str(caught.value)


def test_the_digest_follows_what_is_said_and_nothing_else(project: Path) -> None:
    plain = build_digest(spec_of(project, "{target: inf1}"))
    assert build_digest(spec_of(project, "{target: inf1, lowering: {}}")) == plain
    off = build_digest(spec_of(project, "{lowering: {off: [pad, interpolate]}}"))
    assert off != plain
    assert build_digest(spec_of(project, "{lowering: {off: [interpolate, pad]}}")) == off
    own = build_digest(spec_of(project, "{lowering: {rewrites: [own/sinc.py, other.py]}}"))
    assert own not in (plain, off)
    assert build_digest(spec_of(project, "{lowering: {rewrites: [other.py, own/sinc.py]}}")) != own  # asked in order


def test_the_digest_follows_the_code_of_the_files(project: Path) -> None:
    spec = spec_of(project, "{lowering: {rewrites: [own/sinc.py]}}")
    before = build_digest(spec)
    assert set(rewrites_code(spec)) == {"own/sinc.py", "own/constants.py"}
    (project / "own" / "constants.py").write_text("PI = 3.1416\n")
    assert build_digest(spec) != before
    assert rewrites_code(spec_of(project, "{target: inf1}")) == {}
