"""Options of the target's compiler: typed, checked before anything runs, and silent in old digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint_spec import SpecErrors, compiler_options, load, platforms
from endpoint_spec.digests import build_digest

HEAD = 'name: depth\nmodel: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'


def spec_of(tmp_path: Path, compile_section: str):
    path = tmp_path / "endpoints" / "depth.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{HEAD}compile: {compile_section}\n")
    return load(path)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{inf1: {arguments: [--opt-level 2]}}", "Write --optlevel 2 (or -O 2)"),
        ("{inf1: {arguments: [--optlevel 9]}}", "Write one of 0, 1, 2, 3 after it"),
        ("{inf1: {arguments: [--optlevel]}}", "has no value"),
        ("{inf1: {arguments: [--optlevel 1, -O 2]}}", "is given twice"),
        ("{inf1: {arguments: [--enable-saturate-infinity yes]}}", "takes no value"),
        ("{inf1: {arguments: [--enable-saturate-infinty]}}", "Did you mean --enable-saturate-infinity?"),
        ("{inf1: {arguments: [--fp32-cast matmult]}}", "is deprecated"),
        ("{inf1: {arguments: [--batching_en]}}", "2020 tuning guide"),
        ("{inf1: {arguments: [--sb_size 110]}}", "(batch + 6) x 10"),
        ("{inf1: {arguments: [--enable-replication True]}}", "2020 tuning guide"),
        ("{inf1: {arguments: [--fast-math all]}}", "compile.fast_math"),
        ("{inf1: {arguments: [--neuroncore-pipeline-cores 4]}}", "compile.pipeline_cores"),
        ("{inf1: {arguments: [--auto-cast all]}}", "the compiler of Inf2"),
        ("{inf1: {arguments: ['\"open']}}", "cannot be split into words"),
        ("{inf1: {op_whitelist: [linear]}}", "Write aten::linear"),
        ("{inf1: {dynamic_batch: true}, batch_sizes: [1, 4]}", "batch_sizes: [4]"),
        ("{inf1: {dynamic_batch: 1}}", "compile.inf1.dynamic_batch"),
        ("{inf1: {speed: 9}}", "compile.inf1.speed"),
        ("{inf2: {arguments: [-O2]}}", "is for inf2, but compile.target is inf1"),
        ("{target: inf2, inf1: {dynamic_batch: true}}", "is for inf1, but compile.target is inf2"),
        ("{target: inf2, inf2: {arguments: [--fast-math all]}}", "the compiler of Inf1"),
        ("{target: inf2, inf2: {arguments: [--neuroncore-pipeline-cores 4]}}", "the compiler of Inf1"),
        ("{target: inf2, inf2: {arguments: [--batching_en]}}", "the compiler of Inf1"),
        ("{target: inf2, inf2: {arguments: [--auto-cast all]}}", "compile.fast_math"),
        ("{target: inf2, inf2: {arguments: [--model-type cnn]}}", "generic, transformer, unet-inference"),
        ("{target: inf2, inf2: {input_output_aliases: {cache: -1}}}", "compile.inf2.input_output_aliases"),
        ("{pipeline_cores: 8}", "is more than the 4 cores of ml.inf1.2xlarge"),
        ("{fast_math: all none}", "exclude each other"),
    ],
)
def test_what_the_compiler_would_refuse_is_said_before(tmp_path: Path, section: str, said: str) -> None:
    with pytest.raises(SpecErrors) as caught:
        spec_of(tmp_path, section)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        "{inf1: {arguments: [--optlevel 2, --enable-saturate-infinity, --verbose=INFO]}}",
        "{inf1: {arguments: [-O 2], dynamic_batch: true, float32_to_float16: true, separate_weights: true}}",
        "{inf1: {op_whitelist: [aten::linear], minimum_segment_size: 1, single_fusion_ratio_threshold: 1.0}}",
        "{target: inf2, inf2: {arguments: [-O3, --model-type transformer], inline_weights_to_neff: false}}",
        "{target: inf2, inf2: {partitioner: {max_subgraph_count: 2}, input_output_aliases: {cache: 1}}}",
    ],
)
def test_good_options(tmp_path: Path, section: str) -> None:
    assert spec_of(tmp_path, section).name == "depth"


def test_all_wrong_arguments_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors) as caught:
        spec_of(tmp_path, "{inf1: {arguments: [--opt-level 2, --spill_dis, --fp32-cast all]}}")
    assert {error.value for error in caught.value.errors} == {"--opt-level", "--spill_dis", "--fp32-cast"}


def test_options_left_at_their_defaults_leave_the_digest_alone(tmp_path: Path) -> None:
    plain = build_digest(spec_of(tmp_path, "{batch_sizes: [1]}"))
    assert build_digest(spec_of(tmp_path, "{batch_sizes: [1], inf1: {dynamic_batch: false}}")) == plain
    assert build_digest(spec_of(tmp_path, "{batch_sizes: [1], inf1: {dynamic_batch: true}}")) != plain


def test_words_are_split_as_the_compiler_gets_them() -> None:
    assert compiler_options.split(["--optlevel 2", "--verbose=INFO", "-O3"]) == (
        "--optlevel", "2", "--verbose", "INFO", "-O3"
    )  # fmt: skip


@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_every_refused_option_says_why_and_the_way_out(target: str) -> None:
    table = platforms.compiler_table(target)
    assert not set(table["options"]) & set(table["refused"])
    for problem, remedy in table["refused"].values():
        assert problem
        assert remedy.endswith(".")
