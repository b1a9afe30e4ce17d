"""SageMaker's four functions, the same in the AWS container and in the native server.

    model_fn(model_dir)                    checks, loads and warms up the artifact
    input_fn(body, content_type, context)  one request -> list of Work (one for each item)
    predict_fn(work, model)                Work of any number of requests -> one Done each
    output_fn(done, accept, context)       the Done of one request -> (body, content_type)

An item that failed travels along with its error, so one bad item fails alone. `context` is the toolkit's Context, or
the native server's `Headers`. Under the toolkit an error becomes status and JSON body through the context: an exception
would be answered with its traceback. Elsewhere output_fn raises the EndpointError. One process serves one model:
input_fn gets no model from SageMaker, so the last one that model_fn loaded is kept here.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference_code import tasks
from inference_code.artifact.manifest import ArtifactManifest
from inference_code.codecs import responses
from inference_code.codecs.multipart import MULTIPART, split
from inference_code.codecs.negotiation import content_parameter, custom_attributes, media_type, parse_accept
from inference_code.codecs.responses import Reply
from inference_code.errors import BadRequest, EndpointError, Internal, LoadError, TooLarge
from inference_code.execution import model as runtime
from inference_code.generation import Call, caller
from inference_code.request import CUSTOM_ATTRIBUTES, Answer, Item, ModelInfo, Request
from inference_code.settings import Settings

__all__ = [
    "Answer",
    "Done",
    "Headers",
    "Item",
    "Reply",
    "Request",
    "Served",
    "Work",
    "failed",
    "input_fn",
    "model_fn",
    "output_fn",
    "predict_fn",
    "reply",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What model_fn returns: the artifact, its task, and the loaded graphs (or what a user's model_fn returned)."""

    manifest: ArtifactManifest
    info: ModelInfo
    task: tasks.Task
    model: Any


@dataclass(frozen=True)
class Headers:
    """The native server's context: the headers of one request, names in lower case."""

    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One item of a request on its way: what preprocess returned (`original`) as an Item, or the error."""

    request: Request
    original: Any
    item: Item | None
    error: EndpointError | None = None
    listed: bool = False  # the request was a list: it is answered by a list, even of one


@dataclass(frozen=True)
class Done:
    """One item with the model's restored outputs, or the error."""

    work: Work
    outputs: Any = None
    error: EndpointError | None = None


_state: dict[str, Served] = {}


def model_fn(model_dir: str, context: Any = None) -> Served:  # noqa: ARG001  (the toolkit counts the parameters)
    """Load the artifact in `model_dir`. Raises LoadError, whose one line is also printed on stderr."""
    try:
        return load(Path(model_dir), Settings.from_environment())
    except LoadError as error:
        print(f"The model cannot be served: {error}", file=sys.stderr, flush=True)  # noqa: T201
        raise


def load(model_dir: Path, settings: Settings) -> Served:
    """Check, load and warm up the artifact, and keep it for input_fn. Raises LoadError with one line."""
    _state.clear()
    manifest = runtime.open_artifact(model_dir, settings)
    info = ModelInfo.of(manifest, settings.limits)
    task = _task(model_dir, manifest)
    task.check(info)
    if "model_fn" in task.functions:
        runtime.import_extension(manifest)
        model = _load_by_user(task, manifest, str(model_dir))
    else:
        model = runtime.load(model_dir, manifest, settings)
    _state["served"] = Served(manifest, info, task, model)
    return _state["served"]


def _load_by_user(task: tasks.Task, manifest: ArtifactManifest, model_dir: str) -> Any:
    """What a user's model_fn returns, once it has answered: it would be healthy without proof otherwise."""
    step, remedy = "model_fn", ""
    try:
        model = call(task.functions["model_fn"], model_dir)
        if "model_warmup_fn" in task.functions:
            step = "model_warmup_fn"
            call(task.functions["model_warmup_fn"], model_dir, model)
            return model
        step = "model, called with zeros in the shapes of its first graph,"
        remedy = "; define model_warmup_fn(model_dir, model), which has the model answer once"
        with torch.no_grad():
            model(*(torch.from_numpy(array) for array in runtime.zeros(manifest.graphs[0])))
        return model
    except Exception as error:
        raise LoadError(f"the handler's {step} failed: {tasks.reason(error)}{remedy}") from error


def _task(model_dir: Path, manifest: ArtifactManifest) -> tasks.Task:
    if manifest.handler is None:
        return tasks.get(manifest.task.name)
    code = model_dir / "code"
    return tasks.from_file(code / manifest.handler, code / Path(manifest.handler).parts[0])


def call(function: Callable[..., Any], *arguments: Any, context: Any = None) -> Any:
    """Call a user's SageMaker function, with the context if it has one parameter more, as the toolkit does."""
    takes_context = len(inspect.signature(function).parameters) == len(arguments) + 1
    return function(*arguments, context) if takes_context else function(*arguments)


