"""A stand-in for torch_neuron: trace() with the documented arguments, checks and messages."""

from __future__ import annotations

import enum
import logging
import subprocess

import neuron_stand_in as common
import torch

STAND_IN = True
__version__ = f"{torch.__version__.partition('+')[0]}.2.11.13.0"

_log = logging.getLogger("Neuron")
_FLAGS = {"--enable-saturate-infinity", "--enable-fast-loading-neuron-binaries", "--enable-fast-context-switch"}
_VALUED = {"--neuroncore-pipeline-cores", "--fast-math", "--fp32-cast", "-O", "--optlevel", "--verbose"}


class Optimization(enum.Enum):
    FLOAT32_TO_FLOAT16 = 1


def trace(
    model,
    example_inputs,
    *,
    compiler_args=None,
    compiler_timeout=None,
    compiler_workdir=None,
    subgraph_builder_function=None,
    minimum_segment_size=2,
    single_fusion_ratio_threshold=0.6,
    fallback=True,
    dynamic_batch_size=False,
    optimizations=None,
    separate_weights=False,
    op_whitelist=None,
    verbose=None,
    **jit_trace_kwargs,
):
    tensors = common.checked_inputs("torch_neuron.trace", model, example_inputs)
    if isinstance(model, torch.jit.ScriptModule):
        return model  # a traced module is not compiled again
    words = _words(compiler_args)
    if compiler_timeout is not None and not isinstance(compiler_timeout, int):
        raise TypeError("compiler_timeout must be an int")
    if not all(isinstance(wanted, Optimization) for wanted in optimizations or []):
        raise TypeError("optimizations must be a list of torch_neuron.Optimization")
    common.remember(
        compiler_workdir,
        compiler_args=words,
        compiler_timeout=compiler_timeout,
        dynamic_batch_size=dynamic_batch_size,
        optimizations=[wanted.name for wanted in optimizations or []],
        separate_weights=separate_weights,
        op_whitelist=op_whitelist,
        minimum_segment_size=minimum_segment_size,
        jit=sorted(jit_trace_kwargs),
    )
    common.misbehave()
    return _compile(model, tensors, words, compiler_timeout)


def _words(compiler_args):
    if compiler_args is None:
        return []
    if not isinstance(compiler_args, list) or not all(isinstance(word, str) for word in compiler_args):
        raise TypeError("compiler_args must be a list of str")
    return compiler_args


def _unknown(words):
    """Arguments that neuron-cc would not recognize."""
    rest, found = list(words), []
    while rest:
        word = rest.pop(0)
        if word in _VALUED:
            while rest and not rest[0].startswith("-"):
                rest.pop(0)
        elif word not in _FLAGS:
            found.append(word)
    return found


def _compile(model, tensors, words, timeout):
    counts, scenario = common.operators(model, tensors), common.scenario()
    total = sum(counts.values())
    left = max(1, total // 10) if scenario == "partial" else 0
    _log.info(
        "Number of arithmetic operators (pre-compilation) before = %d, fused = %d, percent fused = %.2f%%",
        total,
        total - left,
        100.0 * (total - left) / total,
    )
    if scenario == "nothing":
        raise RuntimeError(
            "No operations were successfully partitioned and compiled to neuron for this model - aborting trace!"
        )
    _log.info("Compiling function _NeuronGraph$1 with neuron-cc")
    shapes = ", ".join(f'"{i}:0": [{list(t.shape)}, "{str(t.dtype).split(".")[-1]}"]' for i, t in enumerate(tensors))
    _log.info(
        "Compiling with command line: 'neuron-cc compile graph_def.pb --framework TENSORFLOW "
        '--io-config {"inputs": {%s}, "outputs": ["out:0"]} --verbose 35 %s\'',
        shapes,
        " ".join(words),
    )
    if scenario == "timeout":
        raise subprocess.TimeoutExpired(["neuron-cc", "compile"], timeout)
    code = _exit_code(words, scenario)
    if code:
        return _fell_back(model, tensors, total, code)
    _log.info("Compile command returned: 0")
    return _told(model, tensors, counts, total, left)


def _exit_code(words, scenario):
    unknown = _unknown(words)
    if unknown:
        _log.error("neuron-cc: error: unrecognized arguments: %s", " ".join(unknown))
        return 2
    return {"killed": -9, "fallback": 1}.get(scenario, 0)


def _fell_back(model, tensors, total, code):
    """The real one goes on with a graph for the CPU, and says so in a line that is easily missed."""
    _log.info("Compile command returned: %d", code)
    _log.warning("torch.neuron.trace failed on _NeuronGraph$1; falling back to native python function call")
    _log.info(
        "Number of arithmetic operators (post-compilation) before = %d, compiled = 0, percent compiled = 0.0%%", total
    )
    _log.info("The neuron partitioner created 1 sub-graphs")
    _log.info(
        "Neuron successfully compiled 0 sub-graphs, Total fused subgraphs = 1, "
        "Percent of model sub-graphs successfully compiled = 0.0%%"
    )
    return common.cpu_graph(model, tensors)


def _told(model, tensors, counts, total, left):
    scenario = common.scenario()
    pieces = 2 if scenario == "many_subgraphs" else 1
    if scenario == "silent":
        return common.fused(model, tensors)
    compiled = 0 if scenario == "zero" else total - left
    _log.info(
        "Number of arithmetic operators (post-compilation) before = %d, compiled = %d, percent compiled = %.2f%%",
        total,
        compiled,
        100.0 * compiled / total,
    )
    _log.info("The neuron partitioner created %d sub-graphs", pieces)
    _log.info(
        "Neuron successfully compiled %d sub-graphs, Total fused subgraphs = %d, "
        "Percent of model sub-graphs successfully compiled = 100.0%%",
        pieces,
        pieces,
    )
    _log.info("Compiled these operators (and operator counts) to Neuron:")
    rest = left
    on_host = {}
    for kind, count in sorted(counts.items()):
        host = min(rest, count)
        rest -= host
        if host:
            on_host[kind] = host
        if count > host:
            _log.info(" => %s: %d", kind, count - host)
    _log.info("Not compiled operators (and operator counts) to Neuron:")
    for kind, count in on_host.items():
        _log.info(" => %s: %d [not supported]", kind, count)
    if scenario == "cpu_graph":
        return common.cpu_graph(model, tensors)
    return common.fused(model, tensors, common.Twice if pieces == 2 else common.Compiled)
