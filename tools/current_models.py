"""`make current-models`: models that the Inf1 container's libraries lack, built for it and replayed in torch 1.13.1.

The list is current_models.yaml. A model is made with its library's default configuration and redrawn weights, checked,
lowered, split, captured and compared item by item as `inferentia build` does it, and written to a graph file; another
Python with another torch replays that file, traces it and counts its operators. A row is kept in
docs/current-models.json until its entry of the list changes or --again names it: a run that was stopped continues
where it was. docs/current-models.md is written from it after every row.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))
from compile.files import write_text  # noqa: E402  (found by the line above)
from tools import graph_files  # noqa: E402

LIST = Path(__file__).with_suffix(".yaml")
DOCUMENT = ROOT / "docs" / "current-models.json"
PAGE = ROOT / "docs" / "current-models.md"
TORCHVISION = ROOT / "tests" / "tools" / "stand_in"  # stands in for what timm imports of it
REFERENCES = 5
FAINT = 1e-3  # of the maximum: a wider bound, and a smaller change from input to input, prove nothing


@dataclass(frozen=True)
class Model:
    """An entry of the list.

    library, since: a distribution, and the version of it that had this architecture first. model: timm's name, or a
    class of transformers. config: what differs from the class's default configuration. inputs: by name, what one item
    is: a shape of normal numbers, or {ids: below, shape}, {mask: shape}, {pixels: shape} (0 to 1). fixed: arguments of
    every call; lists are tensors. part: the submodule that is taken. method: that is called instead of forward.
    outputs: the attributes of the result that are taken; without them all. accept: findings that are allowed. cut: what
    is smaller than by default, and why.
    """

    key: str
    title: str
    library: str
    since: str
    model: str
    inputs: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    method: str = "forward"
    outputs: Sequence[str] = ()
    accept: Sequence[str] = ()
    cut: str = ""


def models(path: Path = LIST) -> list[Model]:
    """The list. Raises TypeError for an entry with fields that are none."""
    import yaml  # noqa: PLC0415  (the process that replays has none of this)

    return [Model(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


# --- one model, captured with this Python's torch -------------------------------------------------------------------


def made(model: Model) -> Any:
    """The module in evaluation mode, its weights redrawn."""
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    if model.library == "timm":
        import timm  # noqa: PLC0415

        inner = timm.create_model(model.model, pretrained=False, **model.config)
    else:
        import transformers  # noqa: PLC0415

        kind = getattr(transformers, model.model)
        inner = kind(kind.config_class(**model.config)).get_submodule(model.part)
    redraw(inner)
    found = called(inner, model).eval()
    items = [drawn_inputs(model, number) for number in range(8)]
    measure_statistics(found, {name: torch.cat([item[name] for item in items]) for name in model.inputs})
    return found


def redraw(module: Any) -> None:
    """Weights of two and more dimensions are normal with standard deviation 1 / sqrt(entries of one output); to all
    others normal numbers of 0.1 are added. Buffers of zeros with two and more dimensions are normal (codebooks). The
    seed is 0.

    Libraries draw heads of zeros and scales of 1e-5, whose outputs prove nothing.
    """
    import torch  # noqa: PLC0415

    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            normal = torch.randn(parameter.shape, generator=drawn)
            if parameter.dim() > 1:
                parameter.copy_(normal * max(parameter[0].numel(), 1) ** -0.5)
            else:
                parameter.add_(0.1 * normal)
        for buffer in module.buffers():
            if buffer.dim() > 1 and buffer.is_floating_point() and not buffer.any():
                buffer.copy_(torch.randn(buffer.shape, generator=drawn))


def measure_statistics(module: Any, batch: Mapping[str, Any]) -> None:
    """Sets the running statistics of batch normalisation to those of a batch, as training would have left them.

    With the library's zeros and ones, activations of a deep network grow or vanish. Variances are at least a tenth of
    their mean, so that no channel is rounding alone.
    """
    import torch  # noqa: PLC0415

    def measure(part: Any, given: Sequence[torch.Tensor]) -> None:
        axes = [axis for axis in range(given[0].dim()) if axis != 1]
        part.running_mean.copy_(given[0].mean(axes))
        variance = given[0].var(axes)
        part.running_var.copy_(variance.clamp(min=float(variance.mean()) / 10))

    parts = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    hooks = [part.register_forward_pre_hook(measure) for part in parts if part.running_mean is not None]
    if hooks:
        with torch.no_grad():
            module(**batch)
    for hook in hooks:
        hook.remove()


def called(inner: Any, model: Model) -> Any:
    """A module whose forward calls the inner one as the entry says."""
    import torch  # noqa: PLC0415

    fixed = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in model.fixed.items()}

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, **given: torch.Tensor) -> Any:
            found = getattr(self.model, model.method)(**given, **fixed)
            return {name: getattr(found, name) for name in model.outputs} if model.outputs else found

    return Called()


def drawn_inputs(model: Model, number: int) -> dict[str, Any]:
    """Inputs of one item, by number; a mask hides a number of places at the end that grows with it."""
    import torch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(number)
    return {name: _drawn(given, number, generator) for name, given in model.inputs.items()}


def _drawn(given: Any, number: int, generator: Any) -> Any:
    import torch  # noqa: PLC0415

    if isinstance(given, list):
        return torch.randn(1, *given, generator=generator)
    if "pixels" in given:
        return torch.rand(1, *given["pixels"], generator=generator)
    if "ids" in given:
        return torch.randint(3, given["ids"], (1, *given["shape"]), generator=generator)
    shape = given["mask"]
    mask = torch.ones(1, *shape, dtype=torch.int64)
    mask[..., shape[-1] - number * shape[-1] // 8 :] = 0
    return mask


def build(options: Mapping[str, Any]) -> Any:
    """The entry of a spec: the ModelDefinition of an entry of the list, given by its fields."""
    from compile.definition import GraphDefinition, ModelDefinition  # noqa: PLC0415

    model = Model(**options)
    graph = GraphDefinition(
        module=made(model),
        example_inputs=lambda *_: drawn_inputs(model, 0),
        reference_inputs=lambda *_: [drawn_inputs(model, number) for number in range(REFERENCES)],
    )
    bucket = {name: list(tensor.shape[1:]) or 1 for name, tensor in drawn_inputs(model, 0).items()}
    return ModelDefinition(graphs={"main": graph}, buckets=[bucket], task="tensor")


def captured(model: Model, path: Path) -> dict[str, Any]:
    """What a build does with the model, up to its graph file at `path`. Raises CompileError where a build would, and
    for outputs that prove nothing."""
    import torch  # noqa: PLC0415

    from compile.errors import CompileError  # noqa: PLC0415

    spec = {
        "name": "model",
        "model": {"entry": "models/model.py:build", "options": asdict(model), "weights": "random:0"},
        "compile": {"pipeline_cores": 4, "accept": {"findings": list(model.accept)}},  # one copy: large ones fit
        "serve": {"instance_type": "ml.inf1.2xlarge"},
    }
    with tempfile.TemporaryDirectory(prefix="current-models-") as folder:
        entry = Path(folder, "models", "model.py")
        entry.parent.mkdir()
        entry.write_text("from tools.current_models import build\n", encoding="utf-8")
        resolved, (found,) = graph_files.captured(Path(folder), json.dumps(spec), path)
    for output in found.parity.outputs:
        if output.bound > FAINT * output.maximum:
            raise CompileError(
                f"Output {output.name}: bound {output.bound:.3e}, maximum {output.maximum:.3e}: the bound exceeds a "
                "thousandth of the maximum."
            )
        if output.variation <= FAINT * output.maximum:
            raise CompileError(f"Output {output.name} is nearly the same for every input: its parity proves nothing.")
    module = resolved.plan.definition.graphs["main"].module
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "inputs": {entry.name: f"{entry.dtype}{list(entry.shape)}" for entry in found.signature.inputs},
        "outputs": [asdict(output) | {"bound": output.bound} for output in found.parity.outputs],
        "notes": [*found.parity.notes, *map(str, found.findings)],
        "host": dict(found.host["operators"]) if found.host else {},
        "compared": found.parity.inputs,
        "torch": str(torch.__version__),
    }


# --- all models -----------------------------------------------------------------------------------------------------


def row(model: Model, python: str) -> dict[str, Any]:
    """A model's row: captured in a fork, replayed by another Python. failed: where and why it did not come through."""
    found: dict[str, Any] = {"entry": asdict(model)}
    with tempfile.TemporaryDirectory(prefix="current-models-") as folder:
        graph, out = Path(folder, "model.graph"), Path(folder, "out.json")
        steps: dict[str, Callable[[], str | None]] = {
            "captured": lambda: _run_capture(model, graph, out),
            "replayed": lambda: graph_files.run_replay(python, graph, out),
        }
        for step, run in steps.items():
            started = time.monotonic()
            failed = run()
            found[f"{step}_seconds"] = round(time.monotonic() - started)
            if failed is None:
                (found[step],) = json.loads(out.read_text(encoding="utf-8"))
                failed = found[step].get("failed")
            if failed is not None:
                found.pop(step, None)
                return found | {"failed": f"not {step}: {failed}"}
    beyond = graph_files.beyond_bounds(found["captured"]["outputs"], found["replayed"]["errors"])
    return found | ({"failed": beyond} if beyond else {})


