"""A stand-in for torch_neuronx: trace() with the documented arguments, checks and messages."""

from __future__ import annotations

import sys

import neuron_stand_in as common
import torch

STAND_IN = True
__version__ = f"{torch.__version__.partition('+')[0]}.2.9.0"

_FLAGS = {
    "--enable-saturate-infinity", "--enable-mixed-precision-accumulation", "--enable-fast-context-switch",
    "--enable-fast-loading-neuron-binaries", "-O1", "-O2", "-O3",
}  # fmt: skip
_VALUED = {
    "--target": {"inf2", "trn1", "trn2"},
    "--auto-cast": {"none", "matmult", "all"},
    "--auto-cast-type": {"bf16", "fp16", "tf32", "fp8_e4m3"},
    "--model-type": {"generic", "transformer", "unet-inference"},
    "--optlevel": {"1", "2", "3"},
    "-O": {"1", "2", "3"},
    "--verbose": {"info", "warning", "error", "critical", "debug"},
}


class PartitionerConfig:
    def __init__(
        self,
        *,
        trace_kwargs=None,
        model_support_percentage_threshold=0.5,
        min_subgraph_size=-1,
        max_subgraph_count=-1,
        ops_to_partition=None,
        analyze_parameters=None,
    ):
        self.max_subgraph_count = max_subgraph_count
        self.ops_to_partition = ops_to_partition


def trace(
    func,
    example_inputs,
    *_,
    input_output_aliases={},  # noqa: B006  (the documented signature)
    compiler_workdir=None,
    compiler_args=None,
    partitioner_config=None,
    inline_weights_to_neff=True,
    cpu_backend=False,
):
    tensors = common.checked_inputs("torch_neuronx.trace", func, example_inputs)
    words = compiler_args.split() if isinstance(compiler_args, str) else list(compiler_args or [])
    if cpu_backend and "--target" not in words:
        raise ValueError("cpu_backend needs --target in compiler_args")
    if not all(isinstance(tensor, torch.Tensor) for tensor in input_output_aliases):
        raise TypeError("input_output_aliases: the keys must be tensors")
    common.remember(
        compiler_workdir,
        compiler_args=words,
        inline_weights_to_neff=inline_weights_to_neff,
        partitioner=None if partitioner_config is None else partitioner_config.max_subgraph_count,
        aliases=sorted(input_output_aliases.values()),
        cpu_backend=cpu_backend,
    )
    common.misbehave()
    _check(words)
    return _compile(func, tensors, partitioner_config)


MOVED: list[int] = []


def move_trace_to_device(trace, device_id):
    """Weights that are beside the program are on the device from here on; the tests count the calls."""
    if not isinstance(trace, torch.jit.ScriptModule) or not isinstance(device_id, int):
        raise TypeError("move_trace_to_device(trace: ScriptModule, device_id: int)")
    MOVED.append(device_id)


def _say(text):
    """As the compiler's process does: on standard output, not through logging."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _check(words):
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in _VALUED:
            value = rest.pop(0) if rest else ""
            if value not in _VALUED[word]:
                _say(f"neuronx-cc: error: argument {word}: invalid choice: {value!r}")
                raise RuntimeError("neuronx-cc failed with 2")
        elif word not in _FLAGS:
            _say(f"neuronx-cc: error: unrecognized arguments: {word}")
            raise RuntimeError("neuronx-cc failed with 2")


def _compile(func, tensors, partitioner_config):
    scenario = common.scenario()
    if scenario == "killed":
        _say("[F137] neuronx-cc was forcibly killed - This most commonly occurs due to insufficient system memory.")
        raise RuntimeError("neuronx-cc failed with -9")
    if scenario == "fallback":
        _say("ERROR: operator is not supported")
        raise RuntimeError("neuronx-cc failed with 70")
    _say("Compiler status PASS")
    if scenario == "cpu_graph":
        return common.cpu_graph(func, tensors)
    pieces = scenario == "many_subgraphs"
    return common.fused(func, tensors, common.Twice if pieces else common.Compiled)
