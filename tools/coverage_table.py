"""`make coverage-table`: every model at its real size, captured and replayed, as docs/coverage.md and .json.

A model is made into a graph file as `inferentia submit` does it; another Python, with the Inf1 container's torch where
there is one, replays the file and traces it. One process a model, so that its memory is free before the next. A row is
kept in build/coverage-table/ (and in the committed JSON) with a digest of what the code makes of its family at a tiny
size, and made again only when that changed; so a run that was stopped continues where it was. Both files are written
after every row, and say which rows are missing.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))
from compile.files import write_text  # noqa: E402  (found by the line above)
from tests.compile.models.tiny import TINY  # noqa: E402
from tools import graph_files  # noqa: E402

SIZES = {
    **TINY,
    ("depth_anything_v2", "vits"): (
        {"hidden_size": 24, "heads": 2, "layers": 4, "layers_out": [1, 2, 3, 4], "neck": [8, 8, 16, 16], "fusion": 8}
        | {"image_size": 56},
        {"image": (56, 56)},
    ),
}
DOCUMENT = ROOT / "docs" / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
CACHE = ROOT / "build" / "coverage-table"
FORMAT = 3


@dataclass(frozen=True)
class Model:
    """One row, or as many as the model has graphs. `remark` is printed below the table."""

    title: str
    family: str
    variant: str
    remark: str = ""

    @property
    def key(self) -> str:
        return f"{self.family}-{self.variant}"


# Small ones first: a run that is stopped has most rows.
MODELS = (
    Model(
        "DLRM (Criteo Kaggle)",
        "dlrm",
        "kaggle_10k",
        "tables cut to 10,000 rows; an embedding's work does not depend on its rows",
    ),
    Model("DistilBERT base", "distilbert", "base-uncased"),
    Model("ResNet-50", "resnet", "resnet50"),
    Model("ResNeXt-50 32x4d", "resnet", "resnext50_32x4d"),
    Model("PARSeq tiny", "parseq", "tiny"),
    Model("PARSeq base", "parseq", "base"),
    Model("MarianMT en-de", "marian", "opus-mt-en-de"),
    Model("BERT base", "bert", "base-uncased"),
    Model("RoBERTa base", "roberta", "base"),
    Model("BART base", "bart", "base"),
    Model("XLM-RoBERTa base", "xlm_roberta", "base"),
    Model("DINOv2 small", "dinov2", "small"),
    Model("YOLOv5s", "yolov5", "yolov5s"),
    Model("VGG-16", "vgg", "vgg16"),
    Model("Pegasus XSum", "pegasus", "xsum"),
    Model("XLM MLM en-de 1024", "xlm", "mlm-ende-1024"),
    Model("SSD300 VGG-16", "ssd300", "vgg16"),
    Model("YOLOv3", "yolov3", "yolov3"),
    Model("YOLOv4", "yolov4", "yolov4"),
    Model("CRAFT", "craft", "vgg16_bn"),
    Model("Depth Anything V2 ViT-S", "depth_anything_v2", "vits"),
    Model("VitMatte small", "vitmatte", "small"),
    Model("Depth Anything V2 ViT-B", "depth_anything_v2", "vitb"),
    Model("Depth Anything V2 ViT-L", "depth_anything_v2", "vitl"),
)


class TableError(Exception):
    """A row that could not be made; the text says which and why."""


# --- which code a row belongs to ------------------------------------------------------------------------------------


@functools.cache
def digest(family: str) -> str:
    """sha256 of what the code makes of a family at its tiny sizes, with this Python's torch.

    The lowered graph with its constants, and the figures before and after. So a row is made again when lowering or
    analysis come to something else, and not when code moves or gets other names. What only shows at the real size is
    not seen: after such a change remove the row from build/coverage-table/ and from the JSON.
    """
    made = [
        _made_of(name, variant, options, bucket)
        for (name, variant), (options, bucket) in SIZES.items()
        if name == family
    ]
    if not made:
        raise TableError(f"{family} has no tiny size in tests/compile/models/tiny.py")
    return _sha(json.dumps(made, sort_keys=True))


def _made_of(family: str, variant: str, options: Mapping[str, Any], bucket: Any) -> list[Any]:
    """Per graph: its figures, the text of the lowered graph without class names, its constants' sha256."""
    from compile.targets import trace_for_cpu  # noqa: PLC0415

    definition = _definition(family, variant, options)
    found = []
    for role, graph in definition.graphs.items():
        example, flat, parts = _lowered(role, graph, bucket)
        tensors = tuple(example.values())
        traced, _ = trace_for_cpu(parts.whole, tensors, list(example))
        text = re.sub(r"__torch__\.[\w.]+| # .*", "", str(traced.inlined_graph))
        constants = sorted(_sha(str((t.dtype, t.shape, t.flatten().tolist()))) for t in traced.state_dict().values())
        found.append([role, *_figures(flat, tensors, parts), parts.report.to_json(), _sha(text), constants])
    return found


