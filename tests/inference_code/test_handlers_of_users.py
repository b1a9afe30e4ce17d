"""A user's handler file: preprocess and postprocess, or SageMaker's four functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference_code import handler
from inference_code.errors import EndpointError, LoadError
from inference_code.handler import Headers
from tests.inference_code.artifacts import doubling_artifact, read_npy


def ask(
    served: Any, body: bytes, content_type: str = "text/plain", accept: str = "", attributes: str = ""
) -> tuple[bytes, str]:
    context = Headers({"accept": accept, "x-amzn-sagemaker-custom-attributes": attributes})
    done = handler.predict_fn(handler.input_fn(body, content_type, context), served, context)
    return handler.output_fn(done, accept, context)


def serve(folder: Path, source: str, **files: str) -> Any:
    named = {f"{name}.py": text for name, text in files.items()}
    return handler.model_fn(str(doubling_artifact(folder, source, named)))


PAIR = """
import numpy as np

def preprocess(request):
    return np.array([float(part) for part in request.body.decode().split(",")])

def postprocess(outputs, item):
    return {"doubled": outputs, "sent": item}
"""


def test_two_functions_are_enough(tmp_path: Path) -> None:
    body, kind = ask(serve(tmp_path, PAIR), b"1,2,3.5")
    assert kind == "application/json"
    assert json.loads(body) == {"doubled": [2, 4, 7], "sent": [1, 2, 3.5]}


def test_their_value_error_is_400_with_its_message(tmp_path: Path) -> None:
    served = serve(tmp_path, PAIR)
    with pytest.raises(EndpointError, match="could not convert string to float: 'x'") as caught:
        ask(served, b"1,x")
    assert caught.value.status == 400


def test_an_array_of_a_wrong_shape_is_400(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"the item has x \[2\]; graph main takes x \[3\]") as caught:
        ask(serve(tmp_path, PAIR), b"1,2")
    assert caught.value.status == 400


def test_siblings_and_modules_below_the_root_are_imported(tmp_path: Path) -> None:
    source = "from helper_a import preprocess\nfrom models.helper_b import postprocess\n"
    served = serve(
        tmp_path,
        source,
        helper_a="def preprocess(request):\n    return {'x': [1.0, 2.0, 3.0]}\n",
        helper_b="def postprocess(outputs, item):\n    return [float(v) for v in outputs]\n",
    )
    assert json.loads(ask(served, b"")[0]) == [2, 4, 6]


def test_a_handler_in_a_package_imports_relatively(tmp_path: Path) -> None:
    source = (
        "from .reading_here import preprocess\nfrom . import writing_here\npostprocess = writing_here.postprocess\n"
    )
    served = serve(
        tmp_path,
        source,
        reading_here="def preprocess(request):\n    return {'x': [1.0, 2.0, 3.0]}\n",
        writing_here="def postprocess(outputs, item):\n    return [float(v) + 1 for v in outputs]\n",
    )
    assert json.loads(ask(served, b"")[0]) == [3, 5, 7]


def test_everything_of_the_request_is_there(tmp_path: Path) -> None:
    source = """
from inference_code.handler import Answer, Item, Request
import numpy as np

def preprocess(request: Request):
    seen = {
        "type": request.content_type, "accept": request.accept, "size": request.parameters["size"],
        "model": request.model.name, "items": request.model.limits.items,
    }
    return Item({"x": np.ones(3, np.float32)}, seen)

def postprocess(outputs, item):
    return Answer(repr(sorted(item.context.items())), "text/plain; charset=utf-8")
"""
    body, kind = ask(serve(tmp_path, source), b"", "text/CSV; charset=utf-8", "text/plain;q=0.5", "size=model")
    assert kind == "text/plain; charset=utf-8"
    assert dict(eval(body)) == {
        "type": "text/csv", "accept": "text/plain;q=0.5", "size": "model", "model": "tiny", "items": 16,
    }  # fmt: skip


def test_several_items_one_of_them_bad(tmp_path: Path) -> None:
    source = """
from inference_code.errors import TooLarge
import numpy as np

def preprocess(request):
    return [np.full(3, 1.0), TooLarge("this one is too large"), np.full(3, 2.0), np.full(4, 1.0)]

def postprocess(outputs, item):
    if outputs[0] > 3:
        raise ValueError("I do not like it")
    return {"sum": outputs.sum()}
"""
    answers = json.loads(ask(serve(tmp_path, source), b"")[0])
    assert answers[0] == {"sum": 6}
    assert [answer.get("error") for answer in answers] == [None, "too_large", "bad_request", "bad_request"]
    assert answers[2]["detail"] == "I do not like it"


@pytest.mark.parametrize(
    ("returned", "accept", "kind", "body"),
    [
        ("outputs", "", "application/json", b"[2, 2, 2]"),
        ("'text'", "", "text/plain", b"text"),
        ("b'bytes'", "", "application/octet-stream", b"bytes"),
        ("[1, 'a', None]", "*/*", "application/json", b'[1, "a", null]'),
        ("Answer('[1]', 'application/json')", "application/*", "application/json", b"[1]"),
        ("Answer(b'x', 'image/gif')", "image/*", "image/gif", b"x"),
    ],
)
def test_values_are_encoded_by_what_they_are(
    tmp_path: Path, returned: str, accept: str, kind: str, body: bytes
) -> None:
    source = f"""
