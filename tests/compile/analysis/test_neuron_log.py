"""The log reader: the messages that torch-neuron prints, and everything that can stand around them."""
# ruff: noqa: E501 (log lines are as long as they are)

from __future__ import annotations

import json
import textwrap

import pytest

from compile.analysis.neuron_log import LogError, read_log, read_log_file

BERT = """\
INFO:Neuron:There are 3 ops of 1 different types in the TorchScript that are not compiled by neuron-cc: aten::embedding, (For more information see https://example.org/neuron-cc-ops-pytorch.md)
INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 565, fused = 548, percent fused = 96.99%
INFO:Neuron:Number of neuron graph operations 1601 did not match traced graph 1323 - using heuristic matching of hierarchical information
INFO:Neuron:Compiling function _NeuronGraph$698 with neuron-cc
INFO:Neuron:Compiling with command line: '/opt/bin/neuron-cc compile /tmp/a/graph_def.pb --framework TENSORFLOW --pipeline compile SaveTemps --output /tmp/a/graph_def.neff --io-config {"inputs": {"0:0": [[1, 128, 768], "float32"], "1:0": [[1, 1, 1, 128], "float32"]}, "outputs": ["Linear_5/aten_linear/Add:0"]} --verbose 35'
INFO:Neuron:Compile command returned: 0
INFO:Neuron:Number of arithmetic operators (post-compilation) before = 565, compiled = 548, percent compiled = 96.99%
INFO:Neuron:The neuron partitioner created 1 sub-graphs
INFO:Neuron:Neuron successfully compiled 1 sub-graphs, Total fused subgraphs = 1, Percent of model sub-graphs successfully compiled = 100.0%
INFO:Neuron:Compiled these operators (and operator counts) to Neuron:
INFO:Neuron: => aten::Int: 96
INFO:Neuron: => aten::add: 36
INFO:Neuron: => aten::linear: 74
INFO:Neuron:Not compiled operators (and operator counts) to Neuron:
INFO:Neuron: => aten::Int: 1 [supported]
INFO:Neuron: => aten::add: 3 [supported]
INFO:Neuron: => aten::embedding: 3 [not supported]
"""


def check(report):
    assert (report.total, report.supported, report.fused, report.compiled) == (565, 562, 548, 548)
    assert (report.subgraphs, report.candidates) == (1, 1)
    assert report.percent == 99.47
    assert report.percent_fused == 96.99
    assert report.compiled_operators == {"aten::Int": 96, "aten::add": 36, "aten::linear": 74}
    assert report.other_operators == {"aten::Int": 1, "aten::add": 3, "aten::embedding": 3}
    assert report.unsupported == {"aten::embedding": 3}
    assert report.exit_codes == [0]
    assert not report.fallback
    assert report.traces == 1


def stamped(text):
    return "\n".join(f"2023-09-05 20:51:57,{i:03d} : INFO : {line.split(':Neuron:')[1]}" for i, line in lines(text))


def lines(text):
    return enumerate(text.splitlines())


def twice(text):
    again = "2022-12-19 02:32:20,148 : INFO : "
    return "\n".join(
        f"{line}\n{again}{line.split(':Neuron:')[1]}" if ":Neuron:" in line else line for _, line in lines(text)
    )


def in_container(text):
    return "\n".join(f"compile-1-ab12c | {line}" for _, line in lines(text))


def cut_by_a_terminal(text):
    """Hard wraps at 80 columns, inside words and numbers."""
    return "\n".join(line[i : i + 80] for _, line in lines(text) for i in range(0, len(line), 80))


def wrapped_at_words(text):
    return "\n".join(
        textwrap.fill(line, 72, break_long_words=False, subsequent_indent="    ") for _, line in lines(text)
    )


def on_one_line(text):
    """As a web page shows it that has lost the line ends."""
    return "09/05/2023 08:51:57 PM INFO 53658 [root]: Compiler status PASS      " + text.replace("\n", "      ")


def coloured(text):
    return "\n".join(f"\x1b[32m{line}\x1b[0m\r" for _, line in lines(text))


def quoted(text):
    return "\n".join(f"> {line}" for _, line in lines(text))


def behind(prefix):
    """Each message without its own prefix, behind another one."""
    return lambda text: "\n".join(f"{prefix}{line.removeprefix('INFO:Neuron:')}" for _, line in lines(text))


