"""``lower``: from a module to one that computes the same with operators that Neuron takes."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compile.lowering.dataflow import Dataflow
from compile.lowering.graph_log import log_graphs
from compile.lowering.module_copy import duplicate
from compile.lowering.operator_names import tensors
from compile.lowering.recorder import FOLD, Findings, NotFoldableError, Plan, Recorder
from compile.lowering.registry import REWRITES
from compile.lowering.report import LeftAlone, LoweringReport, RewriteUse
from compile.lowering.rewrite import FunctionRewrite, Left, LoweringError, ModuleRewrite, Rewrite
from compile.portable.replay import GraphPart, Placed

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lowered:
    """``module`` takes the same positional tensors as the original, in the example's shapes, and traces to plain
    operators."""

    module: nn.Module
    report: LoweringReport


class LoweredModule(Placed):
    """Runs the copied module under a recorder of its own, so that a trace records the lowered operators.

    The place of an operator is the path of the submodule that ran.
    """

    def __init__(self, inner: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.inner = inner
        self.constants = nn.Module()  # the values that were folded, as buffers c0, c1 ...
        self.plan = plan
        self.training = False

    def forward(self, *inputs: Tensor) -> Any:
        """Positional tensors of the example's shapes and dtypes; returns a tensor or a flat tuple of tensors.

        Raises LoweringError when the inputs differ from the example's, since shapes became constants.
        """
        return self.run(inputs, [self.constants.get_buffer(f"c{number}") for number in self.plan.positions])[0]

    def run(
        self, inputs: tuple[Tensor, ...], constants: Sequence[Tensor] | None, watch: bool = False
    ) -> tuple[Any, Findings]:
        """One run; ``constants`` None finds them, ``watch`` follows which submodule runs, as ``placed`` does."""
        flow = Dataflow(inputs) if constants is None and self.plan.watched and self.plan.strict else None
        owned = [*self.inner.parameters(), *self.inner.buffers()]
        recorder = Recorder(self.plan, owned, _attributes(self.inner), constants, flow)
        recorder.placed = self.placed
        with recorder._recording(on=False):
            given = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if given != self.plan.signature:
            raise LoweringError(
                f"lowered for inputs {_words(self.plan.signature)} and called with {_words(given)}; lower it for these"
            )
        hooks = list(_watch(self.inner, recorder)) if watch or self.placed else []
        try:
            with flow or contextlib.nullcontext(), recorder.running(inputs):
                result = self.inner(*inputs)
            return _outputs(result, recorder), recorder.findings
        finally:
            for hook in hooks:
                hook.remove()
            if constants is None:
                self.plan.survivors += [weakref.ref(tensor) for tensor in recorder.survivors()]


def _outputs(result: Any, recorder: Recorder) -> Any:
    if isinstance(result, Tensor):
        return recorder.output(result)
    if isinstance(result, (tuple, list)) and result and all(isinstance(part, Tensor) for part in result):
        return tuple(recorder.output(part) for part in result)
    raise LoweringError(
        f"the module returns {type(result).__name__}; wrap it so that it returns a tensor or a flat tuple of tensors"
    )


def _words(signature: Sequence[tuple[torch.Size, torch.dtype]]) -> str:
    return ", ".join(f"{str(dtype).removeprefix('torch.')}{list(shape)}" for shape, dtype in signature)


def _attributes(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules keep as plain attributes, neither parameter nor buffer."""
    for part in module.modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield from tensors(value)


def _watch(module: nn.Module, recorder: Recorder) -> Iterator[Any]:
    def enter(path: str, part: nn.Module, _: Any) -> None:
        recorder.path.append(part if isinstance(part, GraphPart) else path)

    def leave(*_: Any) -> None:
        recorder.path.pop()

    for path, part in module.named_modules():
        if not isinstance(part, torch.jit.ScriptModule):
            yield part.register_forward_pre_hook(functools.partial(enter, path))
            yield part.register_forward_hook(leave)


