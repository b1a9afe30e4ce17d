"""AWS Inferentia2, through torch_neuronx.trace and neuronx-cc.

Source of names and defaults: Neuron documentation, PyTorch NeuronX tracing API and the neuronx-cc command line
reference. There is no public operator table for this target, so nothing is predicted about operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compile.targets import sdk
from compile.targets.base import CompilerOutput, LoweredVariant
from compile.targets.neuron import NeuronTarget, output
from compile.targets.output_checks import account_of_nodes, require_fused
from compile.targets.process_runner import finished
from endpoint_spec import compiler_options, platforms
from endpoint_spec.endpoint import Inf2Options

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

PACKAGES = sdk.Packages("torch_neuronx", "torch-neuronx", "neuronx-cc", ("torch-xla", "libneuronxla"))


class Inf2(NeuronTarget):
    """torch_neuronx, in a process of its own for every variant."""

    name = "inf2"
    packages = PACKAGES

    def request(self, lowered: LoweredVariant) -> dict[str, Any]:
        """See Target."""
        return self.asked(keywords(lowered.spec))

    def judged(self, lowered: LoweredVariant) -> CompilerOutput:
        """Raises CompileError for a CPU graph, and for versions that the container would refuse."""
        done = finished(lowered)
        sdk.check_versions(lowered.spec, done.found, self.packages)
        require_fused(lowered, done)
        return output(lowered, done, account=account_of_nodes(done))

    def separates_weights(self, spec: EndpointSpec) -> bool:
        """Whether torch_neuronx leaves the weights beside the program."""
        options = spec.compile.inf2
        return options is not None and not options.inline_weights_to_neff


def loaded(path: Path, separate_weights: bool, core: int = 0) -> torch.jit.ScriptModule:
    """A compiled graph, ready to be called; weights beside the program are moved to a core, as the documentation asks.

    Raises RuntimeError where it cannot be loaded, CompileError where there is no torch_neuronx.
    """
    graph: torch.jit.ScriptModule = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    if separate_weights:
        sdk.require(PACKAGES, "inf2").move_trace_to_device(graph, core)
    return graph


def keywords(spec: EndpointSpec) -> dict[str, Any]:
    """Keyword arguments of torch_neuronx.trace, as JSON has them; only what differs from its own defaults."""
    options = spec.compile.inf2 or Inf2Options()
    cast = platforms.compiler_arguments("inf2", spec.compile.fast_math)
    keyword_arguments: dict[str, Any] = {
        "compiler_args": ["--target", "inf2", *cast, *compiler_options.split(options.arguments)],
    }
    if not options.inline_weights_to_neff:
        keyword_arguments["inline_weights_to_neff"] = False
    if options.partitioner is not None:
        keyword_arguments["partitioner"] = options.partitioner.model_dump(exclude_none=True)
    if options.input_output_aliases:
        keyword_arguments["input_output_aliases"] = dict(options.input_output_aliases)
    return keyword_arguments