def _lowered(role: str, graph: Any, bucket: Any) -> tuple[Any, Any, Any]:
    """A graph's example inputs, its module, and that module lowered, in parts on host and device."""
    from compile.definition import checked_inputs  # noqa: PLC0415
    from compile.ir.flat_module import flat_module  # noqa: PLC0415
    from compile.lowering import lower, split  # noqa: PLC0415

    example, _ = checked_inputs(graph, role, bucket, 1)
    flat, tensors = flat_module(graph.module, example), tuple(example.values())
    return example, flat, split(lower(flat, tensors).module, tensors)


def _figures(flat: Any, tensors: Any, parts: Any) -> list[dict[str, Any]]:
    """Of the original and of what is compiled of it."""
    from compile.analysis import analyze  # noqa: PLC0415

    graphs = (flat, tensors), (parts.device, parts.device_inputs)
    return [graph_files.account(analyze(*one)) for one in graphs]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _definition(family: str, variant: str, options: Mapping[str, Any]) -> Any:
    """A family with random weights of seed 0."""
    import torch  # noqa: PLC0415

    from compile.models import find  # noqa: PLC0415

    found, chosen = find(family, variant)
    torch.manual_seed(0)
    definition = found.build(chosen, dict(options))
    if definition.initialise is not None:
        definition.initialise(definition.weights, torch.Generator().manual_seed(0))
    return definition


# --- one model, in a process of its own -----------------------------------------------------------------------------


def measure(model: Model, python: str, options: Mapping[str, Any] | None = None, bucket: Any = None) -> dict[str, Any]:
    """The model's graphs as they are, as they are replayed and traced by `python`, and how far apart their outputs are.

    Random weights, seed 0, batch 1. Raises CompileError where a build does, TableError where the replay fails.
    """
    import torch  # noqa: PLC0415  (the parent process needs none of it)
    import transformers  # noqa: PLC0415

    from compile.models import find  # noqa: PLC0415

    started = time.monotonic()
    bucket = bucket or find(model.family, model.variant)[0].build(model.variant, dict(options or {})).buckets[0]
    spec = {
        "name": "model",
        "model": {"family": model.family, "variant": model.variant, "weights": "random:0", "options": options or {}},
        "compile": {"batch_sizes": [1], "buckets": [bucket], "pipeline_cores": 4},  # one copy: the largest ones fit
        "serve": {"instance_type": "ml.inf1.2xlarge"},
    }
    with tempfile.TemporaryDirectory(prefix="coverage-table-") as folder:
        file, out = Path(folder, "model.graph"), Path(folder, "replayed.json")
        resolved, captured = graph_files.captured(Path(folder), json.dumps(spec), file)
        failed = graph_files.run_replay(python, file, out)
        if failed is not None:
            raise TableError(f"not replayed: {failed}")
        replayed = json.loads(out.read_text(encoding="utf-8"))
    definition, pairs = resolved.plan.definition, zip(captured, replayed, strict=True)
    graphs = [_graph(definition, one, found) for one, found in pairs]
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        "torch of the replay": replayed[0]["torch"],
    }
    return {
        "title": model.title,
        "family": model.family,
        "variant": model.variant,
        "remark": model.remark,
        "bucket": {axis: size if isinstance(size, int) else list(size) for axis, size in bucket.items()},
        "graphs": graphs,
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": versions,
    }


