"""DLRM against the formulas of its paper and reference, written down once more in numpy; its bucket in a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import endpoint_spec as specs
from compile.analysis.variant import analyzed
from compile.definition import GraphVariant, ModelDefinition
from compile.errors import CompileError
from compile.frontend import loading
from compile.ir.flat_module import flat_module
from compile.lowering import lower, split
from compile.lowering.config import ALL
from compile.models import find
from compile.progress import Silent

OPTIONS: dict[str, Any] = {"numbers": 5, "rows": [7, 300, 2, 31], "bottom": [12, 8], "top": [20, 10, 1]}
Array = np.ndarray[Any, Any]


def built(**changes: Any) -> ModelDefinition:
    found, variant = find("dlrm", None)
    definition = found.build(variant, OPTIONS | changes)
    assert definition.initialise is not None
    definition.initialise(definition.weights, torch.Generator().manual_seed(3))
    return definition


def layers(state: dict[str, Array], name: str, x: Array) -> list[Array]:
    """What each dense layer of bot_l or top_l gives before its non-linearity; linear layers have the even numbers."""
    found, number = [], 0
    while f"{name}.{number}.weight" in state:
        before = x if not found else np.maximum(found[-1], 0)
        found.append(before @ state[f"{name}.{number}.weight"].T + state[f"{name}.{number}.bias"])
        number += 2
    return found


def reference(state: dict[str, Array], dense: Array, sparse: Array) -> Array:
    """The probability of each row: bottom layers, dot products of all pairs below the diagonal, top layers, sigmoid.

    Pairs stand row by row, (1, 0), (2, 0), (2, 1) ..., behind the bottom layers' output, as in dlrm_s_pytorch.py with
    --arch-interaction-op=dot and without --arch-interaction-itself.
    """
    x = np.maximum(layers(state, "bot_l", dense)[-1], 0)
    tables = [state[f"emb_l.{table}.weight"][sparse[:, table]] for table in range(sparse.shape[1])]
    vectors = [x, *tables]
    pairs = [(vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i)]
    top = layers(state, "top_l", np.concatenate([x, np.stack(pairs, 1)], 1))
    return 1 / (1 + np.exp(-top[-1]))


@pytest.mark.parametrize("options", [{}, {"rows": [4]}, {"bottom": [6], "top": [1], "rows": [9, 9]}])
def test_the_network_and_its_lowered_form_compute_the_reference(options: dict[str, Any]) -> None:
    definition = built(**options)
    graph, bucket = definition.graphs["main"], definition.buckets[0]
    state = {name: value.double().numpy() for name, value in definition.weights.state_dict().items()}
    example = graph.example_inputs(bucket, 6)
    flat = flat_module(graph.module, example)
    whole = split(lower(flat, tuple(example.values())).module, tuple(example.values())).whole
    for inputs in graph.reference_inputs(bucket, 6):
        expected = reference(state, inputs["dense"].double().numpy(), inputs["sparse"].numpy())
        assert expected.std() > 1e-3
        with torch.no_grad():
            for found in (flat(*inputs.values()), whole(*inputs.values())):
                np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_files_names_are_those_of_the_reference_at_full_size() -> None:
    found, variant = find("dlrm", "kaggle_10k")
    state = found.build(variant, {}).weights.state_dict()
    names = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {f"emb_l.{table}.weight" for table in range(26)}
    for layer in ("bot_l.0", "bot_l.2", "bot_l.4", "bot_l.6", "top_l.0", "top_l.2", "top_l.4"):
        wanted |= {f"{layer}.weight", f"{layer}.bias"}
    assert set(names) == wanted
    assert names["emb_l.0.weight"] == (1460, 16)
    # 27 vectors have 351 pairs, behind the 16 numbers of the bottom layers.
    assert names["top_l.0.weight"] == (512, 351 + 16)


def test_its_bucket_can_be_written_and_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "endpoints" / "clicks.yaml"
    path.parent.mkdir()

    def spec_with(bucket: str) -> specs.EndpointSpec:
        model = 'model: {family: dlrm, weights: "random:0", options: {numbers: 5, rows: [7, 3], max_rows: 0}}'
        path.write_text(f"name: clicks\n{model}\ncompile: {{buckets: [{bucket}]}}\n")
        return specs.load(path)

    for bucket, fits in (("{numbers: 5, tables: 2}", True), ("{numbers: 5, tables: 3}", False)):
        spec = spec_with(bucket)
        graph = loading.definition(spec).graphs["main"]
        assert spec.compile.buckets is not None
        variant = GraphVariant("main", spec.compile.buckets[0], 1)
        if fits:
            assert analyzed(variant, graph, "inf1", ALL, (), Silent()).report.flops > 0
        else:
            with pytest.raises(CompileError, match=r"does not fit dlrm.*\n.*numbers: 5, tables: 2"):
                analyzed(variant, graph, "inf1", ALL, (), Silent())
