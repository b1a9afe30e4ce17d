"""AWS Inferentia (first generation), through torch_neuron.trace and neuron-cc.

Source of names and defaults: Neuron documentation, PyTorch-Neuron trace API and the neuron-cc command line reference.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from compile.analysis import CoverageReport
from compile.analysis.log_comparison import compare
from compile.analysis.neuron_log import LogError, LogReport, read_log
from compile.errors import CompileError
from compile.portable.process import LOG
from compile.targets import sdk
from compile.targets.base import CompilerOutput, LoweredVariant
from compile.targets.neuron import NeuronTarget, output
from compile.targets.output_checks import account_of, require_compiled
from compile.targets.process_runner import Finished, finished
from endpoint_spec import compiler_options, platforms
from endpoint_spec.endpoint import Inf1Options

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

PACKAGES = sdk.Packages("torch_neuron", "torch-neuron", "neuron-cc", ("tensorflow", "dmlc-nnvm"))
# Operators that a graph of dynamic batch cannot have on the host: the batch size is in what they compute.
_FIXED_BATCH = ("aten::embedding", "aten::size")


class Inf1(NeuronTarget):
    """torch_neuron, in a process of its own for every variant."""

    name = "inf1"
    packages = PACKAGES

    def request(self, lowered: LoweredVariant) -> dict[str, Any]:
        """See Target."""
        check_dynamic_batch(lowered)
        return self.asked(keywords(lowered.spec, lowered.report))

    def judged(self, lowered: LoweredVariant) -> CompilerOutput:
        """Raises CompileError for every fallback, and for versions that the container would refuse."""
        done = finished(lowered)
        sdk.check_versions(lowered.spec, done.found, self.packages)
        log = parsed(done)
        require_compiled(lowered, done, log)
        assert log is not None  # noqa: S101  (required above)
        return output(lowered, done, account=account_of(log), comparison=compare(lowered.report, log).to_json())


def keywords(spec: EndpointSpec, report: CoverageReport) -> dict[str, Any]:
    """Keyword arguments of torch_neuron.trace, as JSON has them; only what differs from its own defaults."""
    options = spec.compile.inf1 or Inf1Options()
    keyword_arguments: dict[str, Any] = {
        "compiler_args": arguments(spec, options),
        "compiler_timeout": max(1, int(spec.compile.timeout / timedelta(seconds=1))),
    }
    flags = {
        "dynamic_batch_size": options.dynamic_batch,
        "float32_to_float16": options.float32_to_float16,
        "separate_weights": separates_weights(options, report.weight_bytes),
    }
    keyword_arguments |= {name: True for name, on in flags.items() if on}
    values = {
        "op_whitelist": list(options.op_whitelist) if options.op_whitelist else None,
        "minimum_segment_size": options.minimum_segment_size,
        "single_fusion_ratio_threshold": options.single_fusion_ratio_threshold,
    }
    return keyword_arguments | {name: value for name, value in values.items() if value is not None}


def arguments(spec: EndpointSpec, options: Inf1Options) -> list[str]:
    """The words that neuron-cc is given."""
    cores = spec.compile.pipeline_cores
    pipeline = ["--neuroncore-pipeline-cores", str(cores)] if cores > 1 else []
    fast_math = platforms.compiler_arguments("inf1", spec.compile.fast_math)
    return [*pipeline, *fast_math, *compiler_options.split(options.arguments)]


def separates_weights(options: Inf1Options, weight_bytes: int) -> bool:
    """What the spec declares; otherwise by size: above 1.9 GB of constants the compiler's message is too large."""
    if options.separate_weights is not None:
        return options.separate_weights
    return weight_bytes > platforms.compile_machine().separate_weights_bytes


def check_dynamic_batch(lowered: LoweredVariant) -> None:
    """Raises CompileError where operators that stay on the host would keep the batch size of the example."""
    options = lowered.spec.compile.inf1
    if options is None or not options.dynamic_batch:
        return
    found = [kind for kind in _FIXED_BATCH if kind in lowered.report.operators and _on_host(lowered.report, kind)]
    if lowered.host_operators:  # the host part is traced for the example's batch size
        found += [kind for kind in _FIXED_BATCH if kind in lowered.host_operators] or ["its integer arithmetic"]
    if found:
        raise CompileError(
            f"{lowered.variant}: compile.inf1.dynamic_batch does not work with {' and '.join(found)} on the host.",
            "Remove dynamic_batch and name batch_sizes, or move these operators out of the model.",
        )


def _on_host(report: CoverageReport, kind: str) -> bool:
    return not report.operators[kind].supported or (
        kind == "aten::size" and bool(report.safe and report.safe.flops_host)
    )


def parsed(done: Finished) -> LogReport | None:
    """The log as compile.analysis reads it, or None when torch_neuron logged nothing in it."""
    try:
        return read_log(done.text, LOG)
    except LogError:
        return None