def _replace_modules(
    module: nn.Module, rewrites: Sequence[ModuleRewrite], report: LoweringReport, seconds: Counter[str]
) -> nn.Module:
    """Apply module rewrites to a module that may be changed; returns the module to use in its place."""
    done: dict[int, nn.Module] = {}
    for path, part in list(module.named_modules()):
        for rewrite in rewrites:
            if isinstance(part, torch.jit.ScriptModule) or not rewrite.matches(part):
                continue
            started = time.perf_counter()
            replacement = done[id(part)] if id(part) in done else rewrite.replace(part)
            seconds[rewrite.name] += time.perf_counter() - started  # type: ignore[assignment]
            if isinstance(replacement, Left):
                report.left[LeftAlone(rewrite.name, type(part).__name__, path, replacement.reason)] += 1
                continue
            done[id(part)] = replacement
            report.uses[rewrite.name].where[path] += 1
            if not path:
                return replacement
            parent, _, child = path.rpartition(".")
            setattr(module.get_submodule(parent), child, replacement)
            break
    return module


def lower(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    disabled: Collection[str] = (),
    extra: Sequence[Rewrite] = (),
    chip: bool = True,
) -> Lowered:
    """Lower a module in eval mode for inputs of the example's shapes; the given module is not changed.

    The module takes positional tensors and returns a tensor or a flat tuple of tensors. ``disabled`` names rewrites
    to leave out, ``extra`` are rewrites of the user's own, asked before the built-in ones. Without ``chip`` calls stay
    that a processor takes as they are and a graph file holds. Raises LoweringError when
    the module is in training mode, returns something else, or a name in ``disabled`` is unknown. What cannot be
    lowered stays as it is and is in the report.
    """
    if any(part.training for part in module.modules()):
        raise LoweringError("the module is in training mode; call .eval() before lowering")
    started = time.perf_counter()
    known = {rewrite.name for rewrite in (*extra, *REWRITES)} | {FOLD}
    unknown = sorted(set(disabled) - known)
    if unknown:
        raise LoweringError(f"no rewrite is called {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    chosen = [rewrite for rewrite in (*extra, *REWRITES) if rewrite.name not in disabled]
    report = LoweringReport(disabled=tuple(sorted(disabled)))
    report.uses = {item.name: RewriteUse(item.name, item.mechanism, item.why, item.cost) for item in chosen}
    seconds: Counter[str] = Counter()
    modules = [item for item in chosen if isinstance(item, ModuleRewrite)]
    inner = _replace_modules(duplicate(module), modules, report, seconds)
    functions = tuple(item for item in chosen if isinstance(item, FunctionRewrite))
    with torch.no_grad():
        signature = tuple((tensor.shape, tensor.dtype) for tensor in example_inputs)
        lowered = LoweredModule(inner, Plan(functions, signature, fold=FOLD not in disabled, chip=chip))
        findings = _find(lowered, tuple(example_inputs))
    _keep_constants(lowered, findings, report)
    _account(findings, report)
    _log(report, seconds + findings.seconds, time.perf_counter() - started)
    log_graphs(module, lowered, tuple(example_inputs), report, chosen)
    return Lowered(lowered, report)


def _log(report: LoweringReport, seconds: Counter[str], total: float) -> None:
    for name, use in report.uses.items():
        if name in seconds:
            places = [f"{where or 'the module'} ({times}x)" for where, times in use.where.items()] or ["nowhere"]
            _LOG.info("%s: %d rewritten in %.3f s: %s", name, use.applied, seconds[name], ", ".join(places))
    _LOG.info("nothing to rewrite for: %s", ", ".join(name for name in report.uses if name not in seconds))
    for left, times in report.left.items():
        where = left.where or "the module"
        _LOG.info("%s: %s in %s left alone (%dx): %s", left.rewrite, left.operator, where, times, left.reason)
    for note in report.notes:
        _LOG.info("note: %s", note)
    _LOG.info("lowered in %.3f s: %d constants of %d bytes", total, report.constants, report.constant_bytes)


def _find(lowered: LoweredModule, inputs: tuple[Tensor, ...]) -> Findings:
    """Run until the plan holds.

    A constant that is really written into is none; what the mode cannot see is recorded as it runs; and where the
    model's Python code branches on data, it sees that it is traced, so that it may leave its shortcuts out.
    """
    findings = _attempt(lowered, inputs, "follow its Python code")
    if findings.frozen:
        try:
            findings = _attempt(lowered, inputs, "report that it is traced", says_tracing=True)
        except (TypeError, AttributeError):  # its code for tracing expects shapes to be tensors
            findings = _attempt(lowered, inputs, "do not report that it is traced", says_tracing=False)
    if findings.adopted and not _stay(lowered, inputs, findings.adopted):
        findings = _attempt(lowered, inputs, "take what is unseen for data", watched=False, kept=frozenset())
    if findings.unseen:
        findings = _attempt(lowered, inputs, "record it as it runs", strict=False)
    lowered.plan.unseen_data = tuple(findings.unseen_data)
    return findings


def _attempt(lowered: LoweredModule, inputs: tuple[Tensor, ...], strategy: str, **changes: Any) -> Findings:
    """What a run finds with changes to the plan, which stay; or what it raises."""
    started = time.perf_counter()
    lowered.plan = replace(lowered.plan, **changes)
    try:
        return _find_once(lowered, inputs)
    finally:
        _LOG.info("strategy: %s, %.3f s", strategy, time.perf_counter() - started)


def _stay(lowered: LoweredModule, inputs: tuple[Tensor, ...], adopted: Sequence[Tensor]) -> bool:
    """Whether what was taken for constants, though unseen, is the same for other inputs.

    TorchScript's fused kernels compute past the dispatcher, so what depends on data can look like a constant.
    """
    try:
        again = lowered.run(tuple(_other(tensor) for tensor in inputs), None, watch=True)[1].adopted
    except (RuntimeError, ValueError, IndexError, NotFoldableError):  # the model does not take these values
        return False
    return len(again) == len(adopted) and all(map(_same, again, adopted))


def _other(tensor: Tensor) -> Tensor:
    """Other values of the same kind: whole numbers in another order, so that indices stay valid."""
    other = tensor.flip(tuple(range(tensor.dim())))
    return other * 0.9 + 0.05 if tensor.is_floating_point() else other


def _find_once(lowered: LoweredModule, inputs: tuple[Tensor, ...]) -> Findings:
    plan = lowered.plan
    while True:
        try:
            return lowered.run(inputs, None, watch=True)[1] if plan.strict else _found_in_trace(lowered, inputs)
        except NotFoldableError as error:
            if not error.ordinals - plan.kept:
                raise LoweringError(
                    "a constant is written into with data of the inputs and cannot be kept unfolded"
                ) from error
            plan.kept |= error.ordinals
        except LoweringError:
            raise
        except RuntimeError as error:
            if plan.watched and "TorchScript interpreter" in str(error):
                plan.watched = False
            elif plan.strict:
                raise
            else:
                reason = str(error).strip().splitlines()[0]
                raise LoweringError(
                    "parts of the module run where a function mode cannot follow (torch.vmap, scripted functions), and "
                    f"it cannot be traced as it is either: {reason}"
                ) from error


def _found_in_trace(lowered: LoweredModule, inputs: tuple[Tensor, ...]) -> Findings:
    """A finding run that is traced, for modules whose scripted parts behave differently there."""
    found: list[Findings] = []

    class Finding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lowered, self.training = lowered, False

        def forward(self, *inputs: Tensor) -> Any:
            result, findings = self.lowered.run(inputs, None, watch=True)
            found.append(findings)
            return result

    torch.jit.trace(Finding(), inputs, check_trace=False)  # type: ignore[no-untyped-call]
    return found[-1]


def _keep_constants(lowered: LoweredModule, findings: Findings, report: LoweringReport) -> None:
    unique: list[Tensor] = []
    positions: list[int] = []
    for value in findings.constants:
        place = next((n for n, other in enumerate(unique) if _same(value, other)), len(unique))
        if place == len(unique):
            unique.append(value)
        positions.append(place)
    for number, value in enumerate(unique):
        lowered.constants.register_buffer(f"c{number}", value)
    lowered.plan.positions = tuple(positions)
    report.constants = len(unique)
    report.constant_bytes = sum(value.numel() * value.element_size() for value in unique)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _account(findings: Findings, report: LoweringReport) -> None:
    for (name, where), times in findings.applied.items():
        report.uses[name].where[where] += times
    for name, use in report.uses.items():
        use.flops, use.bytes = findings.flops[name], findings.bytes[name]
    report.left.update(findings.left)
    for (name, where), times in findings.unseen.items():
        report.notes.append(
            f"{name} in {where or 'the module'} takes a tensor whose making was not seen ({times}x), for instance that "
            "of a scripted function: Python code of this module is recorded as it runs, scripted parts stay as they are"
        )
    for (name, where), times in findings.frozen.items():
        report.notes.append(
            f"{name} in {where or 'the module'} reads a value that depends on the inputs ({times}x); a trace fixes it"
        )
