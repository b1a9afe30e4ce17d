"""A request's steps on a loaded model, and SageMaker's four functions over them.

    ModelHandler.input(body, content_type, context)  one request -> list of RequestItem
    ModelHandler.predict(items, context)             items of any number of requests -> the same, with their outputs
    ModelHandler.output(items, accept)               the items of one request -> its Reply

An item that failed travels along with its error, so one bad item fails alone. `context` is the toolkit's Context, or
the native server's `Headers`.

model_fn, input_fn, predict_fn and output_fn are the same for SageMaker's toolkit: model_fn returns a ModelHandler,
which comes back as predict_fn's `model`. Under the toolkit an error becomes status and JSON body through the context:
an exception would be answered with its traceback. Elsewhere output_fn raises the EndpointError.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from inference_code import tasks
from inference_code.artifact.manifest import ArtifactManifest
from inference_code.codecs import responses
from inference_code.codecs.json_text import JSON, json_memory
from inference_code.codecs.multipart import MULTIPART, split
from inference_code.codecs.negotiation import content_parameter, custom_attributes, media_type, parse_accept
from inference_code.codecs.responses import Reply
from inference_code.errors import (
    BadRequest,
    EndpointError,
    Internal,
    LoadError,
    TooLarge,
    UnsupportedMediaType,
    as_endpoint_error,
)
from inference_code.execution import model as runtime
from inference_code.execution.batching import ItemResult
from inference_code.generation import Call, caller
from inference_code.request import CUSTOM_ATTRIBUTES, Answer, Item, ModelInfo, Request
from inference_code.settings import Settings

__all__ = [
    "Answer",
    "Headers",
    "Item",
    "LoadedModel",
    "ModelHandler",
    "Reply",
    "Request",
    "RequestItem",
    "input_fn",
    "load",
    "model_fn",
    "output_fn",
    "predict_fn",
]


@dataclass(frozen=True)
class LoadedModel:
    """An artifact, its task, and the loaded graphs (or what a user's model_fn returned)."""

    manifest: ArtifactManifest
    info: ModelInfo
    task: tasks.Task
    model: Any

    @property
    def max_concurrency(self) -> int:
        """How many calls of the model may run at the same time: its cores; 1 for what a user's model_fn returned."""
        return int(getattr(self.model, "max_concurrency", 1))

    @property
    def batches_requests(self) -> bool:
        """Whether items of several requests may share a batch: a user's predict_fn gets one request at a time."""
        return "predict_fn" not in self.task.functions

    @property
    def has_decoding(self) -> bool:
        """Whether the task calls the model more than once an item."""
        return self.task.decode is not None and self.batches_requests


@dataclass(frozen=True)
class Headers:
    """The native server's context: the headers of one request, names in lower case."""

    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestItem:
    """One item of a request: what preprocess returned (`original`) as an Item, then the model's outputs; or its error.

    listed: the request was a list, and is answered by a list, even of one. outputs: restored, without batch axis.
    """

    request: Request
    original: Any = None
    item: Item | None = None
    error: EndpointError | None = None
    listed: bool = False
    outputs: Any = None


def load(model_dir: Path, settings: Settings) -> LoadedModel:
    """Check, load and warm up the artifact. Raises LoadError with one line."""
    manifest = runtime.open_artifact(model_dir, settings)
    info = ModelInfo.of(manifest, settings.limits)
    task = _task(model_dir, manifest)
    task.check(info)
    if "model_fn" in task.functions:
        runtime.import_extension(manifest)
        model = _load_by_user(task, manifest, str(model_dir))
    else:
        model = runtime.load(model_dir, manifest, settings)
    return LoadedModel(manifest, info, task, model)


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


class _ErrorsOf:
    """Within it, what the task's function `step` raises becomes an EndpointError; see as_endpoint_error."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, EndpointError):
            raise as_endpoint_error(error, self._step) from error


class ModelHandler:
    """The steps of a request on one loaded model, see the top of this file. Safe to use from several threads."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    def input(self, body: bytes | memoryview | str, content_type: str, context: Any = None) -> list[RequestItem]:
        """The items of one request. A request that cannot be read becomes one item with its error."""
        info = self.loaded.info
        headers = _headers(context)
        view = body.encode() if isinstance(body, str) else body
        request = Request(view, "", headers.get("accept", ""), model=info)
        try:
            if len(view) > info.limits.request_bytes:
                raise TooLarge(f"the body has {len(view)} bytes; at most {info.limits.request_bytes} are read")
            request = Request(
                view=view,
                content_type=media_type(content_type or ""),
                accept=request.accept,
                parameters=custom_attributes(headers.get(CUSTOM_ATTRIBUTES.lower(), "")),
                model=info,
            )
            parse_accept(request.accept)
            coding = headers.get("content-encoding", "identity").strip().lower()
            if coding not in ("", "identity"):
                raise UnsupportedMediaType(f"Content-Encoding {coding[:40]!r} is not read; send the body without it")
            if request.content_type == MULTIPART and "input_fn" not in self.loaded.task.functions:
                return self._read_parts(request, content_parameter(content_type, "boundary"))
            return self._read_items(request, context)
        except EndpointError as error:
            return [RequestItem(request, error=error)]

    def predict(self, items: Sequence[RequestItem], context: Any = None) -> list[RequestItem]:
        """The items with their outputs, in order; they run together, whichever requests they are of."""
        loaded = self.loaded
        if not loaded.batches_requests:
            return [self._predict_by_user(one, context) for one in items]
        if loaded.has_decoding:
            call = caller(loaded.model.scheduler)
            return with_results(items, [self.decode(item, call) for item in ready(items)])
        return with_results(items, loaded.model.scheduler.run(ready(items)))

    def decode(self, item: Item, call: Call) -> ItemResult:
        """What the task's decode returns for an item, or the EndpointError that ended it."""
        assert self.loaded.task.decode is not None  # noqa: S101  (see LoadedModel.has_decoding)
        try:
            with _ErrorsOf("decode"):
                result: ItemResult = self.loaded.task.decode(item, call)
                return result
        except EndpointError as error:
            return error

    def output(self, items: Sequence[RequestItem], accept: str | None = None) -> Reply:
        """The response of one request. `accept` overrides the request's own header."""
        try:
            return self.encode(items, accept)
        except EndpointError as error:
            return self.error_reply(error)

    def encode(self, items: Sequence[RequestItem], accept: str | None = None) -> Reply:
        """The response of one request that succeeded; see `output`. Raises EndpointError."""
        first, info = items[0], self.loaded.info
        accept = first.request.accept if accept is None else accept
        if not first.listed:
            if first.error is not None:
                raise first.error
            return responses.encode_one(self._postprocess(first, accept), accept, info)
        values: list[Any] = []
        for one in items:
            try:
                values.append(one.error or self._postprocess(one, accept))
            except EndpointError as error:
                values.append(error)
        return responses.encode_list(values, accept, info)

    def error_reply(self, error: BaseException) -> Reply:
        """The response for an exception: an EndpointError's status; 500 for any other, whose traceback is logged."""
        return responses.error_reply(as_endpoint_error(error), self.loaded.info)

    # Reading --------------------------------------------------------------------------------------------------------

    def _read_parts(self, request: Request, boundary: str) -> list[RequestItem]:
        """One item for each part of a multipart request; a part is read as if it were a request of its own."""
        parts = split(request.body, boundary, self.loaded.info.limits.items)
        if not parts:
            raise BadRequest("the request holds no items")
        items = []
        for index, part in enumerate(parts):
            try:
                single = replace(request, view=part.body, content_type=media_type(part.content_type))
                if single.content_type == MULTIPART:
                    raise BadRequest(f"part {index} is {MULTIPART} itself; a part is one item")
                with _memory(single), _ErrorsOf("preprocess"):
                    found = self.loaded.task.preprocess(single)
                if isinstance(found, list):
                    raise BadRequest(f"part {index} holds a list of items; a part is one item")
                items.append(self._request_item(single, found, listed=True))
            except EndpointError as error:
                items.append(RequestItem(request, error=error, listed=True))
        return items

    def _read_items(self, request: Request, context: Any) -> list[RequestItem]:
        functions, limit = self.loaded.task.functions, self.loaded.info.limits.items
        if "input_fn" in functions:
            as_text = request.content_type in ("application/json", "text/csv")  # what the toolkit hands over as text
            body: bytes | str = _text(request.body) if as_text else request.body
            with _memory(request), _ErrorsOf("input_fn"):
                found = call(functions["input_fn"], body, request.content_type, context=context)
        else:
            with _memory(request), _ErrorsOf("preprocess"):
                found = self.loaded.task.preprocess(request)
        if "predict_fn" in functions:
            return [RequestItem(request, found)]
        if not isinstance(found, list):
            return [self._request_item(request, found, listed=False)]
        if not found:
            raise BadRequest("the request holds no items")
        if len(found) > limit:
            raise TooLarge(f"the request has {len(found)} items; at most {limit} are read")
        return [self._request_item(request, one, listed=True) for one in found]

    def _request_item(self, request: Request, original: Any, *, listed: bool) -> RequestItem:
        if isinstance(original, EndpointError):
            return RequestItem(request, error=original, listed=listed)
        try:
            return RequestItem(request, original, self._as_item(original), listed=listed)
        except EndpointError as error:
            return RequestItem(request, original, error=error, listed=listed)

    def _as_item(self, original: Any) -> Item:
        """What preprocess may return, as an Item: an Item, a dict of arrays, or the array of a model of one input."""
        if isinstance(original, Item):
            return replace(original, inputs={name: _array(value) for name, value in original.inputs.items()})
        info = self.loaded.info
        graphs = info.graphs_of() or info.graphs_of("encoder")  # decoding begins there
        role = graphs[0].role if graphs else "main"
        if isinstance(original, Mapping):
            return Item({name: _array(value) for name, value in original.items()}, role=role)
        if graphs and len(graphs[0].inputs) == 1:
            return Item({graphs[0].inputs[0].name: _array(original)}, role=role)
        names = ", ".join(tensor.name for tensor in graphs[0].inputs) if graphs else "no role main"
        raise Internal(
            f"preprocess returned one {type(original).__name__}; the model has the inputs {names}: return a dict"
        )

    # A user's functions, and postprocess ----------------------------------------------------------------------------

    def _predict_by_user(self, one: RequestItem, context: Any) -> RequestItem:
        if one.error is not None:
            return one
        try:
            with _ErrorsOf("predict_fn"):
                function = self.loaded.task.functions["predict_fn"]
                return replace(one, outputs=call(function, one.original, self.loaded.model, context=context))
        except EndpointError as error:
            return replace(one, error=error)

    def _postprocess(self, one: RequestItem, accept: str) -> Any:
        """What stands for the item in the response: an Answer, or a value to be encoded as Accept asks."""
        task = self.loaded.task
        if "output_fn" not in task.functions:
            if "input_fn" in task.functions:  # the items are not those of our postprocess
                return one.outputs
            original = one.original
            if isinstance(original, Item) and original.context.get("accept", accept) != accept:
                original = replace(original, context={**original.context, "accept": accept})  # output_fn's comes last
            with _ErrorsOf("postprocess"):
                return task.postprocess(one.outputs, original)
        ranges = sorted(parse_accept(accept), key=lambda one: -one.quality)
        preferred = next((one.kind for one in ranges if "*" not in one.kind), "application/json")
        with _ErrorsOf("output_fn"):
            found = call(task.functions["output_fn"], one.outputs, preferred)
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], str):
            return Answer(*found)
        return Answer(found, preferred) if isinstance(found, (bytes, str)) else found


