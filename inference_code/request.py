"""What goes in and out of a task: Request -> Item -> (the model) -> Answer. A user's handler uses the same types."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from inference_code.artifact.manifest import ArtifactManifest, PackagedVariant
from inference_code.settings import Limits

Array = npt.NDArray[Any]

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@dataclass(frozen=True)
class ModelInfo:
    """What a task may know of the model: its graphs, the task's settings, the limits, whether it is a rehearsal."""

    name: str
    settings: Mapping[str, Any]
    graphs: tuple[PackagedVariant, ...]
    limits: Limits = field(default_factory=Limits)
    rehearsal: bool = False
    stand_in: bool = False

    @classmethod
    def of(cls, manifest: ArtifactManifest, limits: Limits | None = None) -> ModelInfo:
        """The info of an artifact."""
        return cls(
            name=manifest.name,
            settings=manifest.task.settings,
            graphs=manifest.graphs,
            limits=limits or Limits(),
            rehearsal=manifest.rehearsal,
            stand_in=manifest.stand_in,
        )

    @property
    def metadata(self) -> dict[str, bool]:
        """What every answer must say: {"rehearsal": True} and {"stand_in": True} where they are so, else nothing."""
        marks = {"rehearsal": self.rehearsal, "stand_in": self.stand_in}
        return {name: True for name, is_so in marks.items() if is_so}

    def graphs_of(self, role: str = "main") -> tuple[PackagedVariant, ...]:
        """The graphs of one role, in the manifest's order."""
        return tuple(graph for graph in self.graphs if graph.role == role)


@dataclass(frozen=True)
class Request:
    """One request as it arrived.

    view: the body as the server holds it; a large one is a memoryview on memory that is this request's own.
    body: the same as bytes; of a large one that is a copy, made when it is first asked for.
    content_type: media type in lower case, without parameters ("" when absent). accept: the whole Accept header.
    parameters: of the custom-attributes header, e.g. {"size": "model"}; parameters of Accept come by negotiation.
    model: what is being served (None only where a test calls a handler by hand).
    """

    view: bytes | memoryview
    content_type: str = ""
    accept: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    model: ModelInfo | None = None

    @functools.cached_property
    def body(self) -> bytes:
        """The body as bytes."""
        return bytes(self.view)


@dataclass(frozen=True)
class Item:
    """What the model answers once: arrays without a batch axis, by input name, and what postprocess needs to know.

    A preprocess may also return a lone array (a model of one input), a dict of arrays, or a list of any of these for
    a request of several items; an EndpointError in such a list marks the place that failed.

    padding: the inputs that may be smaller than the graph's, and the value that fills them up at the end of their axes;
    the smallest bucket that holds the item is used. cut: what that adds to outputs and is taken off again: output name
    to {axis: length}, axes counted without the batch axis.

    aspect_distortion: for an image that was resized, by which factor minus 1 one side was stretched against the other;
    a metric.
    """

    inputs: Mapping[str, Array]
    context: Mapping[str, Any] = field(default_factory=dict)
    role: str = "main"
    padding: Mapping[str, float] = field(default_factory=dict)
    cut: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    aspect_distortion: float | None = None


@dataclass(frozen=True)
class Answer:
    """An answer with its media type.

    value: bytes or text are sent as they are; anything else is encoded as content_type says (JSON or npy).
    content_type: None lets Accept decide among what the value can become.
    alternatives: for the error message when the body exceeds the payload limit.
    """

    value: Any
    content_type: str | None = None
    alternatives: str = "ask for less, or for application/x-npy, which takes 4 bytes for each float32"