def _graph(definition: Any, one: Any, replayed: dict[str, Any]) -> dict[str, Any]:
    from compile.analysis import analyze  # noqa: PLC0415
    from compile.definition import checked_inputs  # noqa: PLC0415
    from compile.ir.flat_module import flat_module  # noqa: PLC0415

    graph, variant = definition.graphs[one.variant.role], one.variant
    example, _ = checked_inputs(graph, variant.role, variant.bucket, variant.batch)
    before = graph_files.account(analyze(flat_module(graph.module, example), tuple(example.values())))
    outputs = [asdict(output) | {"bound": output.bound} for output in one.parity.outputs]
    errors, differing = replayed.pop("errors"), replayed.pop("differing")
    return {
        "role": variant.role,
        "inputs": [f"{entry.dtype}{list(entry.shape)}" for entry in one.signature.inputs],
        "before": before,
        "after": replayed,
        "differing": differing,
        "prologue": _prologue(one.host),
        "error": {
            "compared_inputs": one.parity.inputs,
            "outputs": outputs,
            "of_the_replay": errors,
            "relative": graph_files.relative_error(outputs, errors),
            "beyond": graph_files.beyond_bounds(outputs, errors),
        },
    }


def _prologue(host: Mapping[str, Any] | None) -> dict[str, Any]:
    """What runs on the host in front of the compiled graph, and the choice for each table with both costs."""
    if host is None:
        return {"operators": {}, "flops": 0, "crossing_bytes": 0, "tables": [], "notes": []}
    keys = ("name", "rows", "width", "choice", "reason", "product_flops", "product_bytes", "host_bytes")
    return {
        "operators": host["operators"],
        "flops": host["host_flops"],
        "crossing_bytes": host["crossing_bytes"],
        "tables": [{key: table[key] for key in keys} for table in host["tables"]],
        "notes": host["notes"],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# --- all models -----------------------------------------------------------------------------------------------------


def rows(models: Sequence[Model], python: str) -> Iterable[tuple[Model, dict[str, Any] | None]]:
    """Each model with its row: one that still belongs to the code, or a new one; None when it could not be made."""
    torch = _torch_of(python)
    for number, model in enumerate(models):
        known = kept(model)
        if known is not None and known["versions"]["torch of the replay"] == torch:
            _say(f"[{number + 1}/{len(models)}] {model.title}: as before")
            yield model, known
            continue
        _say(f"[{number + 1}/{len(models)}] {model.title} ...")
        started = time.monotonic()
        try:
            row = _in_process(model, python)
            _say(f"    done in {time.monotonic() - started:.0f} s")
            yield model, row
        except TableError as error:
            _say(f"    failed: {error}")
            yield model, None


def kept(model: Model, folder: Path | None = None) -> dict[str, Any] | None:
    """A row of an earlier run, or of the committed table, that was made by this very code."""
    wanted = digest(model.family)
    for candidate in (_read((folder or CACHE) / f"{model.key}.json"), _committed().get(model.key)):
        if candidate is not None and candidate.get("digest") == wanted:
            return candidate
    return None


def _in_process(model: Model, python: str) -> dict[str, Any]:
    wanted = digest(model.family)
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{model.key}.json"
    part = path.with_suffix(".part")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--row", model.key, "--out", str(part), "--python", python],
        cwd=ROOT,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        raise TableError(f"{model.key}: {last}")
    row = {**json.loads(part.read_text(encoding="utf-8")), "digest": wanted}
    if digest(model.family) != wanted:
        raise TableError(f"{model.key}: the code changed while the row was made; run it again")
    write_text(path, json.dumps(row, indent=1) + "\n")
    part.unlink()
    return row


def _torch_of(python: str) -> str:
    code = "import torch; print(torch.__version__)"
    done = subprocess.run([python, "-W", "ignore", "-c", code], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise TableError(f"{python} has no torch: {(done.stderr.strip().splitlines() or ['it does not start'])[-1]}")
    return done.stdout.strip()


def document(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON: the rows that there are in the order of MODELS, and the keys of those that are missing."""
    ordered = {model.key: found[model.key] for model in MODELS if model.key in found}
    return {
        "format": FORMAT,
        "partition": "predicted",
        "rows": ordered,
        "missing": [model.key for model in MODELS if model.key not in ordered],
    }


def page(table: Mapping[str, Any]) -> str:
    """The Markdown of a document."""
    rows = list(table["rows"].values())
    lines = [_HEAD, _made(rows), ""]
    missing = [model.title for model in MODELS if model.key in table["missing"]]
    if missing:
        lines += [f"**Not in this table yet** ({len(missing)} of {len(MODELS)}): {', '.join(missing)}.", ""]
    lines += [_COLUMNS, "|---|---|---|---:|---:|---:|---|---:|---:|---:|---|"]
    lines += [_line(row, graph) for row in rows for graph in row["graphs"]]
    exceptions = [(row, graph) for row in rows for graph in row["graphs"] if is_exception(graph)]
    lines += ["", f"## Exceptions: {len(exceptions)}", "", _EXCEPTIONS]
    if exceptions:
        lines += ["", "| model | graph | what is on the host | GFLOP on the host |", "|---|---|---|---:|"]
    lines += [
        f"| {row['title']} | {graph['role']} | {reason(graph) or 'nothing'} | {_giga(host_flops(graph))} |"
        for row, graph in exceptions
    ]
    remarks = [f"- {row['title']}: {text}." for row in rows for text in _remarks(row)]
    if remarks:
        lines += ["", "## Remarks", "", *remarks]
    return "\n".join(lines) + "\n"


_HEAD = """# Coverage of the built-in models

Each built-in model at its real size, batch 1, random weights: lowered and captured with the project's torch as a
[graph file](portable-graph.md), as `inferentia submit` does it, which another Python with the container's torch replays
and traces. Written by `make coverage-table`; [how operators are counted and the partition is
predicted](analyzing.md). Operators are those of torch-neuron's table; subgraphs and the work on the host are
**predictions** of the safe partition, not measurements on a chip. The error is measured: the largest distance of the
replay's outputs from the original's as a share of that output's maximum, on as many inputs as its column says; every
one is within twice the bound of `build`, since two torches round, each within it, unless it is marked.

After lowering, operators, supported and subgraphs are those of the compiled graph. Embedding look-ups and the integer
arithmetic of their indices run in front of it on the host; that is the *host prologue*, counted in operators.
The JSON has the choice for each table (look-up or product) with both costs.
"""
_COLUMNS = (
    "| model | graph | input | operators | supported % | subgraphs | host prologue | GFLOP on the host "
    "| GFLOP of the compiled graph | error (inputs) | captured, replayed and traced with torch |"
)
_EXCEPTIONS = "Compiled graphs that are not wholly supported in one subgraph, or beyond the bound."


def _made(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where, when and with what the rows were made."""
    groups: dict[str, None] = {}
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        groups[f"Made on {row['date']} on {row['machine']}, with {versions}."] = None
    return "\n".join(groups)


def is_exception(graph: Mapping[str, Any]) -> bool:
    """Not 100 % supported, more than one subgraph, or outputs beyond the bound."""
    after = graph["after"]
    whole = after["supported"] == after["operators"] and after["subgraphs"] == 1
    return not whole or bool(graph["error"]["beyond"])


def reason(graph: Mapping[str, Any]) -> str:
    """What of the compiled graph is on the host, and why; which outputs are beyond their bound."""
    return "; ".join(filter(None, [graph["after"]["reason"], *graph["prologue"]["notes"], graph["error"]["beyond"]]))


def _line(row: Mapping[str, Any], graph: Mapping[str, Any]) -> str:
    before, after, error = graph["before"], graph["after"], graph["error"]
    mark = " **beyond the bound**" if error["beyond"] else ""
    shares = [f"{100 * one['supported'] / one['operators']:.2f}" for one in (before, after)]
    cells = [
        row["title"],
        graph["role"],
        ", ".join(f"{axis} {size}" for axis, size in row["bucket"].items()),
        f"{before['operators']} → {after['operators']}",
        " → ".join(shares),
        f"{before['subgraphs']} → {after['subgraphs']}",
        _host_part(graph["prologue"]),
        f"{_giga(before['flops_host'])} → {_giga(host_flops(graph))}",
        _giga(after["flops"]),
        f"{error['relative']:.1e} ({error['compared_inputs']}){mark}",
        ", ".join(row["versions"][name].partition("+")[0] for name in ("torch", "torch of the replay")),
    ]
    return f"| {' | '.join(cells)} |"


def host_flops(graph: Mapping[str, Any]) -> int:
    """On the host after lowering: the prologue, and what the compiled graph leaves there."""
    return int(graph["after"]["flops_host"]) + int(graph["prologue"]["flops"])


def _host_part(prologue: Mapping[str, Any]) -> str:
    """`3 embedding, 5 others`, with the tables that became products."""
    operators = prologue["operators"]
    looks = sum(count for kind, count in operators.items() if kind.startswith("aten::embedding"))
    others = sum(operators.values()) - looks
    products = sum(table["choice"] == "product" for table in prologue["tables"])
    words = [f"{count} {name}" for count, name in ((looks, "embedding"), (others, "others")) if count]
    words += [f"{products} of {len(prologue['tables'])} tables as products"] if products else []
    return ", ".join(words) or "none"


def _remarks(row: Mapping[str, Any]) -> list[str]:
    found = [row["remark"]] if row["remark"] else []
    for graph in row["graphs"]:
        pairs = [f"{kind} {ours} in the file, {theirs} traced" for kind, (ours, theirs) in graph["differing"].items()]
        found += [f"graph {graph['role']}: {', '.join(pairs)}"] if pairs else []
    return found


def _giga(flops: int) -> str:
    return f"{flops / 1e9:.2g}" if flops < 1e8 else f"{flops / 1e9:.1f}"


def _committed() -> dict[str, Any]:
    found = _read(DOCUMENT)
    return dict(found["rows"]) if found and found["format"] == FORMAT else {}


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def publish(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write both files."""
    table = document(found)
    write_text(DOCUMENT, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    write_text(PAGE, page(table))


def stale() -> list[str]:
    """Titles of committed rows that another code made."""
    rows = _committed()
    return [model.title for model in MODELS if model.key in rows and rows[model.key]["digest"] != digest(model.family)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 the table is whole, 1 a row is missing, failed or stale, 2 wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="KEY", choices=[m.key for m in MODELS], help="only these models")
    parser.add_argument("--python", default=sys.executable, help="the Python whose torch replays")
    parser.add_argument("--check", action="store_true", help="make nothing; say what is stale or missing")
    parser.add_argument("--prune", action="store_true", help="make nothing; leave out rows that other code made")
    parser.add_argument("--row", choices=[m.key for m in MODELS], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.row:
        model = next(model for model in MODELS if model.key == given.row)
        write_text(given.out, json.dumps(measure(model, given.python)))
        return 0
    if given.check:
        old, missing = stale(), [model.title for model in MODELS if model.key not in _committed()]
        for name, titles in (("Made by other code", old), ("Missing", missing)):
            if titles:
                _say(f"{name}: {', '.join(titles)}. Run: make coverage-table")
        return 1 if old or missing else 0
    found = {model.key: row for model in MODELS if (row := kept(model)) is not None}
    if given.prune:
        publish(found)
        return 0 if len(found) == len(MODELS) else 1
    try:
        for model, row in rows([m for m in MODELS if not given.only or m.key in given.only], given.python):
            if row is not None:
                found[model.key] = row
                publish(found)
    except TableError as error:
        _say(f"error: {error}")
        return 1
    _say(f"wrote {PAGE.relative_to(ROOT)} and {DOCUMENT.relative_to(ROOT)}: {len(found)} of {len(MODELS)} models")
    return 0 if len(found) == len(MODELS) else 1


if __name__ == "__main__":
    sys.exit(main())