PREFIXES = [
    "",
    "WARNING:root:",
    "root: INFO: ",
    "[INFO] ",
    "[2023-09-05 20:51:57,123][Neuron][INFO] - ",
    "[2023-09-05T20:51:57.123456+02:00] INFO - ",
    "Sep  5 20:51:57 ip-10-0-0-1 compile[123]: ",
    "05/Sep/2023:20:51:57 INFO ",
    "20:51:57.123 | INFO     | torch_neuron.convert:trace:123 - ",
    "I0905 20:51:57.123456 140123 convert.py:123] ",
    "INFO     Neuron:convert.py:123 ",
    "2023-09-05T20:51:57.123Z 2023-09-05T20:51:57.120Z INFO:Neuron:",
    "/aws/sagemaker/ProcessingJobs compile-1/algo-1-1693940000 2023-09-05T20:51:57.123000+00:00 ",
    "compile-7f9c8d6b5-x2x4z/compile 2023-09-05T20:51:57.123456789Z stderr F INFO:Neuron:",
    "[pod/compile-7f9c8d6b5-x2x4z/compile] INFO:Neuron:",
    "1693940000.123 INFO ",
    "(Trainer pid=123, ip=10.0.0.1) ",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix(prefix):
    check(read_log(behind(prefix)(BERT)))
    failed = FAILED.replace("WARNING:Neuron:", "INFO:Neuron:").replace("ERROR:Neuron:", "INFO:Neuron:")
    report = read_log(behind(prefix)(failed))
    assert report.unsupported == {"aten::grid_sampler": 9}
    assert report.failed_graphs == ["_NeuronGraph$551"]
    assert (report.total, report.supported, report.fused, report.compiled) == (122, 113, 55, 0)


def in_a_notebook(text):
    cell = {
        "cell_type": "code",
        "source": ["trace()"],
        "outputs": [{"name": "stderr", "text": text.splitlines(keepends=True)}],
    }
    return json.dumps(
        {"cells": [{"cell_type": "markdown", "source": ["# (pre-compilation)"]}, cell], "nbformat": 4}, indent=1
    )


def as_docker_writes_it(text):
    return "\n".join(
        json.dumps({"log": f"{line}\n", "stream": "stderr", "time": "2023-09-05T20:51:57Z"}) for _, line in lines(text)
    )


def exported_from_cloudwatch(text):
    return json.dumps({"events": [{"timestamp": i, "message": line} for i, line in lines(text)]})


@pytest.mark.parametrize("around", [in_a_notebook, as_docker_writes_it, exported_from_cloudwatch])
def test_logs_inside_json(around):
    check(read_log(around(BERT)))


@pytest.mark.parametrize(
    "around",
    [str, stamped, twice, in_container, cut_by_a_terminal, wrapped_at_words, on_one_line, coloured, quoted],
    ids=lambda around: around.__name__,
)
def test_whatever_stands_around_the_messages(around):
    check(read_log(around(BERT)))


def test_inputs_of_the_subgraph():
    (config,) = read_log(BERT).subgraph_inputs
    assert config["inputs"]["0:0"] == [[1, 128, 768], "float32"]


def test_json_has_the_fields_of_an_analysis():
    found = read_log(BERT, "bert.log").to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["total"] == 565
    assert found["operators"]["aten::embedding"] == {
        "count": 3,
        "compiled": 0,
        "supported": False,
        "reason": "torch-neuron lists it as not supported",
    }
    assert found["operators"]["aten::add"]["count"] == 39
    assert found["partition"]["predicted"] is False
    assert found["partition"]["logged"]["compiled"] == 548


FAILED = """\
INFO:Neuron:The following operations are currently supported in torch-neuron for this model:
INFO:Neuron:aten::add
INFO:Neuron:prim::Constant
INFO:Neuron:The following operations are currently not supported in torch-neuron for this model:
INFO:Neuron:aten::grid_sampler
INFO:Neuron:98.52% of all operations (including primitives) (599 of 608) are supported
INFO:Neuron:92.62% of arithmetic operations (113 of 122) are supported
INFO:Neuron:There are 9 ops of 1 different types in the TorchScript that are not compiled by neuron-cc: aten::grid_sampler, (For more information see https://example.org)
INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 122, fused = 55, percent fused = 45.08%
INFO:Neuron:Compiling function _NeuronGraph$551 with neuron-cc
INFO:Neuron:Compile command returned: -9
WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$551; falling back to native python function call
ERROR:Neuron:neuron-cc failed with the following command line call:
Traceback (most recent call last):
  File "/opt/site-packages/torch_neuron/convert.py", line 381, in op_converter
    item, inputs, compiler_workdir=sg_workdir, **kwargs)
subprocess.SubprocessError: neuron-cc failed
INFO:Neuron:Number of arithmetic operators (post-compilation) before = 122, compiled = 0, percent compiled = 0.0%
INFO:Neuron:The neuron partitioner created 2 sub-graphs
INFO:Neuron:Neuron successfully compiled 0 sub-graphs, Total fused subgraphs = 2, Percent of model sub-graphs successfully compiled = 0.0%
INFO:Neuron:Compiled these operators (and operator counts) to Neuron:
INFO:Neuron:Not compiled operators (and operator counts) to Neuron:
INFO:Neuron: => aten::add: 113 [supported]
INFO:Neuron: => aten::grid_sampler: 9 [not supported]
Traceback (most recent call last):
RuntimeError: No operations were successfully partitioned and compiled to neuron for this model - aborting trace!
"""


@pytest.mark.parametrize("around", [str, in_container, twice])
def test_silent_fallback_is_seen(around):
    report = read_log(around(FAILED))
    assert (report.total, report.supported, report.fused, report.compiled) == (122, 113, 55, 0)
    assert (report.subgraphs, report.candidates) == (0, 2)
    assert report.exit_codes == [-9]
    assert report.failed_graphs == ["_NeuronGraph$551"]
    assert report.fallback
    assert report.failed
    assert report.unsupported == {"aten::grid_sampler": 9}
    assert any("No operations were successfully partitioned" in line for line in report.errors)


def test_one_operator_is_too_small_to_be_compiled():
    report = read_log(
        "INFO:Neuron:100.00% of arithmetic operations (1 of 1) are supported\n"
        "INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 1, fused = 0, percent fused = 0.0%\n"
        "WARNING:Neuron:No operator is placed on Neuron runtime; returning a CPU trace\n"
    )
    assert (report.total, report.fused, report.compiled) == (1, 0, None)
    assert report.fallback


def test_all_operators_supported():
    report = read_log(
        "INFO:Neuron:All operators are compiled by neuron-cc (this does not guarantee that neuron-cc will compile)\n"
        "INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 95, fused = 95, percent fused = 100.0%\n"
    )
    assert (report.total, report.supported, report.percent) == (95, 95, 100.0)


def test_the_last_of_several_traces_counts():
    first = BERT.replace("565", "249").replace("548", "242")
    report = read_log(first + BERT)
    assert report.traces == 2
    assert (report.total, report.compiled) == (565, 548)


AFTER = "INFO:Neuron:Number of arithmetic operators (post-compilation) before = {0}, compiled = {1}, percent compiled = {2}%\n"
CREATED = "INFO:Neuron:The neuron partitioner created {0} sub-graphs\n"
SUBGRAPHS = (
    CREATED
    + "INFO:Neuron:Neuron successfully compiled {1} sub-graphs, Total fused subgraphs = {0}, Percent of model sub-graphs successfully compiled = 1.0%\n"
)
BEFORE = (
    "INFO:Neuron:Number of arithmetic operators (pre-compilation) before = {0}, fused = {1}, percent fused = {2}%\n"
)


@pytest.mark.parametrize(
    ("text", "fallback", "partial"),
    [
        (BEFORE.format(10, 9, 90.0), None, False),
        ("INFO:Neuron:98.00% of arithmetic operations (98 of 100) are supported\n", None, False),
        (BEFORE.format(10, 9, 90.0) + "INFO:Neuron:Compile command returned: 1\n", None, False),
        (BEFORE.format(10, 9, 90.0) + AFTER.format(10, 9, 90.0), False, False),
        (BEFORE.format(10, 9, 90.0) + AFTER.format(10, 4, 40.0), True, True),
        (BEFORE.format(10, 9, 90.0) + AFTER.format(10, 0, 0.0), True, False),
        (AFTER.format(10, 4, 40.0), None, False),
        (AFTER.format(700, 63, 9.0) + SUBGRAPHS.format(19, 4), True, True),
        (AFTER.format(700, 63, 9.0) + SUBGRAPHS.format(4, 4), False, False),
        (AFTER.format(50, 0, 0.0) + SUBGRAPHS.format(1, 0), True, False),
    ],
)
def test_whether_anything_fell_back_is_known_or_not(text, fallback, partial):
    report = read_log(text)
    assert (report.fallback, report.partial) == (fallback, partial)
    assert report.to_json()["fallback"] is fallback
    assert report.to_json()["partition"]["logged"]["partial"] is partial
    assert report.contradictions == []


NEGATED = "INFO:Neuron:Not compiled operators (and operator counts) to Neuron:\nINFO:Neuron: => aten::embedding: 2 [not supported]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "INFO:Neuron:100.00% of arithmetic operations (229 of 229) are supported\n" + NEGATED,
            "229 of 229 operators are supported, and not supported: aten::embedding: 2",
        ),
        ("INFO:Neuron:99.00% of arithmetic operations (228 of 229) are supported\n" + NEGATED, "228 of 229"),
        (
            "INFO:Neuron:All operators are compiled by neuron-cc (this does not)\n" + NEGATED,
            "all operators are supported",
        ),
        (BEFORE.format(10, 11, 110.0), "fused: 11, operators: 10"),
        (BEFORE.format(10, 9, 50.0), "fused: 9 of 10, and 50.0 %"),
        (BEFORE.format(10, 9, 90.0) + AFTER.format(12, 9, 75.0), "10 operators before compilation, 12 after it"),
        (AFTER.format(10, 4, 40.0) + SUBGRAPHS.format(3, 4), "subgraphs compiled: 4, subgraphs found: 3"),
        (AFTER.format(10, 0, 0.0) + SUBGRAPHS.format(3, 3), "operators compiled: 0, subgraphs compiled: 3"),
        (CREATED.format(5) + SUBGRAPHS.removeprefix(CREATED).format(4, 4), "5 subgraphs found, and 4 fused"),
        (
            AFTER.format(10, 4, 40.0)
            + SUBGRAPHS.format(1, 1)
            + "WARNING:Neuron:torch.neuron.trace failed on _G$1; falling back to native\n",
            "_G$1 fell back, and all 1 subgraphs were compiled",
        ),
    ],
)
def test_contradictions_are_named(text, words):
    assert any(words in found for found in read_log(text).contradictions)


