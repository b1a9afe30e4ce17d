"""Rules about the options of the target's compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import compiler_options, platforms
from .endpoint import EndpointSpec
from .findings import Finding, Rules

_OPERATOR = re.compile(r"(aten|prim)::\w+")
RULES = Rules()
rule = RULES.register
# What no document forbids, and none allows: reported, never refused.
ADVICE = Rules()
advice = ADVICE.register


@rule("compile.inf1", "compile.inf2", "compile.target")
def options_of_the_target(spec: EndpointSpec) -> Iterator[Finding]:
    """The options of one chip's compiler mean nothing to the other's."""
    target = spec.compile.target
    for other in ("inf1", "inf2"):
        if other != target and getattr(spec.compile, other) is not None:
            problem = f"is for {other}, but compile.target is {target}"
            yield Finding(f"compile.{other}", "", problem, f"Remove it, or write target: {other}.")


@rule("compile.sdk", "compile.target")
def sdk_has_an_image(spec: EndpointSpec) -> Iterator[Finding]:
    """The container image of an SDK release compiles and serves."""
    wanted, known = spec.compile.sdk, platforms.sdks(spec.compile.target)
    if wanted is not None and known and wanted not in known:
        problem = f"is no Neuron SDK release with an image for {spec.compile.target} in the table"
        yield Finding("compile.sdk", wanted, problem, f"Write one of {', '.join(known)}, or leave it out.")


@rule("compile.sdk", "compile.target")
def runtime_starts_on_the_host(spec: EndpointSpec) -> Iterator[Finding]:
    """A runtime does not start on every driver; the sources are in data/images.yaml."""
    target = spec.compile.target
    if spec.compile.sdk not in (None, *platforms.sdks(target)):
        return
    driver = platforms.host(target).driver
    if driver is None:
        return
    image = platforms.image(target, "torchserve", spec.compile.sdk)
    low, high = image.lowest_driver, image.highest_driver
    too_old = low is not None and version(driver) < version(low)
    too_new = high is not None and version(driver) > version(high)
    if not too_old and not too_new:
        return
    bounds = f"{low} or later" if too_old else f"{high} or earlier"
    problem = (
        f"has Neuron runtime {image.runtime}, which needs driver {bounds}; SageMaker's hosts for {target} have driver "
        f"{driver} ({platforms.host(target).ami_version}), on which it fails to initialize"
    )
    remedy = f"Leave it out (the default is {platforms.sdks(target)[0]}), or write an older release."
    yield Finding("compile.sdk", str(image.sdk), problem, remedy)


def version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version, in which documents name drivers."""
    return tuple(int(part) for part in text.split(".")[:2])


@advice("compile.sdk", "compile.target")
def runtime_is_of_the_hosts_release(spec: EndpointSpec) -> Iterator[Finding]:
    """A runtime on another release's driver may start, but no document says so."""
    target = spec.compile.target
    driver = platforms.host(target).driver
    if driver is None:
        return
    image = platforms.image(target, "torchserve", spec.compile.sdk)
    if version(str(image.driver)) != version(driver):
        problem = (
            f"has Neuron runtime {image.runtime}, made for driver {image.driver}; SageMaker's hosts for {target} have "
            f"driver {driver}, and no document says whether it starts there"
        )
        yield Finding(
            "compile.sdk", str(image.sdk), problem, f"Try it, or leave it out for {platforms.sdks(target)[0]}."
        )


@rule("compile.inf1.arguments", "compile.inf2.arguments", "compile.target")
def compiler_arguments(spec: EndpointSpec) -> Iterator[Finding]:
    """What the compiler would refuse, or would take in another way than meant, is reported before anything runs."""
    target = spec.compile.target
    options = spec.compile.inf1 if target == "inf1" else spec.compile.inf2
    if options is None or target == "cpu":
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
