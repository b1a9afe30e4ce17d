"""A graph file of somebody else's as a model: built, proven against what it has recorded, served, or refused."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import endpoint_spec as specs
from compile.errors import CompileError
from compile.packaging import archive, golden_sample, graph_file
from compile.packaging.local_server import running
from compile.pipeline import plan as plans
from compile.pipeline import verify
from compile.pipeline.build import Result, build
from compile.pipeline.plan import plan
from compile.portable import differences, file
from compile.portable.file import GraphFile, PortableVariant
from compile.progress import Silent
from compile.remote import bundle
from compile.targets import process_runner
from endpoint_spec import lock as locks
from endpoint_spec.errors import SpecErrors
from tests.compile.models.tiny import TINY
from tests.compile.portable.graph_files import stored
from tests.compile.projects import ENTRY, HANDLER, rehearse, write_entry
from tests.compile.targets.conftest import stand_in  # noqa: F401  (a fixture)
from tests.compile.targets.helpers import in_this_process

NOTE = "proven against recorded outputs, not against an original"
ACCEPT = {"min_supported": "100%", "max_subgraphs": 1}


def taken(root: Path, graph: Path, more: str = "", model: str = "") -> Path:
    """A spec of another project whose model is a copy of a graph file."""
    (root / "endpoints").mkdir(parents=True, exist_ok=True)
    shutil.copy(graph, root / "theirs.graph")
    path = root / "endpoints" / "taken.yaml"
    path.write_text(f"name: taken\nmodel: {{graph: theirs.graph{model}}}\n{more}")
    return path


def graph_of(result: Result) -> Path:
    return result.artifact.with_name(graph_file.NAME)


def changed(graph: Path, to: Path, change: Callable[[PortableVariant, GraphFile], PortableVariant]) -> Path:
    """A graph file with its first variant changed; what `change` adds to the tensors is in it."""
    found = graph_file.read(graph)
    tensors = dict(found.tensors)
    held = GraphFile(found.header, found.variants, tensors)
    first = change(found.variants[0], held)
    file.write(to, found.header, [first, *found.variants[1:]], stored(tensors))
    return to


def refused(path: Path) -> str:
    with pytest.raises(CompileError) as error:
        rehearse(path)
    return str(error.value)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return rehearse(write_entry(tmp_path_factory.mktemp("own"), more="compile: {batch_sizes: [1, 3]}\n"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two buckets, each with a host part that looks up the words."""
    root = tmp_path_factory.mktemp("bert")
    options, _ = TINY["bert", "base-uncased"]
    model = {"family": "bert", "variant": "base-uncased", "weights": "random:0", "options": options}
    section = {"buckets": [{"tokens": 6}, {"tokens": 12}], "batch_sizes": [1, 2], "accept": ACCEPT}
    path = root / "endpoints" / "bert.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"name": "bert", "model": model, "compile": section}))
    return rehearse(path)


def answered(result: Result, folder: Path, request: dict[str, Any]) -> Any:
    """What the artifact's own code answers to JSON."""
    archive.extract(result.artifact, folder)
    with running(folder, golden_sample.environment(result.spec, result.lock), folder / "log") as worker:
        answer = worker.invoke(json.dumps(request).encode(), "application/json", "application/json")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_everything_comes_from_the_file(own: Result, tmp_path: Path) -> None:
    result = rehearse(taken(tmp_path, graph_of(own)))
    lock = result.lock
    assert [(graph.bucket, graph.batch_size) for graph in lock.graphs] == [({"x": [8]}, 1), ({"x": [8]}, 3)]
    assert lock.task == own.lock.task
    assert lock.weights.source == "graph:theirs.graph"
    assert lock.weights.sha256 == specs.digests.file_digest(tmp_path / "theirs.graph")
    assert [graph.inputs for graph in lock.graphs] == [graph.inputs for graph in own.lock.graphs]
    assert [graph.outputs for graph in lock.graphs] == [graph.outputs for graph in own.lock.graphs]
    for details in lock.parity.details.values():
        assert NOTE in details["notes"]
        assert all(output["recorded"] for output in details["outputs"])
    assert not any(NOTE in details["notes"] for details in own.lock.parity.details.values())
    differing = differences.of_files(*(graph_file.read(graph_of(one)) for one in (own, result)))
    assert differing == [], "operators, weights, modules and references are those of the file"
    assert not rehearse(result.spec.path).changed
    checks = verify.verify(result.spec, rehearsal=True, reporter=Silent())
    assert [check.detail for check in checks if not check.passed] == []
    request = {"x": [1, 2, 3, 4, 5, 6, 7, 8]}
    assert answered(result, tmp_path / "theirs", request) == answered(own, tmp_path / "own", request)