def test_primitives_are_not_counted():
    report = read_log(
        "INFO:Neuron:The following operations are currently not supported in torch-neuron for this model:\n"
        "INFO:Neuron:aten::embedding\nINFO:Neuron:prim::If\n"
        "INFO:Neuron:There are 5 ops of 2 different types in the TorchScript that are not compiled by neuron-cc: aten::embedding, prim::If, (For more\n"
        + BEFORE.format(50, 45, 90.0)
        + "INFO:Neuron:Not compiled operators (and operator counts) to Neuron:\nINFO:Neuron: => prim::If: 2 [not supported]\nINFO:Neuron: => aten::embedding: 3 [not supported]\n"
    )
    assert report.supported is None
    assert list(report.operators()) == ["aten::embedding"]


def test_what_supports_a_kind_is_known_or_not():
    report = read_log(
        "INFO:Neuron:Compiled these operators (and operator counts) to Neuron:\nINFO:Neuron: => aten::mul: 2\n"
        "INFO:Neuron:Not compiled operators (and operator counts) to Neuron:\nINFO:Neuron: => aten::add: 1 [supported]\n"
        "INFO:Neuron: => aten::silu: 3\n" + AFTER.format(6, 2, 33.3)
    )
    assert {kind: row["supported"] for kind, row in report.operators().items()} == {
        "aten::add": True,
        "aten::mul": True,
        "aten::silu": None,
    }