def _memory(request: Request) -> AbstractContextManager[None]:
    """Takes the memory that reading the body as JSON needs; pictures take theirs themselves, arrays none."""
    assert request.model is not None  # noqa: S101  (ModelHandler.input fills it)
    size = json_memory(request.body) if request.content_type == JSON else 0
    return request.model.limits.memory.taken(size, "the JSON body")


def ready(items: Sequence[RequestItem]) -> list[Item]:
    """The items that go to the device: those without an error."""
    return [one.item for one in items if one.error is None and one.item is not None]


def with_results(items: Sequence[RequestItem], results: Sequence[ItemResult]) -> list[RequestItem]:
    """The items with their outputs or errors, in order; `results` are those of the items of `ready`."""
    left = iter(results)
    return [_with_result(one, next(left)) if one.error is None and one.item is not None else one for one in items]


def _with_result(one: RequestItem, result: ItemResult) -> RequestItem:
    if isinstance(result, EndpointError):
        return RequestItem(one.request, one.original, one.item, result, one.listed)
    return RequestItem(one.request, one.original, one.item, None, one.listed, result)


def _array(value: Any) -> Any:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Internal(f"preprocess returned a {type(value).__name__} that is no array of numbers")
    return array


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from None


def _headers(context: Any) -> Mapping[str, str]:
    """The request's headers, names in lower case, from either context."""
    if isinstance(context, Headers):
        return context.values
    processors = getattr(context, "request_processor", None)
    if not processors:
        return {}
    properties = processors[0].get_request_properties()
    return {str(name).lower(): str(value) for name, value in properties.items()}


