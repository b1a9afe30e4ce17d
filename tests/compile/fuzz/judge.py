"""Builds a generated module as a build does, but for the archive, and judges how that ends."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import endpoint_spec as specs
from compile.definition import ModelDefinition
from compile.errors import CompileError
from compile.frontend import loading, weights
from compile.ir.flat_module import FlatModule
from compile.pipeline.capture import require_parity
from compile.pipeline.graph import CapturedVariant, Places, capture_variant
from compile.pipeline.plan import plan, resolve
from compile.progress import Silent
from compile.verification.items import OutputItems
from tests.compile.fuzz.generate import Case
from tests.compile.fuzz.hazards import MIXING

# Messages that name neither a finding nor a remedy: code of the project that met what it did not expect.
_UNNAMED = re.compile(r"^(lowering .*|the trace of .*) failed: ")
# A built graph may differ by what parity allows, and by float32's own rounding; what is wrong differs by far more.
FAR = 1e-3


UNSAFE = (
    *("bool", "bool_same_for_all", "item", "float", "int", "tolist", "index", "while", "contains", "match"),
    *("equal", "allclose", "is_nonzero", "nonzero", "until_nothing"),
)
SIZED = (
    "mask_index",
    "mask_write_of_all",
    "masked_select",
    "nonzero_tuple",
    "where_single",
    "unique_consecutive",
    "bincount",
)


def line(kind: str) -> str:
    """How a message names a finding of this kind."""
    return f"\n  {kind}, "


# What refuses a module with this hazard alone (of `single`): a part of the message.
REFUSED = {
    **dict.fromkeys(("wrapper:scripted", "wrapper:traced"), line("torchscript")),
    **dict.fromkeys(("wrapper:data_parallel", "wrapper:compiled"), line("wrapper")),
    **{f"wrapper:{kind}": line(kind) for kind in ("quantized", "lazy", "meta", "training")},
    **{"wrapper:half_weight": "float16", "wrapper:half_buffer": line("dtype")},
    **{"wrapper:subclass_weight": line("tensor-subclass")},
    **dict.fromkeys((f"decision:{name}" for name in UNSAFE), line("data-dependent")),
    **dict.fromkeys((f"decision:{name}" for name in SIZED), line("data-sized")),
    **dict.fromkeys(("state:count", "state:count_unread", "state:assign", "state:weight_written"), line("state")),
    **dict.fromkeys((f"mixing:{name}" for name in MIXING if name != "count"), "batch_sizes: [1]"),
    **{"numbers:double_inside": line("float64"), "numbers:double_constant": "float64"},
}


class FaultError(AssertionError):
    """What no user may see."""


def outcome(case: Case) -> str:
    """'built', or the text of the CompileError. Raises FaultError for anything else, and for answers that are wrong."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            flat, compiled, path = _built(case, Path(folder))
        except CompileError as error:
            return _named(case, _judged(error))
        except (Exception, SystemExit) as error:
            raise FaultError(f"unexpected {type(error).__name__}: {error}") from error
        if {finding.kind for finding in compiled.findings} & {"data-dependent", "state"}:
            return _named(case, "built")  # the spec allows that another input is answered otherwise
        _compare(case, flat, compiled, torch.jit.load(str(path)))  # type: ignore[no-untyped-call]
    return _named(case, "built")


def _named(case: Case, ended: str) -> str:
    wanted = REFUSED.get(case.hazards[0], "") if not case.operators else ""
    if wanted not in ended:
        raise FaultError(f"{case.hazards[0]} is not refused as {wanted.strip()!r}: {ended}")
    return ended


def _built(case: Case, root: Path) -> tuple[FlatModule, CapturedVariant, Path]:
    spec = root / "endpoints" / "fuzz.yaml"
    spec.parent.mkdir()
    accept = f"accept: {{findings: [{', '.join(case.accept)}]}}"
    spec.write_text(
        'name: fuzz\nmodel: {entry: "model.py:build", weights: "random:0"}\n'
        f"compile: {{target: {case.target}, batch_sizes: [{case.batch}], {accept}}}\n"
    )
    (root / "model.py").write_text("def build(): ...\n")
    (root / "scratch").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "definition", lambda _: ModelDefinition({"main": case.graph}, [{"size": 6}], "tensor"))
        planned = plan(specs.load(spec, root=root), rehearse=True)
    resolved = resolve(planned, Silent())
    weights.fill(planned.spec, planned.definition, resolved.weights)
    (variant,) = planned.variants
    analyzed = planned.analyzed(variant, Silent())
    places = Places.inside(root / "scratch", planned.record)
    compiled = capture_variant(resolved, analyzed, places, Silent())
    require_parity([compiled])
    return analyzed.flat, compiled, places.artifact / variant.file


def _judged(error: CompileError) -> str:
    text = str(error)
    if _UNNAMED.match(text) or "unexpected" in text or "Traceback" in text:
        raise FaultError(f"no named finding: {text}") from error
    if not error.remedy:
        raise FaultError(f"no remedy: {text}") from error
    return text


def _compare(case: Case, flat: FlatModule, compiled: CapturedVariant, artifact: torch.jit.ScriptModule) -> None:
    """Every item of inputs that no build saw, as the original answers it alone. Raises FaultError."""
    for inputs in case.unseen:
        given = list(inputs.values())
        try:
            originals = (
                [_run(flat, [value[item : item + 1] for value in given]) for item in range(case.batch)]
                if case.batch > 1
                else [_run(flat, given)]
            )
        except (RuntimeError, ValueError, IndexError, TypeError):
            try:
                originals = [_run(flat, given)]
            except (RuntimeError, ValueError, IndexError, TypeError):
                continue  # the original itself takes no such values
        try:
            found = _run(artifact, given)
        except (RuntimeError, IndexError) as error:
            raise FaultError(f"the artifact fails where the model answers: {str(error)[-300:]}") from error
        for number, (own, answered) in enumerate(zip(compiled.items.outputs, found, strict=True)):
            for item, original in enumerate(originals):
                one = own.entry(answered, item, answered.dim())
                if len(originals) < case.batch:
                    wanted, one = original[number], answered
                else:
                    wanted = OutputItems(own.name, own.axis).entry(original[number], 0, answered.dim())
                _require_near(own.name, one, wanted, compiled.parity.bounds[number])


def _run(module: torch.nn.Module, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    with torch.no_grad():
        return [leaf.clone() for leaf in module(*(tensor.clone() for tensor in tensors))]


def _require_near(name: str, found: Tensor, wanted: Tensor, bound: float) -> None:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise FaultError(f"output {name} is {found.shape} {found.dtype}, the original {wanted.shape} {wanted.dtype}")
    if not wanted.numel():
        return
    kind = torch.complex128 if wanted.is_complex() else torch.float64
    one, other = found.to(kind), wanted.to(kind)
    same = (one == other) | (one.isnan() & other.isnan())
    finite = other[other.isfinite()].abs()
    size = float(finite.max()) if finite.numel() else 0.0
    apart = torch.where(same, torch.zeros_like(one), one - other).abs().nan_to_num(nan=float("inf"))
    if float(apart.max()) > max(FAR * size, bound):
        raise FaultError(f"output {name} differs by {float(apart.max()):.3e}, of a maximum of {size:.3e}")