def _run_capture(model: Model, graph: Path, out: Path) -> str | None:
    """Why the fork failed, or None. A fork has the libraries loaded, and gives its memory back."""
    fork = multiprocessing.get_context("fork").Process(target=_write, args=(out, captured, model, graph))
    fork.start()
    fork.join(graph_files.TIMEOUT)
    if fork.exitcode is None:
        fork.kill()
        return f"stopped after {graph_files.TIMEOUT} s"
    return f"the process ended with {fork.exitcode}" if fork.exitcode else None


def _write(out: Path, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    """Writes what the function finds, or {"failed": why}."""
    import torch  # noqa: PLC0415

    from compile.errors import CompileError, described  # noqa: PLC0415

    torch.set_num_threads(1)
    try:
        found = function(*arguments)
    except CompileError as error:
        found = {"failed": error.problem}
    except Exception as error:  # whatever a library raises
        found = {"failed": described(error)}
    out.write_text(json.dumps([found]), encoding="utf-8")


# --- what is written ------------------------------------------------------------------------------------------------

_HEAD = """# Models of today

What becomes of models that transformers 4.44, timm 0.9 and torch 1.13 do not have: made with the library's default
configuration (sizes and layers uncut unless the remarks say so), batch 1, random weights, and taken through the steps
of a build for inf1: preflight, lowering, host split, capture, item by item proof. The graph file is then replayed and
traced in another Python with torch 1.13.1. Written by `make current-models` from tools/current_models.yaml, which has
class, configuration and inputs of each.

Weights of two and more dimensions are drawn anew, normal with standard deviation 1 / sqrt(entries of one output); to
biases and scales normal numbers of 0.1 are added: libraries draw zeros and scales of 1e-5, whose outputs prove nothing.
Buffers of zeros with two and more dimensions (codebooks) are normal.
Statistics of batch normalisation are measured on 8 inputs. Error: the largest distance of the replay's outputs from
the original's, as a share of that output's maximum, on as many inputs as its column says; a row that came through is
within twice the bound of `build`, since two torches round, each within it, and that bound is at most a thousandth of
the maximum. Operators, support and subgraphs are those of the compiled part, traced by the torch of the replay;
subgraphs are **predictions** of the [safe partition](analyzing.md), nothing was measured on a chip.
"""
_COLUMNS = (
    "| model | first in | parameters | inputs | operators | supported % | subgraphs | error (inputs) "
    "| captured, replayed with |"
)


def page(rows: Sequence[Mapping[str, Any]], missing: Sequence[str] = ()) -> str:
    """The Markdown of the rows. missing: titles of those that were not tried yet."""
    good, bad = [one for one in rows if "failed" not in one], [one for one in rows if "failed" in one]
    lines = [_HEAD, f"{len(good)} of {len(rows)} came through.", ""]
    if missing:
        lines += [f"Of the list, these {len(missing)} were **not tried yet**: {', '.join(missing)}.", ""]
    lines.append(_COLUMNS)
    lines += ["|---|---|---:|---|---:|---:|---:|---:|---|", *map(_line, good)]
    if bad:
        lines += ["", f"## Not through: {len(bad)}", "", "| model | first in | why |", "|---|---|---|"]
        lines += [f"| {one['entry']['title']} | {_since(one)} | {_cell(one['failed'])} |" for one in bad]
    remarks = [f"- {one['entry']['title']}: {text}" for one in rows for text in _remarks(one)]
    return "\n".join(lines + (["", "## Remarks", "", *remarks] if remarks else [])) + "\n"


def _line(one: Mapping[str, Any]) -> str:
    captured_, replayed_ = one["captured"], one["replayed"]
    cells = [
        one["entry"]["title"],
        _since(one),
        f"{captured_['parameters'] / 1e6:.1f} M",
        ", ".join(f"{name} {kind}" for name, kind in captured_["inputs"].items()),
        str(replayed_["operators"]),
        f"{100 * replayed_['supported'] / replayed_['operators']:.2f}",
        str(replayed_["subgraphs"]),
        f"{relative_error(one):.1e} ({captured_['compared']})",
        f"{captured_['torch'].partition('+')[0]}, {replayed_['torch'].partition('+')[0]}",
    ]
    return f"| {' | '.join(cells)} |"


def relative_error(one: Mapping[str, Any]) -> float:
    """The largest of the replay's errors, as a share of its output's maximum."""
    return graph_files.relative_error(one["captured"]["outputs"], one["replayed"]["errors"])


def _since(one: Mapping[str, Any]) -> str:
    return f"{one['entry']['library']} {one['entry']['since']}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _remarks(one: Mapping[str, Any]) -> list[str]:
    found = [one["entry"]["cut"]] if one["entry"]["cut"] else []
    if "failed" in one:
        return found
    if one["entry"]["outputs"]:
        found.append(f"outputs {', '.join(one['entry']['outputs'])} of all")
    if one["entry"]["accept"]:
        found.append(f"compile.accept.findings: {', '.join(one['entry']['accept'])}")
    left = one["replayed"]["unsupported"]
    if left:
        found.append("not supported: " + ", ".join(f"{kind} ({count})" for kind, count in left.items()))
    differing = one["replayed"]["differing"]
    if differing:
        pairs = ", ".join(f"{kind} {ours} in the file, {theirs} traced" for kind, (ours, theirs) in differing.items())
        found.append(pairs)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 every model came through, 1 one did not, 2 wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="KEY", help="only these models")
    parser.add_argument("--again", nargs="*", metavar="KEY", help="these anew, without a key those that failed")
    parser.add_argument("--python", default=sys.executable, help="the Python whose torch replays")
    parser.add_argument("--libraries", nargs="*", type=Path, default=[], help="folders that have timm and scipy")
    given = parser.parse_args(arguments)
    sys.path[:0] = [str(TORCHVISION), *map(str, given.libraries)]
    return _all(given)