# SageMaker's four functions -----------------------------------------------------------------------------------------


class _Toolkit:
    """The one place that remembers a model: SageMaker's toolkit passes it to predict_fn, not to input_fn or output_fn.

    `handler` is the last that model_fn made; a container's process serves one model. The native server and Triton's
    adapter have their ModelHandler at hand, and nothing of theirs comes by here.
    """

    handler: ModelHandler | None = None

    @classmethod
    def loaded(cls) -> ModelHandler:
        if cls.handler is None:
            raise LoadError("no model is loaded: call model_fn first")
        return cls.handler


def model_fn(model_dir: str, context: Any = None) -> ModelHandler:  # noqa: ARG001  (the toolkit counts the parameters)
    """Load the artifact in `model_dir`. Raises LoadError, whose one line is also printed on stderr."""
    _Toolkit.handler = None
    try:
        _Toolkit.handler = ModelHandler(load(Path(model_dir), Settings.from_environment()))
    except LoadError as error:
        print(f"The model cannot be served: {error}", file=sys.stderr, flush=True)  # noqa: T201
        raise
    return _Toolkit.handler


def input_fn(body: bytes | memoryview | str, content_type: str, context: Any = None) -> list[RequestItem]:
    """ModelHandler.input of the model that model_fn loaded last."""
    return _Toolkit.loaded().input(body, content_type, context)


def predict_fn(items: Sequence[RequestItem], model: ModelHandler, context: Any = None) -> list[RequestItem]:
    """ModelHandler.predict; `model` is what model_fn returned."""
    return model.predict(items, context)


def output_fn(items: Sequence[RequestItem], accept: str, context: Any = None) -> tuple[bytes, str]:
    """(body, content type) of one request. Raises EndpointError where the context cannot carry a status."""
    handler = _Toolkit.loaded()
    if not hasattr(context, "set_response_status"):
        reply = handler.encode(items, None if isinstance(context, Headers) else accept)
        return reply.body, reply.content_type
    reply = handler.output(items)
    if reply.status != 200:
        context.set_response_status(code=reply.status, phrase=HTTPStatus(reply.status).phrase)
    for name, value in reply.headers.items():
        context.set_response_header(0, name, value)
    return reply.body, reply.content_type
