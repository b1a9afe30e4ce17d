"""Every operator that a graph file may hold computes in torch 1.13.1 what it did in the torch that captured it."""

from __future__ import annotations

import json
import math
import subprocess
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compile.ir.graph import trace
from compile.lowering import lower
from compile.lowering.for_target import parted
from compile.lowering.graph_module import read
from compile.portable import operators
from compile.portable.operators import CAPTURED_WITH, allowed, problem, schema
from compile.portable.replay import GraphPart
from tests.compile.fuzz.operators import ALL, make
from tests.compile.portable.operator_calls import KINDS, Answer, answers, calls

ROOT = Path(__file__).resolve().parents[3]
PYTHON310 = ROOT / ".venv310" / "bin" / "python"
REPLAYED_WITH = "1.13.1"
RELEASES = (REPLAYED_WITH, "2.5.1", "2.9.0", CAPTURED_WITH)
ENTRIES: dict[str, dict[str, Any]] = json.loads(Path(operators.__file__).with_suffix(".json").read_text())["operators"]
EVERY = [pytest.param(overload, id=overload.removeprefix("aten::")) for overload in sorted(allowed())]
in_the_capturing_torch = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != CAPTURED_WITH, reason=f"graphs are captured with torch {CAPTURED_WITH}"
)


# What the list holds


@pytest.mark.parametrize("overload", EVERY)
def test_an_operator_makes_tensors_of_its_arguments_alone(overload: str) -> None:
    text = schema(CAPTURED_WITH, overload)
    assert text is not None
    assert "!" not in text  # a mutable argument
    takes, _, gives = text.rpartition(" -> ")
    assert not [kind for kind in ("Storage", "Dimname", "Device", "Stream", "Layout") if f"{kind} " in takes]
    assert "Generator" not in takes or "Generator? generator=None" in takes
    assert "Tensor" in takes
    assert "Tensor" in gives


@pytest.mark.parametrize("overload", EVERY)
def test_an_operator_draws_nothing_and_its_sizes_are_no_data(overload: str) -> None:
    name, _, which = overload.removeprefix("aten::").partition(".")
    try:
        tags = getattr(getattr(torch.ops.aten, name), which or "default").tags
    except AttributeError:
        assert torch.__version__.partition("+")[0] in ENTRIES[overload]["lacking"]
        return
    assert {"only", "never"} & set(ENTRIES[overload]) or not {str(tag).rpartition(".")[2] for tag in tags} & {
        *("nondeterministic_seeded", "nondeterministic_bitwise", "dynamic_output_shape", "data_dependent_output")
    }


@pytest.mark.parametrize(
    "overload",
    [
        *(
            "aten::add_.Tensor",
            "aten::copy_",
            "aten::set_.source_Tensor",
            "aten::set_.source_Storage",
            "aten::index_put_",
        ),
        *("aten::rand", "aten::rand_like", "aten::bernoulli", "aten::normal.Tensor_float", "aten::multinomial"),
        *(
            "aten::native_dropout",
            "aten::feature_dropout",
            "aten::from_file",
            "aten::save",
            "aten::item",
            "aten::nonzero",
        ),
        *(
            "aten::masked_select",
            "aten::index.Tensor",
            "aten::to.device",
            "aten::as_strided",
            "aten::add.out",
            "prim::device",
        ),
    ],
)
def test_what_no_graph_file_may_hold(overload: str) -> None:
    assert overload not in allowed()


@pytest.mark.parametrize("release", RELEASES)
def test_the_list_is_small_beside_a_release_and_names_what_it_lacks(release: str) -> None:
    data = json.loads((Path(operators.__file__).parent / "schemas" / f"torch-{release}.json").read_text())
    assert data["torch"] == release
    assert 5 * len(allowed()) < len(data["operators"])
    lacking = {overload for overload in allowed() if overload not in data["operators"]}
    assert lacking == {overload for overload, entry in ENTRIES.items() if release in entry.get("lacking", ())}


@pytest.mark.parametrize("release", RELEASES)
def test_the_arguments_are_those_of_the_capturing_torch(release: str) -> None:
    for overload, entry in ENTRIES.items():
        if release not in entry.get("lacking", ()):
            assert _arguments(release, overload) == _arguments(CAPTURED_WITH, overload)


def _arguments(release: str, overload: str) -> list[tuple[str, bool, bool, Any]]:
    found = torch._C.parse_schema(schema(release, overload) or "").arguments
    return [(a.name, a.kwarg_only, a.has_default_value(), a.default_value) for a in found]


# What a call is refused for


