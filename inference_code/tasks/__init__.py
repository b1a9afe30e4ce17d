"""Tasks: what stands between a request and the model's arrays, and between its outputs and the answer.

A task is two functions, `preprocess(request) -> item` and `postprocess(outputs, item) -> answer`; one whose model is
called more than once an item has a third between them, `decode(item, call) -> outputs` (see inference_code.generation).
The built-in ones are files of this folder; a user's handler is such a file too, and is loaded the same way. To add one:
write the file, call `register` at its end, import it in `built_in`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from inference_code.errors import LoadError
from inference_code.request import Answer, Item, ModelInfo, Request

__all__ = [
    "SAGEMAKER",
    "Answer",
    "Item",
    "ModelInfo",
    "Request",
    "Task",
    "built_in",
    "from_file",
    "get",
    "reason",
    "register",
]

SAGEMAKER = ("model_fn", "input_fn", "predict_fn", "output_fn")
_WARM_UP = "model_warmup_fn"
_MODULE = "endpoint_handler"
_BUILT_IN = (
    "depth_estimation",
    "image_classification",
    "image_to_text",
    "object_detection",
    "tensor",
    "text2text_generation",
)


def _nothing_to_check(_: ModelInfo) -> None:
    """A task without settings of its own."""


@dataclass(frozen=True)
class Task:
    """How requests become items and outputs become answers.

    preprocess(request) returns one item, or a list of items for a request of several.
    postprocess(outputs, item) gets what the model returned for the item (restored, numpy arrays without batch axis)
    and the very object that preprocess returned; it returns an Answer, or a value to be encoded as Accept asks.
    check(info) raises LoadError for settings or graphs that the task cannot work with.
    decode(item, call) calls the graphs as often as it takes and returns what postprocess gets; without it the item goes
    to the device once.
    functions: SageMaker's functions of a user's handler; each one that is there replaces ours.
    """

    name: str
    preprocess: Callable[[Request], Any]
    postprocess: Callable[[Any, Any], Any]
    check: Callable[[ModelInfo], None] = _nothing_to_check
    decode: Callable[[Any, Any], Any] | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


_REGISTRY: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make `task` known by its name. Raises ValueError for a name that is taken."""
    if task.name in _REGISTRY:
        raise ValueError(f"there is a task {task.name!r} already")
    _REGISTRY[task.name] = task
    return task


def built_in() -> dict[str, Task]:
    """The registered tasks by name; the files of this folder among them."""
    for name in _BUILT_IN:
        importlib.import_module(f"{__name__}.{name}")
    return dict(_REGISTRY)


def get(name: str) -> Task:
    """The registered task `name`. Raises LoadError naming those that there are."""
    known = built_in()
    if name not in known:
        raise LoadError(f"there is no task {name!r}; there are {', '.join(sorted(known))}, or a handler of your own")
    return known[name]


def from_file(path: Path, root: Path | None = None) -> Task:
    """The task in a user's handler file.

    It defines preprocess and postprocess (and decode, if the model is called more than once an item), or any of
    SageMaker's four functions (model_fn, input_fn, predict_fn, output_fn; with model_fn also model_warmup_fn). Modules
    beside it and below `root` can be imported by it.
    Raises LoadError with the reason when the file cannot be imported or defines neither.
    """
    module = _import(path, root)
    found = {name: getattr(module, name) for name in (*SAGEMAKER, _WARM_UP) if callable(getattr(module, name, None))}
    pair = [name for name in ("preprocess", "postprocess") if callable(getattr(module, name, None))]
    problem = _misfit(found, pair)
    if problem:
        raise LoadError(f"{path.name} defines {problem}")
    if pair:
        return Task(path.stem, module.preprocess, module.postprocess, decode=getattr(module, "decode", None))
    tensor = get("tensor")
    return Task(path.stem, tensor.preprocess, tensor.postprocess, functions=found)


def _misfit(found: Mapping[str, Any], pair: list[str]) -> str | None:
    """Why these functions are no handler, or None."""
    if pair and found:
        return f"{pair[0]} and {next(iter(found))}: use one of the two forms of a handler"
    if len(pair) == 1:
        return f"{pair[0]}, but not {'postprocess(outputs, item)' if pair == ['preprocess'] else 'preprocess(request)'}"
    if not pair and not set(found) & set(SAGEMAKER):
        return f"neither preprocess and postprocess nor any of {', '.join(SAGEMAKER)}"
    if "model_fn" in found and "predict_fn" not in found:
        return "model_fn without predict_fn: only it can know how to call that model"
    if "predict_fn" in found and "input_fn" not in found:
        return "predict_fn without input_fn: only it can make what predict_fn takes"
    return None


def _import(path: Path, root: Path | None) -> ModuleType:
    folders = [str(folder) for folder in dict.fromkeys((path.parent, root or path.parent))]
    # In front, as Python does it for a script: a sibling is found before an installed module of the same name.
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    name = _module_name(path, root)
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None or not path.is_file():
        raise LoadError(f"the handler {path} is not a Python file that is there")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise LoadError(f"the handler {path.name} cannot be imported: {reason(error)}") from error
    return module


def _module_name(path: Path, root: Path | None) -> str:
    """The dotted name of a file in a folder below `root`, which its relative imports start from; else a fixed one."""
    inside = path.relative_to(root).with_suffix("").parts if root is not None and root in path.parents else ()
    return ".".join(inside) if len(inside) > 1 and all(part.isidentifier() for part in inside) else _MODULE


def reason(error: BaseException) -> str:
    """An exception in one line: its type, its message, and the file and line that raised it."""
    message = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{place}"