def input_fn(body: bytes | memoryview | str, content_type: str, context: Any = None) -> list[Work]:
    """The items of one request. Never raises for a bad one: it becomes one Work with its error."""
    served = _served()
    headers = _headers(context)
    view = body.encode() if isinstance(body, str) else body
    request = Request(view, "", headers.get("accept", ""), model=served.info)
    try:
        if len(view) > served.info.limits.request_bytes:
            raise TooLarge(f"the body has {len(view)} bytes; at most {served.info.limits.request_bytes} are read")
        request = Request(
            view=view,
            content_type=media_type(content_type or ""),
            accept=request.accept,
            parameters=custom_attributes(headers.get(CUSTOM_ATTRIBUTES.lower(), "")),
            model=served.info,
        )
        parse_accept(request.accept)
        if request.content_type == MULTIPART and "input_fn" not in served.task.functions:
            return _parts(served, request, content_parameter(content_type, "boundary"))
        return _works(served, request, context)
    except EndpointError as error:
        return [Work(request, None, None, error)]


def _parts(served: Served, request: Request, boundary: str) -> list[Work]:
    """One Work for each part of a multipart request; a part is read as if it were a request of its own."""
    parts = split(request.body, boundary, served.info.limits.items)
    if not parts:
        raise BadRequest("the request holds no items")
    works = []
    for index, part in enumerate(parts):
        try:
            single = replace(request, view=part.body, content_type=media_type(part.content_type))
            if single.content_type == MULTIPART:
                raise BadRequest(f"part {index} is {MULTIPART} itself; a part is one item")
            found = _guarded("preprocess", served.task.preprocess, single)
            if isinstance(found, list):
                raise BadRequest(f"part {index} holds a list of items; a part is one item")
            works.append(_work(served, single, found, listed=True))
        except EndpointError as error:
            works.append(Work(request, None, None, error, listed=True))
    return works


def _works(served: Served, request: Request, context: Any) -> list[Work]:
    functions = served.task.functions
    if "input_fn" in functions:
        as_text = request.content_type in ("application/json", "text/csv")  # what the toolkit hands over as text
        body: bytes | str = _text(request.body) if as_text else request.body
        found = _guarded("input_fn", call, functions["input_fn"], body, request.content_type, context=context)
    else:
        found = _guarded("preprocess", served.task.preprocess, request)
    if "predict_fn" in functions:
        return [Work(request, found, None)]
    if not isinstance(found, list):
        return [_work(served, request, found, listed=False)]
    if not found:
        raise BadRequest("the request holds no items")
    if len(found) > served.info.limits.items:
        raise TooLarge(f"the request has {len(found)} items; at most {served.info.limits.items} are read")
    return [_work(served, request, one, listed=True) for one in found]


def _work(served: Served, request: Request, original: Any, *, listed: bool) -> Work:
    if isinstance(original, EndpointError):
        return Work(request, None, None, original, listed)
    try:
        return Work(request, original, _as_item(served, original), None, listed)
    except EndpointError as error:
        return Work(request, original, None, error, listed)


def _as_item(served: Served, original: Any) -> Item:
    """What preprocess may return, as an Item: an Item, a dict of arrays, or the array of a model of one input."""
    if isinstance(original, Item):
        return replace(original, inputs={name: _array(value) for name, value in original.inputs.items()})
    graphs = served.info.graphs_of() or served.info.graphs_of("encoder")  # decoding begins there
    if isinstance(original, Mapping):
        return Item(
            {name: _array(value) for name, value in original.items()}, role=graphs[0].role if graphs else "main"
        )
    if graphs and len(graphs[0].inputs) == 1:
        return Item({graphs[0].inputs[0].name: _array(original)}, role=graphs[0].role)
    names = ", ".join(tensor.name for tensor in graphs[0].inputs) if graphs else "no role main"
    raise Internal(
        f"preprocess returned one {type(original).__name__}; the model has the inputs {names}: return a dict"
    )


def _array(value: Any) -> Any:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Internal(f"preprocess returned a {type(value).__name__} that is no array of numbers")
    return array


def predict_fn(work: Sequence[Work], model: Served, context: Any = None) -> list[Done]:
    """One Done for each Work, in order; the items go to the device together, whichever requests they are of."""
    if "predict_fn" in model.task.functions:
        return [_predict_by_user(one, model, context) for one in work]
    if decodes(model):
        return joined(work, [decoded(item, model, caller(model.model.scheduler)) for item in ready(work)])
    return joined(work, model.model.scheduler.run(ready(work)))


def decodes(served: Served) -> bool:
    """Whether the task calls the model more than once an item."""
    return served.task.decode is not None and batches(served)