def _all(given: argparse.Namespace) -> int:
    wanted = models()
    rows = {one["entry"]["key"]: one for one in _committed()}
    rows = {model.key: rows[model.key] for model in wanted if _kept(model, rows.get(model.key), given.again)}
    missing = [model for model in wanted if model.key not in rows and (not given.only or model.key in given.only)]
    for library in {model.library for model in missing}:
        importlib.import_module(library)  # the forks have it then
    for number, model in enumerate(missing, 1):
        _say(f"[{number}/{len(missing)}] {model.title} ...")
        rows[model.key] = found = row(model, given.python)
        seconds = f"{found['captured_seconds']} s and {found.get('replayed_seconds', 0)} s"
        _say(f"    {found.get('failed') or f'as the original, error {relative_error(found):.1e}'} ({seconds})")
        publish([rows[model.key] for model in wanted if model.key in rows])
    through = sum("failed" not in one for one in rows.values())
    _say(f"{through} of {len(wanted)} models came through: {PAGE.relative_to(ROOT)}")
    return 0 if through == len(wanted) else 1


def _kept(model: Model, known: Mapping[str, Any] | None, again: Sequence[str] | None) -> bool:
    if known is None or known["entry"] != json.loads(json.dumps(asdict(model))):
        return False
    return again is None or (model.key not in again if again else "failed" not in known)


def _committed() -> list[dict[str, Any]]:
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))["rows"] if DOCUMENT.is_file() else []


def publish(rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes both files; what of the list is in no row, the page says."""
    known = {one["entry"]["key"] for one in rows}
    missing = [model.title for model in models() if model.key not in known]
    text = ",\n".join(json.dumps(one) for one in rows)
    write_text(DOCUMENT, f'{{"rows": [\n{text}\n]}}\n')
    write_text(PAGE, page(rows, missing))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