@pytest.mark.parametrize(
    ("release", "overload", "args", "kwargs", "said"),
    [
        ("1.13.1+cpu", "aten::squeeze.dims", (0, [1]), {}, "torch 1.13.1 has no aten::squeeze.dims."),
        ("1.13.1", "aten::add.Tensor", (0, 1, 2), {}, "takes 2 positional arguments in torch 1.13.1, not 3"),
        ("1.13.1", "aten::add.Tensor", (0, 1), {"beta": 1}, "has no argument beta"),
        ("1.13.1", "aten::add.Tensor", (0, 1), {"self": 1}, "self by place and by name"),
        ("1.13.1", "aten::add.Tensor", (0,), {}, "needs the argument other"),
        ("1.13.1", "aten::stft", (0, 4), {"align_to_window": True}, "has no argument align_to_window"),
        ("1.13.1", "aten::var.correction", (0,), {"correction": 1}, "needs the argument dim"),
        ("1.13.1", "aten::dropout", (0, 0.5, True), {}, "is read with train=False alone"),
        ("1.13.1", "aten::dropout", (0, 0.5, 0), {}, "is read with train=False alone"),
        ("1.13.1", "aten::one_hot", (0,), {}, "is not read with num_classes=-1"),
        ("2.9.0", "aten::where.ScalarOther", (0, 0, True), {}, "is not read with the bool other=True"),
        (
            "2.7.0",
            "aten::add.Tensor",
            (0, 1),
            {},
            "The operators of torch 2.7.0 are not known here, only those of 1.13.1",
        ),
        ("../1.13.1", "aten::add.Tensor", (0, 1), {}, "are not known here"),
    ],
)
def test_a_call_that_a_release_does_not_have(
    release: str, overload: str, args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    found = problem(release, overload, args, kwargs)
    assert found is not None
    assert said in found


def test_another_default_and_another_order_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = {
        REPLAYED_WITH: "aten::gelu(Tensor self, *, str approximate='tanh') -> Tensor",
        CAPTURED_WITH: "aten::gelu(Tensor self, *, str approximate='none') -> Tensor",
    }
    monkeypatch.setattr(operators, "schema", lambda release, _: schemas[release])
    operators._arguments.cache_clear()
    found = problem(REPLAYED_WITH, "aten::gelu", (0,), {})
    assert found == "aten::gelu takes approximate=tanh where it is left out, and torch 2.13.0 none (torch 1.13.1)."
    assert problem(REPLAYED_WITH, "aten::gelu", (0,), {"approximate": "none"}) is None
    schemas[CAPTURED_WITH] = "aten::gelu(Tensor input, *, str approximate='tanh') -> Tensor"
    operators._arguments.cache_clear()
    assert "takes self where torch 2.13.0 takes input" in (problem(REPLAYED_WITH, "aten::gelu", (0,), {}) or "")
    operators._arguments.cache_clear()


# What lowering makes


def emitted(flat: nn.Module, example: tuple[Tensor, ...]) -> set[str]:
    """The overloads of a lowered graph, and of its host part and device part for inf1."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = lower(flat, example).module
        found = read(trace(module, example, grad=False))[0]  # as for inf2
        prologue = parted(module, example, "inf1")
    for part in (prologue.host, prologue.device):
        found += part.steps if isinstance(part, GraphPart) else []
    functions = [step.function for step in found if isinstance(step.function, torch._ops.OpOverload)]
    return {str(each).replace(".default", "").replace("aten.", "aten::") for each in functions}


@in_the_capturing_torch
@pytest.mark.filterwarnings("ignore")
def test_what_the_fuzz_operators_lower_to_is_allowed() -> None:
    """But for the cells, in whose trace torch's own code writes in place; capture takes the operators that do not."""
    refused = set()
    for name in ALL:
        for shape in ((2, 5, 6), (2, 4, 8, 8)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            try:
                model = make(name, shape).eval()
                model(x)
            except (ValueError, RuntimeError, IndexError):
                continue
            refused |= {(name, overload) for overload in emitted(model, (x,)) - allowed()}
    assert {name for name, _ in refused} == {"GRUCell", "LSTMCell"}
    assert all(overload.partition(".")[0].endswith("_") for _, overload in refused)


# What the operators answer

Both = dict[str, dict[str, tuple[Answer, Answer]]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """By overload and label: what this torch answers to a call that a file may hold, and what 1.13.1 does."""
    if not PYTHON310.exists():
        pytest.skip(".venv310 is not there: make test-python310 makes it")
    folder = tmp_path_factory.mktemp("answers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine = {overload: _captured(overload) for overload in allowed() if schema(REPLAYED_WITH, overload)}
    torch.set_num_threads(threads)
    (folder / "asked").write_text(json.dumps({overload: list(found) for overload, found in mine.items()}))
    command = [PYTHON310, "-m", "tests.compile.portable.operator_calls", folder / "asked", folder / "answers"]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    theirs = torch.load(folder / "answers", weights_only=False)
    return {o: {label: (mine[o][label], theirs[o][label]) for label in mine[o]} for o in mine}


def _captured(overload: str) -> dict[str, Answer]:
    """The answers to what can be captured: calls that this torch answers, and that the reader takes."""
    taken = {label for label, args, kwargs in calls(overload) if not problem(REPLAYED_WITH, overload, args, kwargs)}
    return {label: answer for label, answer in answers(overload, taken).items() if not isinstance(answer, str)}


@in_the_capturing_torch
@pytest.mark.parametrize("overload", [each for each in EVERY if "only" in ENTRIES[str(each.values[0])]])
def test_what_an_entry_refuses_draws_random_numbers_or_writes(overload: str) -> None:
    refused = [label for label, *call in calls(overload) if "alone" in (problem(CAPTURED_WITH, overload, *call) or "")]
    label = next(label for label in refused if label.endswith(" float"))
    written = pytest.raises(AssertionError, match="writes into its arguments") if "norm" in overload else nullcontext()
    with torch.random.fork_rng(), torch.no_grad(), written:
        one, other = (answers(overload, [label])[label] for _ in range(2))
        assert difference(one, other, "float")


@in_the_capturing_torch
@pytest.mark.parametrize("overload", [each for each in EVERY if schema(REPLAYED_WITH, str(each.values[0]))])
def test_an_operator_answers_alike_in_both(overload: str, both: Both) -> None:
    assert len(both[overload]) >= 3, "the operator has no inputs: tests/compile/portable/operator_calls.py"
    found: dict[str, str] = {}
    for label, (mine, theirs) in both[overload].items():
        kind = label.partition(" ")[2]
        different = difference(mine, theirs, kind)
        if different:
            found.setdefault(kind, f"{label}: {different}")
    entry = ENTRIES[overload]
    assert set(found) - set(entry.get("processor", {})) == set(entry.get("differs", {})), found


@in_the_capturing_torch
def test_every_kind_of_input_is_tried(both: Both) -> None:
    tried = [{label.partition(" ")[2] for label in found} for found in both.values()]
    assert all(sum(kind in kinds for kinds in tried) > len(tried) / 4 for kind in KINDS)
    assert sum(len(found) for found in both.values()) > 10_000


def difference(mine: Answer, theirs: Answer, kind: str) -> str | None:
    """How the answer of the replaying torch is another: raised, dtype, shape, strides or values; None where it is not.

    Whole numbers are equal. Floats may be 16 units in the last place apart: of themselves, or of the largest of all,
    which is what the order of a sum does to one that is nearly 0.
    """
    if isinstance(theirs, str):
        return theirs
    if isinstance(mine, (list, tuple)):
        pairs = zip(mine, theirs, strict=True)
        return next(filter(None, (difference(one, other, kind) for one, other in pairs)), None)
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return f"{theirs.dtype} {tuple(theirs.shape)}, not {mine.dtype} {tuple(mine.shape)}"
    if _steps(mine) != _steps(theirs):
        return f"strides {theirs.stride()}, not {mine.stride()}"
    one, other = mine.double(), theirs.double()
    same = (one == other) & (one.signbit() == other.signbit()) | one.isnan() & other.isnan()
    if mine.is_floating_point():
        unit = torch.finfo(mine.dtype).eps
        same |= (one - other).abs() <= 16 * unit * other.abs()
        if kind != "special" and other.numel():
            same |= (one - other).abs() <= 16 * unit * other.nan_to_num().abs().max()
    return None if bool(same.all()) else f"{other[~same][0]}, not {one[~same][0]}"


def _steps(tensor: Tensor) -> list[int]:
    """The strides that a later view depends on."""
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def test_a_difference_is_seen() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert difference(x, x.clone(), "float") is None
    assert difference(x, x * (1 + 2e-7), "float") is None
    assert difference([x, x], [x, x * 1.00001], "float") is not None
    assert difference(x, x.t().contiguous().t(), "float") == "strides (1, 2), not (2, 1)"
    assert difference(x, x.double(), "float") is not None
    assert difference(x, x[:1], "float") is not None
    assert difference(x.long(), x.long() + 1, "integer") is not None
    assert difference(x, x * math.nan, "special") is not None
    assert difference(x, "raises RuntimeError: no", "float") is not None
