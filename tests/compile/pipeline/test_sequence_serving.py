"""The families that decode, built and served: what the endpoint answers is what the original decoding gives."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

import endpoint_spec as specs
from compile.frontend import loading, weights
from compile.models.parts.pictures import png
from compile.packaging import archive
from compile.packaging.local_server import Worker, running
from endpoint_spec.lock import lock_path, read_lock
from inference_code import handler
from inference_code.codecs.images import decode
from inference_code.settings import Limits
from tests.compile.models.tiny import TINY
from tests.compile.projects import rehearse

BATCHES = "compile: {batch_sizes: [1, 3]}\n"


def build(
    root: Path, family: str, variant: str, name: str = "texts", more: str = BATCHES, **changes: Any
) -> specs.EndpointSpec:
    """A rehearsal of a tiny family; its spec."""
    options = {**TINY[(family, variant)][0], **changes}
    path = root / "endpoints" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    model = {"family": family, "variant": variant, "weights": "random:3", "options": options}
    path.write_text(f"name: {name}\nmodel: {json.dumps(model)}\n{more}")
    result = rehearse(path)
    archive.extract(result.artifact, root / "model")
    return result.spec


def original(spec: specs.EndpointSpec) -> torch.nn.Module:
    """The model with the weights that the build drew."""
    definition = loading.definition(spec)
    weights.fill(spec, definition)
    return definition.weights


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[specs.EndpointSpec, Path, Worker]]:
    root = tmp_path_factory.mktemp("marian")
    spec = build(root, "marian", "opus-mt-en-de")
    with running(root / "model", {"ENDPOINT_WORKERS": "2"}, root / "log") as worker:
        yield spec, root / "model", worker


def ask(worker: Worker, value: Any) -> Any:
    return json.loads(worker.invoke(json.dumps(value).encode(), "application/json", "application/json").body)


def texts(count: int) -> list[list[int]]:
    generator = np.random.default_rng(5)
    return [generator.integers(1, 59, generator.integers(1, 11)).tolist() for _ in range(count)]


def generated(model: Any, ids: list[int], **options: Any) -> list[int]:
    """transformers' own answer, without start, end and padding."""
    configuration = GenerationConfig(
        do_sample=False,
        decoder_start_token_id=59,
        eos_token_id=0,
        pad_token_id=59,
        bos_token_id=None,
        forced_eos_token_id=0,
        bad_words_ids=[[59]],
        **{"max_length": 13, **options},
    )
    model.generation_config = configuration
    tokens = model.generate(torch.tensor([ids]), generation_config=configuration)[0].tolist()[1:]
    return tokens[: tokens.index(0)] if 0 in tokens else tokens


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 0.5}, {"max_length": 5}], ids=str)
def test_the_endpoint_translates_as_transformers_does(marian: Any, options: dict[str, Any]) -> None:
    spec, _, worker = marian
    model, several = original(spec), texts(4)
    answers = ask(worker, [{"input_ids": ids, **options} for ids in several])
    assert [answer["tokens"] for answer in answers] == [generated(model, ids, **options) for ids in several]
    assert {answer["rehearsal"] for answer in answers} == {True}
    assert len({tuple(answer["tokens"]) for answer in answers}) > 1, "says nothing: all texts get one answer"


def test_texts_of_many_callers_at_once_get_the_answers_of_lone_ones(marian: Any) -> None:
    _, _, worker = marian
    several = texts(12)
    alone = [ask(worker, {"input_ids": ids}) for ids in several]
    found: list[Any] = [None] * len(several)

    def call(index: int) -> None:
        found[index] = ask(worker, {"input_ids": several[index]})

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(several))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "input_ids"),
        ([1, 2], "an item is an object"),
        ({"input_ids": []}, "list of whole numbers"),
        ({"input_ids": [1.5]}, "whole numbers"),
        ({"input_ids": [60]}, "the model knows 0 to 59"),
        ({"input_ids": [-1]}, "the model knows 0 to 59"),
        ({"input_ids": [1] * 11}, "at most 10"),
        ({"input_ids": [1], "max_length": 99}, "give 2 to 13"),
        ({"input_ids": [1], "num_beams": 1000}, "at most 16"),
        ({"input_ids": [1], "num_beams": 0}, "num_beams is 0"),
        ({"input_ids": [1], "num_beams": True}, "num_beams"),
        ({"input_ids": [1], "early_stopping": 1}, "true or false"),
        ({"input_ids": [1], "length_penalty": "x"}, "length_penalty"),
        ({"input_ids": [1], "temperature": 2}, "unknown temperature"),
    ],
    ids=str,
)
def test_bad_texts_are_refused_with_the_reason(marian: Any, value: Any, problem: str) -> None:
    _, _, worker = marian
    with pytest.raises(Exception, match=r"answered 4\d\d") as caught:
        ask(worker, value)
    assert problem in str(caught.value)


def test_a_bad_text_fails_alone(marian: Any) -> None:
    _, _, worker = marian
    answers = ask(worker, [{"input_ids": [5, 6]}, {"input_ids": [99]}])
    assert "tokens" in answers[0]
    assert answers[1]["error"] == "bad_request"


def test_the_stock_containers_functions_give_the_same(marian: Any) -> None:
    _, folder, worker = marian
    body = json.dumps([{"input_ids": ids} for ids in texts(2)])
    served = handler.model_fn(str(folder))
    done = handler.predict_fn(handler.input_fn(body, "application/json"), served)
    answer, kind = handler.output_fn(done, "application/json")
    assert kind == "application/json"
    assert json.loads(answer) == ask(worker, json.loads(body))


def test_a_sample_is_kept_for_the_smoke_test(marian: Any) -> None:
    spec, *_ = marian
    lock = read_lock(lock_path(spec, rehearsal=True))
    assert lock.sample is not None
    assert set(lock.sample.answer.json_value) == {"tokens", "ended", "rehearsal"}


@pytest.mark.parametrize("refinements", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_endpoint_reads_as_the_original_does(tmp_path: Path, refinements: int) -> None:
    spec = build(tmp_path, "parseq", "tiny", "reader", "", refinements=refinements)
    network: Any = original(spec)
    charset = loading.definition(spec).task_settings["charset"]
    with running(tmp_path / "model", {}, tmp_path / "log") as worker:
        for body in (png(seed, 40, 100) for seed in (1, 2)):
            answer = json.loads(worker.invoke(body, "image/png", "application/json").body)
            pixels = torch.from_numpy(decode(body, Limits()).resized(32, 128)[None] * 2 - 1)
            with torch.no_grad():
                probabilities, tokens = (column.tolist() for column in network(pixels)[0].softmax(-1).max(-1))
            length = tokens.index(0) if 0 in tokens else len(tokens)
            assert answer["text"] == "".join(charset[token - 1] for token in tokens[:length])
            assert answer["confidence"] == pytest.approx(math.prod(probabilities[: length + 1]), rel=1e-3)
            assert answer["characters"] == pytest.approx(probabilities[:length], rel=1e-3)