def decoded(item: Item, served: Served, call: Call) -> Any:
    """What the task's decode makes of an item, or the EndpointError that ended it."""
    assert served.task.decode is not None  # noqa: S101  (see `decodes`)
    try:
        return _guarded("decode", served.task.decode, item, call)
    except EndpointError as error:
        return error


def batches(served: Served) -> bool:
    """Whether items of several requests may share a batch: a user's predict_fn gets one request at a time."""
    return "predict_fn" not in served.task.functions


def ready(work: Sequence[Work]) -> list[Item]:
    """The items that go to the device."""
    return [one.item for one in work if one.error is None and one.item is not None]


def joined(work: Sequence[Work], outcomes: Sequence[Any]) -> list[Done]:
    """One Done for each Work, in order; `outcomes` are those of the items of `ready`."""
    left = iter(outcomes)
    return [_done(one, next(left) if one.error is None and one.item is not None else None) for one in work]


def _done(work: Work, outcome: Any) -> Done:
    error = work.error or (outcome if isinstance(outcome, EndpointError) else None)
    return Done(work, None if error else outcome, error)


def _predict_by_user(work: Work, served: Served, context: Any) -> Done:
    if work.error is not None:
        return Done(work, None, work.error)
    function = served.task.functions["predict_fn"]
    try:
        return Done(work, _guarded("predict_fn", call, function, work.original, served.model, context=context))
    except EndpointError as error:
        return Done(work, None, error)


def output_fn(done: Sequence[Done], accept: str, context: Any = None) -> tuple[bytes, str]:
    """(body, content type) of one request. Raises EndpointError where the context cannot carry a status."""
    by_toolkit = hasattr(context, "set_response_status")
    answer = reply(done, None if by_toolkit or isinstance(context, Headers) else accept, raises=not by_toolkit)
    if by_toolkit:
        if answer.status != 200:
            context.set_response_status(code=answer.status, phrase=_phrase(answer.status))
        for name, value in answer.headers.items():
            context.set_response_header(0, name, value)
    return answer.body, answer.content_type


def reply(done: Sequence[Done], accept: str | None = None, *, raises: bool = False) -> Reply:
    """The finished answer of one request; `accept` overrides the request's own header.

    An error becomes its JSON answer, or is raised if `raises`.
    """
    info = _served().info
    try:
        return _encoded(done, done[0].work.request.accept if accept is None else accept)
    except EndpointError as error:
        if raises:
            raise
        return responses.error_reply(error, info)


def failed(error: EndpointError) -> Reply:
    """The answer for a request that never became items."""
    served = _state.get("served")
    return responses.error_reply(error, served.info if served else None)


def _encoded(done: Sequence[Done], accept: str) -> Reply:
    served = _served()
    if not done[0].work.listed:
        if done[0].error is not None:
            raise done[0].error
        return responses.encode_one(_postprocessed(done[0], served, accept), accept, served.info)
    values = []
    for one in done:
        try:
            values.append(one.error or _postprocessed(one, served, accept))
        except EndpointError as error:
            values.append(error)
    return responses.encode_list(values, accept, served.info)


def _postprocessed(done: Done, served: Served, accept: str) -> Any:
    if "output_fn" not in served.task.functions:
        if "input_fn" in served.task.functions:  # the items are not those of our postprocess
            return done.outputs
        original = done.work.original
        if isinstance(original, Item) and "accept" in original.context:  # output_fn's own accept comes last
            original = replace(original, context={**original.context, "accept": accept})
        return _guarded("postprocess", served.task.postprocess, done.outputs, original)
    ranges = sorted(parse_accept(accept), key=lambda one: -one.quality)
    preferred = next((one.kind for one in ranges if "*" not in one.kind), "application/json")
    found = _guarded("output_fn", call, served.task.functions["output_fn"], done.outputs, preferred)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], str):
        return Answer(*found)
    return Answer(found, preferred) if isinstance(found, (bytes, str)) else found


def _guarded(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of a task. ValueError is the caller's fault (400), any other exception the handler's (500)."""
    try:
        return function(*arguments, **options)
    except (EndpointError, MemoryError):
        raise
    except ValueError as error:
        raise BadRequest(" ".join(str(error).split())[:500] or f"{name} refused the request") from error
    except Exception as error:
        _log.exception("%s failed", name)
        raise Internal(f"{name} failed with {type(error).__name__}; the worker's log has the details") from error


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from None


def _served() -> Served:
    if "served" not in _state:
        raise LoadError("no model is loaded: call model_fn first")
    return _state["served"]


def _headers(context: Any) -> Mapping[str, str]:
    """The request's headers, names in lower case, from either context."""
    if isinstance(context, Headers):
        return context.values
    processors = getattr(context, "request_processor", None)
    if not processors:
        return {}
    properties = processors[0].get_request_properties()
    return {str(name).lower(): str(value) for name, value in properties.items()}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