@pytest.mark.slow
def test_a_text_is_padded_and_answered_as_by_the_first_project(bert: Result, tmp_path: Path) -> None:
    result = rehearse(taken(tmp_path, graph_of(bert), f"compile: {{accept: {json.dumps(ACCEPT)}}}\n"))
    assert [graph.coverage for graph in result.lock.graphs if graph.coverage] != []
    for before, graph in zip(bert.lock.graphs, result.lock.graphs, strict=True):
        assert before.coverage is not None
        assert graph.coverage is not None
        tables, same = (one.coverage.model_dump()["host"]["tables"] for one in (before, graph) if one.coverage)
        assert [(table["name"], table["choice"]) for table in same if table["choice"] == "host"] == [
            (table["name"], table["choice"]) for table in tables if table["choice"] == "host"
        ]
        assert (graph.bucket, graph.batch_size, graph.outputs) == (before.bucket, before.batch_size, before.outputs)
    notes = result.lock.parity.details["graphs/main-tokens_12-batch_2.pt"]["notes"]
    assert "an item of {'tokens': 6} was tried, filled up to {'tokens': 12}" in notes
    assert not any("float64" in note for note in notes)
    short = result.lock.parity.details["graphs/main-tokens_6-batch_1.pt"]["notes"]
    assert any("no item smaller than its bucket was tried" in note and "tokens 3, batch 1" in note for note in short)
    checks = verify.verify(result.spec, rehearsal=True, reporter=Silent())
    assert [check.detail for check in checks if not check.passed] == []
    request = {"input_ids": [3, 7, 11, 2, 5, 8, 9, 1]}
    assert answered(result, tmp_path / "theirs", request) == answered(bert, tmp_path / "bert", request)


RECURRENT = ENTRY.replace(
    """        x = torch.tanh(x)  # two operators: a lone one stays on the host
        return self.layer(x)
""",
    """        states, (hidden, _) = self.cell(torch.tanh(x)[:, None])
        return {"states": states, "last": Last(hidden, self.layer(x)), "scale": self.scale * 1}
""",
).replace(
    """        self.layer = nn.Linear(8, 4)
""",
    """        self.layer, self.cell = nn.Linear(8, 4), nn.LSTM(8, 3, 2, batch_first=True)
        self.register_buffer("scale", torch.ones(5, 1))
""",
)
RECURRENT = RECURRENT.replace(
    "class Net", "import collections\nLast = collections.namedtuple('Last', 'hidden out')\n\nclass Net"
)
RECURRENT = RECURRENT.replace("[0], references)", '[0], references, shared_outputs=["scale"])')


def test_outputs_keep_their_nesting_and_their_items_axes(tmp_path: Path) -> None:
    """An LSTM's state counts the items along its second axis; a scale has none."""
    more = "compile: {target: inf2, batch_sizes: [1, 2]}\n"
    first = rehearse(write_entry(tmp_path / "first", RECURRENT, more=more))
    result = rehearse(taken(tmp_path / "second", graph_of(first), "compile: {target: inf2}\n"))
    for before, graph in zip(first.lock.graphs, result.lock.graphs, strict=True):
        assert [(one.name, one.item_axis) for one in before.outputs] == [
            ("states", 0), ("last.hidden", 1), ("last.out", 0), ("scale", None)
        ]  # fmt: skip
        assert graph.outputs == before.outputs
    assert graph_file.read(graph_of(result)).variants[0].structure == (
        graph_file.read(graph_of(first)).variants[0].structure
    )


def test_a_handler_of_the_users_serves_it(own: Result, tmp_path: Path) -> None:
    path = taken(tmp_path, graph_of(own), "compile: {batch_sizes: [3]}\nserve: {handler: handler.py}\n")
    (tmp_path / "handler.py").write_text(HANDLER)
    result = rehearse(path)
    assert [graph.batch_size for graph in result.lock.graphs] == [3]
    assert answered(result, tmp_path / "served", {"x": [1, 2, 3, 4, 5, 6, 7, 8]}) == {"version": 1}


def test_the_digest_of_the_file_is_in_the_digest_of_the_build(own: Result, tmp_path: Path) -> None:
    result = rehearse(taken(tmp_path, graph_of(own)))
    assert locks.check(result.spec, result.lock, rehearsal=True) == []
    changed(graph_of(own), tmp_path / "theirs.graph", lambda first, _: replace(first, references=first.references[:-1]))
    (problem,) = locks.check(specs.load(result.spec.path), result.lock, rehearsal=True)
    assert "is stale" in problem