COMPILER = """\
08/01/2023 01:02:03 AM INFO 99 [root]: {0} version 1.0
08/01/2023 01:02:03 AM INFO 99 [root]: Compiling with command line: '/opt/bin/{0} compile /tmp/a/graph_def.pb --io-config {{"inputs": {{}}}} --verbose 35'
08/01/2023 01:02:09 AM INFO 99 [root]: Compiler status FAIL
"""


@pytest.mark.parametrize("compiler", ["neuron-cc", "neuronx-cc"])
def test_the_compilers_own_log_is_named(compiler):
    with pytest.raises(LogError, match=rf"log of the compiler itself, {compiler} \(its status is FAIL\)"):
        read_log(COMPILER.format(compiler))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(encoding, tmp_path):
    (tmp_path / "compile.log").write_text(BERT, encoding=encoding)
    with pytest.raises(LogError, match=r"UTF-16(.|\n)*iconv -f UTF-16"):
        read_log_file(tmp_path / "compile.log")


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "aten::add: 3\n", "ERROR:Neuron:something\n"])
def test_not_a_log(text):
    with pytest.raises(LogError, match="no message of torch-neuron"):
        read_log(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LogError, match="No such file"):
        read_log_file(tmp_path / "nothing.log")


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "compile.log"
    path.write_bytes(b"\xff\xfe\x00" + BERT.encode())
    check(read_log_file(path))


def test_a_count_beyond_all_numbers_is_one_message() -> None:
    with pytest.raises(LogError, match=r"log: .* holds a number beyond all counts"):
        read_log(BERT.replace("= 565, fused", f"= {'9' * 5000}, fused"))