from inference_code.handler import Answer
def preprocess(request):
    return [1, 1, 1] and __import__("numpy").ones(3)
def postprocess(outputs, item):
    return {returned}
"""
    assert ask(serve(tmp_path, source), b"", accept=accept) == (body, kind)


def test_an_array_is_npy_where_accept_says_so(tmp_path: Path) -> None:
    source = PAIR.replace('{"doubled": outputs, "sent": item}', "outputs")
    assert read_npy(ask(serve(tmp_path, source), b"1,2,3", accept="application/x-npy")[0]).tolist() == [2, 4, 6]


def test_an_answer_of_another_type_than_accepted_is_406(tmp_path: Path) -> None:
    served = serve(tmp_path, PAIR)
    with pytest.raises(EndpointError) as caught:
        ask(served, b"1,2,3", accept="image/png")
    assert caught.value.status == 406


def test_a_failing_function_is_500_without_its_secrets(tmp_path: Path) -> None:
    served = serve(tmp_path, PAIR.replace('return {"doubled"', 'return {}["secret"], {"doubled"'))
    with pytest.raises(EndpointError) as caught:
        ask(served, b"1,2,3")
    assert caught.value.status == 500
    assert str(caught.value) == "postprocess failed with KeyError; the worker's log has the details"


FOUR = """
import json, os
import torch

def model_fn(model_dir):
    (name,) = os.listdir(os.path.join(model_dir, "graphs"))
    return torch.jit.load(os.path.join(model_dir, "graphs", name))

def input_fn(body, content_type):
    assert content_type == "application/json" and isinstance(body, str), (content_type, type(body))
    return torch.tensor(json.loads(body))

def predict_fn(data, model):
    with torch.no_grad():
        return model(data)

def output_fn(prediction, accept):
    return json.dumps({"accept": accept, "values": prediction.tolist()})
"""


def test_sagemakers_four_functions(tmp_path: Path) -> None:
    served = serve(tmp_path, FOUR)
    for accept, seen in (("", "application/json"), ("*/*", "application/json"), ("a/b;q=0.1, c/d", "c/d")):
        body, kind = ask(served, b"[[1.0, 2.0, 3.0]]", "application/json; charset=utf-8", accept)
        assert json.loads(body) == {"accept": seen, "values": [[2, 4, 6]]}
        assert kind == seen


def test_their_errors_have_a_status(tmp_path: Path) -> None:
    served = serve(tmp_path, FOUR)
    for body, content_type, status in ((b"{", "application/json", 400), (b"x", "text/plain", 500)):
        with pytest.raises(EndpointError) as caught:
            ask(served, body, content_type)
        assert caught.value.status == status


def test_without_model_fn_the_loaded_model_is_called(tmp_path: Path) -> None:
    source = FOUR.replace("def model_fn", "def not_model_fn").replace("torch.tensor(json", "torch.tensor(2 * json")
    body, _ = ask(serve(tmp_path, source), b"[[1.0, 2.0, 3.0]]", "application/json")
    assert json.loads(body)["values"] == [[2, 4, 6], [2, 4, 6]]


def test_output_fn_alone_gets_what_the_model_returned(tmp_path: Path) -> None:
    source = "def output_fn(prediction, accept):\n    return str(prediction.sum()), 'text/plain'\n"
    assert ask(serve(tmp_path, source), b'{"x": [1, 2, 3]}', "application/json") == (b"12.0", "text/plain")


def test_input_fn_alone_makes_the_item(tmp_path: Path) -> None:
    source = (
        "import numpy\ndef input_fn(body, content_type, context):\n    return numpy.ones(3) * len(context.values)\n"
    )
    assert ask(serve(tmp_path, source), b"") == (b"[4, 4, 4]", "application/json")


def test_a_models_own_warm_up_is_called(tmp_path: Path) -> None:
    source = FOUR + "\ndef model_warmup_fn(model_dir, model):\n    raise OSError('no warmth')\n"
    with pytest.raises(LoadError, match=r"model_warmup_fn failed: OSError: no warmth \(my_handler\.py, line \d+\)"):
        serve(tmp_path, source)


def test_a_model_that_does_not_answer_is_not_served(tmp_path: Path) -> None:
    source = FOUR.replace("return torch.jit.load", "return lambda a, b: torch.jit.load")
    with pytest.raises(LoadError, match="define model_warmup_fn"):
        serve(tmp_path, source)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("", "defines neither preprocess and postprocess nor any of model_fn"),
        ("def preprocess(request): ...", "defines preprocess, but not postprocess"),
        ("def postprocess(outputs, item): ...", "but not preprocess"),
        ("def preprocess(request): ...\ndef output_fn(p, a): ...", "use one of the two forms"),
        ("def model_fn(d): ...", "model_fn without predict_fn"),
        ("def predict_fn(d, m): ...", "predict_fn without input_fn"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all' (my_handler.py, line 1)"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (FOUR.replace("return torch.jit.load", "raise RuntimeError('no')\n    return torch"), "RuntimeError: no (my_h"),
    ],
)
def test_a_handler_that_cannot_be_used_stops_the_worker(tmp_path: Path, source: str, part: str) -> None:
    with pytest.raises(LoadError) as caught:
        serve(tmp_path, source)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
