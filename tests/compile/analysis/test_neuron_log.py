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