def test_a_compiler_is_given_the_same_graph(
    own: Result,
    tmp_path: Path,
    stand_in: Callable[[str], None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in("success")
    monkeypatch.setattr(process_runner, "watch", in_this_process)
    path = taken(tmp_path, graph_of(own), "compile: {batch_sizes: [3]}\n")
    result = build(plans.resolve(plan(specs.load(path), rehearse=False), Silent()), Silent())
    (details,) = result.lock.parity.details.values()
    assert result.lock.stand_in
    assert NOTE in details["notes"]
    assert details["replayed"] == {"output": 0.0}
    checks = verify.verify(result.spec, rehearsal=False, reporter=Silent())
    assert any(check.what.startswith("device: ") for check in checks)
    assert [check.detail for check in checks if not check.passed and check.what != "lock fits the spec"] == []


# what is beside the graph in the model's section: key of the fault, words of it
BESIDE = {
    "weights": (', weights: "random:0"', "model.weights", "which has its weights"),
    "options": (", options: {layers: 2}", "model.options", "in which nothing can be chosen"),
    "a variant": (", variant: vits", "model.variant", "is a variant without a family"),
    "a family": (", family: bert", "model.graph", "is given beside the family bert"),
    "an entry": (', entry: "model.py:build"', "model.graph", "is given beside the entry model.py:build"),
}


@pytest.mark.parametrize("beside", sorted(BESIDE))
def test_what_the_file_decides_stands_not_in_the_spec(own: Result, tmp_path: Path, beside: str) -> None:
    text, key, words = BESIDE[beside]
    (tmp_path / "model.py").write_text(ENTRY)
    with pytest.raises(SpecErrors) as errors:
        specs.load(taken(tmp_path, graph_of(own), model=text))
    (error,) = errors.value.errors
    assert (error.key, error.line) == (key, 2)
    assert words in error.problem


@pytest.mark.parametrize(("name", "words"), [("no.graph", "does not exist"), ("../x.graph", "leads out of")])
def test_a_file_that_is_not_in_the_project(own: Result, tmp_path: Path, name: str, words: str) -> None:
    path = taken(tmp_path, graph_of(own))
    path.write_text(path.read_text().replace("theirs.graph", name))
    with pytest.raises(SpecErrors) as errors:
        specs.load(path)
    assert [(error.key, words in error.problem) for error in errors.value.errors] == [("model.graph", True)]


@pytest.mark.parametrize(
    ("section", "lacking"),
    [
        ("{buckets: [{x: 16}]}", "main, x 16, batch 1; main, x 16, batch 3"),
        ("{batch_sizes: [1, 2]}", "main, x 8, batch 2"),
    ],
)
def test_sizes_that_the_file_lacks_are_refused_with_those_it_has(
    own: Result, tmp_path: Path, section: str, lacking: str
) -> None:
    message = refused(taken(tmp_path, graph_of(own), f"compile: {section}\n"))
    known = "main, x 8, batch 1; main, x 8, batch 3"
    assert message.startswith(f"taken.yaml: theirs.graph has no graph of {lacking}. It has {known}.")


def with_other_answer(first: PortableVariant, held: GraphFile) -> PortableVariant:
    reference = first.references[2]
    answer = held.tensors[reference.outputs[0]].clone()
    answer.view(-1)[1] += 0.5
    key = stored({"": answer})
    held.tensors.update(key.tensors)  # type: ignore[attr-defined]
    (digest,) = key.tensors
    return replace(
        first, references=(*first.references[:2], replace(reference, outputs=(digest,)), *first.references[3:])
    )


def with_other_weight(first: PortableVariant, held: GraphFile) -> PortableVariant:
    state = next(one for one in first.device.state if one.name == "layer.weight")
    key = stored({"": held.tensors[state.tensor] * 2})
    held.tensors.update(key.tensors)  # type: ignore[attr-defined]
    (digest,) = key.tensors
    states = tuple(replace(one, tensor=digest) if one is state else one for one in first.device.state)
    return replace(first, device=replace(first.device, state=states))


def test_another_recorded_answer_is_named_with_both_values(own: Result, tmp_path: Path) -> None:
    message = refused(taken(tmp_path, changed(graph_of(own), tmp_path / "other.graph", with_other_answer)))
    assert "The graph file does not compute what it has recorded: main, x 8, batch 1: output output" in message
    assert "of reference 2 differs by 5.000e-01" in message
    assert "entry 1 is " in message
    assert "was recorded; no single node differs" in message


def test_another_weight_is_named_by_the_first_node_that_differs(own: Result, tmp_path: Path) -> None:
    message = refused(taken(tmp_path, changed(graph_of(own), tmp_path / "other.graph", with_other_weight)))
    assert "output output of reference 0 differs by" in message
    assert "the first node that differs is device node 1, aten::linear (layer, " in message


def test_verify_compares_with_the_recorded_answers(own: Result, tmp_path: Path) -> None:
    result = rehearse(taken(tmp_path, graph_of(own)))
    changed(graph_of(own), tmp_path / "theirs.graph", with_other_answer)
    checks = verify.verify(specs.load(result.spec.path), rehearsal=True, reporter=Silent())
    assert [check.what for check in checks if not check.passed] == ["lock fits the spec", "parity: main, x 8, batch 1"]


def rewritten(graph: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A graph file with its JSON changed."""
    with tarfile.open(graph) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(to, "w") as tar:
        for member, content in members:
            text = content
            if member.name == file.GRAPH:
                found = json.loads(content)
                change(found)
                text = json.dumps(found).encode()
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return to


def huge(found: dict[str, Any]) -> None:
    """An intermediate of 2^42 bytes, of which a part becomes the output."""
    device = found["graphs"][0]["device"]
    (output,) = device["outputs"]
    grown = {"operator": "aten::repeat", "args": [{"value": output}, [1 << 38, 1]], "outputs": []}
    grown["outputs"] = [[900, "float32", [1 << 38, 4]]]
    cut = {"operator": "aten::slice.Tensor", "args": [{"value": 900}, 0, 0, 1], "outputs": [[901, "float32", [1, 4]]]}
    device["nodes"] += [grown, cut]
    device["outputs"] = [901]


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a newer format": (lambda found: found.update(format=2), "a newer version of the project wrote it"),
    "2^42 bytes": (huge, "the most is 1099511627776"),
    "an unknown operator": (
        lambda found: found["graphs"][0]["device"]["nodes"][0].update(operator="aten::set_.source_Tensor"),
        "aten::set_.source_Tensor",
    ),
    "a role that leads elsewhere": (lambda found: found["graphs"][0].update(role="../../x"), "'../../x' is no name"),
    "an axis that leads elsewhere": (
        lambda found: found["graphs"][0].update(bucket={"a/b": 1}),
        "'a/b' is no name of letters",
    ),
    "two graphs for the same inputs": (
        lambda found: found["graphs"].append({**found["graphs"][0], "bucket": {"x": 9}}),
        "main, x 9, batch 1: its inputs have the shapes of those of main, x 8, batch 1",
    ),
    "a bucket of nothing": (lambda found: found["graphs"][0].update(bucket={}), "its bucket is {}"),
    "no structure": (lambda found: found["graphs"][0].update(structure={"kind": "object"}), "its structure: "),
    "a record of no name": (
        lambda found: found["graphs"][0].update(
            structure={"kind": "record", "type": "a b", "entries": [["y", {"kind": "tensor", "index": 0}]]}
        ),
        "'a b' is not the name of a record",
    ),
    "a task of no name": (lambda found: found["header"].update(task=["tensor"]), "has the task ['tensor']"),
    "padding that is text": (
        lambda found: found["header"].update(roles={"main": {"padding": {"x": "0"}}}),
        "has the roles {'main'",
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_file_that_is_no_model(own: Result, tmp_path: Path, damage: str) -> None:
    change, words = DAMAGE[damage]
    message = refused(taken(tmp_path, rewritten(graph_of(own), tmp_path / "other.graph", change)))
    assert message.startswith(str(tmp_path / "theirs.graph"))
    assert words in message
    assert not (tmp_path / "build").exists()


def test_constants_that_do_not_fit_their_digest(own: Result, tmp_path: Path) -> None:
    path = taken(tmp_path, graph_of(own))
    content = bytearray((tmp_path / "theirs.graph").read_bytes())
    weight = next(iter(graph_file.read(graph_of(own)).variants[0].device.state))
    raw = graph_file.read(graph_of(own)).tensors[weight.tensor].contiguous().view(torch.uint8).numpy().tobytes()
    content[content.index(raw)] ^= 1
    (tmp_path / "theirs.graph").write_bytes(content)
    assert f"tensor '{weight.tensor}' does not fit its digest" in refused(path)


def test_an_operator_that_the_targets_torch_lacks(tmp_path: Path) -> None:
    source = ENTRY.replace("return self.layer(x)", "return self.layer(x[:, None, None]).squeeze((1, 2))")
    first = rehearse(write_entry(tmp_path / "first", source, more="compile: {target: inf2}\n"))
    operators = {node.operator for node in graph_file.read(graph_of(first)).variants[0].device.nodes}
    assert "aten::squeeze.dims" in operators
    spec = specs.load(taken(tmp_path / "second", graph_of(first), "job: {}\n"))
    with pytest.raises(CompileError, match=r"captured for torch 1\.13\.1:\n  aten::squeeze\.dims in model\.py:12"):
        bundle.make(spec, tmp_path / "bundle", rehearse=False, reporter=Silent(), cache=None)  # type: ignore[arg-type]
