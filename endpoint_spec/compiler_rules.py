"""Rules about the options of the target's compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import compiler_options
from .endpoint import EndpointSpec
from .findings import Finding, Rules

_OPERATOR = re.compile(r"(aten|prim)::\w+")
RULES = Rules()
rule = RULES.register


@rule("compile.inf1", "compile.inf2", "compile.target")
def options_of_the_target(spec: EndpointSpec) -> Iterator[Finding]:
    """The options of one chip's compiler mean nothing to the other's."""
    target = spec.compile.target
    other = {"inf1": "inf2", "inf2": "inf1"}[target]
    if getattr(spec.compile, other) is not None:
        problem = f"is for {other}, but compile.target is {target}"
        yield Finding(f"compile.{other}", "", problem, f"Remove it, or write target: {other}.")


@rule("compile.inf1.arguments", "compile.inf2.arguments", "compile.target")
def compiler_arguments(spec: EndpointSpec) -> Iterator[Finding]:
    """What the compiler would refuse, or would take in another way than meant, is reported before anything runs."""
    target = spec.compile.target
    options = spec.compile.inf1 if target == "inf1" else spec.compile.inf2
    if options is None:
        return
    key = f"compile.{target}.arguments"
    try:
        found = list(compiler_options.problems(target, options.arguments))
    except ValueError as error:  # a quotation mark without its partner
        yield Finding(key, " ".join(options.arguments), f"cannot be split into words ({error})", "Correct the quotes.")
        return
    for word, problem, remedy in found:
        yield Finding(key, word, problem, remedy)


@rule("compile.inf1.op_whitelist", "compile.inf2.partitioner")
def operator_names(spec: EndpointSpec) -> Iterator[Finding]:
    """Operators are named as TorchScript names them."""
    inf1, inf2 = spec.compile.inf1, spec.compile.inf2
    lists = {"compile.inf1.op_whitelist": inf1.op_whitelist if inf1 else None}
    if inf2 and inf2.partitioner:
        lists["compile.inf2.partitioner.ops_to_partition"] = inf2.partitioner.ops_to_partition
    for key, names in lists.items():
        for name in names or ():
            if not _OPERATOR.fullmatch(name):
                yield Finding(key, name, "is not an operator of TorchScript", f"Write aten::{name.split(':')[-1]}.")


@rule("compile.inf1.dynamic_batch", "compile.batch_sizes")
def dynamic_batch_has_one_size(spec: EndpointSpec) -> Iterator[Finding]:
    """A graph of dynamic batch takes every multiple: more sizes only cost memory."""
    options, sizes = spec.compile.inf1, spec.compile.batch_sizes
    if options is not None and options.dynamic_batch and len(sizes) > 1:
        problem = f"makes {len(sizes)} graphs of each bucket superfluous: one takes every batch"
        remedy = f"Write batch_sizes: [{max(sizes)}], or remove dynamic_batch."
        yield Finding("compile.inf1.dynamic_batch", "true", problem, remedy)
