"""The manifest of an artifact: manifest.json at the top of model.tar.gz. Owned by its reader; standard library only.

It says what the artifact holds (graphs by role and bucket, the task, the handler), what it was made with (versions),
what it expects (cores, environment) and the sha256 of every other file. Paths are relative to the folder of
manifest.json, with forward slashes; only `handler` is relative to code/.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from inference_code.artifact.pytree import Flattened, Record, StructureError, check, flatten, restore

__all__ = [
    "DTYPES",
    "FILE_NAME",
    "FORMAT",
    "TARGETS",
    "ArtifactManifest",
    "Digests",
    "Flattened",
    "ManifestError",
    "PackagedVariant",
    "Record",
    "StructureError",
    "TaskEntry",
    "TensorDescription",
    "file_sha256",
    "flatten",
    "read",
    "restore",
    "to_json",
    "verify_files",
    "write",
]

FORMAT = 1
FILE_NAME = "manifest.json"
TARGETS = ("inf1", "inf2", "cpu")
# Names shared by torch and numpy. A graph's inputs and outputs have one of these.
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestError(ValueError):
    """The manifest, or the artifact that it describes, is not what it should be. The message is one line."""


@dataclasses.dataclass(frozen=True)
class TensorDescription:
    """One input or output of a graph: its full shape as compiled and its dtype (one of DTYPES).

    item_axis: the axis with one entry for each item of the batch; of an input always the first. None: an output that
    has none and goes whole to every item.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    item_axis: int | None = 0


@dataclasses.dataclass(frozen=True)
class PackagedVariant:
    """One compiled graph: a role (`main`, `encoder`, `step`, ...), for one bucket and one batch size.

    bucket: axis name to size or sizes, e.g. {"image": [518, 518]} or {"sequence": 128}.
    inputs: in the order of the graph's positional parameters. outputs: the flat tuple that it returns.
    structure: how the outputs go back into what the model returned; see inference_code.artifact.pytree.
    """

    role: str
    bucket: Mapping[str, Any]
    batch_size: int
    file: str
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    structure: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """The task that turns requests into items and outputs into answers, with its JSON-able settings."""

    name: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Digests:
    """sha256 of what was built and of the handler's code, as the lock has them."""

    build: str
    handler: str


@dataclasses.dataclass(frozen=True)
class ArtifactManifest:
    """Everything that a worker must know about its artifact.

    rehearsal: traced for the CPU, not compiled for the target.
    stand_in: made with a test's stand-in for the Neuron SDK.
    handler: the user's handler file relative to code/ (`handler/models/my_handler.py`), or None for the task alone.
    versions: package name to version; `torch` always, `torch-neuron` or `torch-neuronx` when compiled for a chip.
    cores_per_copy: NeuronCores that one loaded copy of the graphs occupies.
    separate_weights: the graphs hold their weights beside the program, so they are moved to their core after loading.
    environment: variables that the artifact expects of its container (checked by compile and spec, shown here).
    files: path to sha256, of every file but manifest.json itself.
    """

    name: str
    rehearsal: bool
    stand_in: bool
    target: str
    digests: Digests
    task: TaskEntry
    handler: str | None
    graphs: tuple[PackagedVariant, ...]
    versions: Mapping[str, str]
    cores_per_copy: int
    environment: Mapping[str, str]
    files: Mapping[str, str]
    separate_weights: bool = False
    format: int = FORMAT

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU runs the graphs: of the target cpu, or of a rehearsal of another."""
        return self.rehearsal or self.target == "cpu"


def to_json(manifest: ArtifactManifest) -> str:
    """Canonical JSON text: sorted keys, two spaces, a newline at the end.

    Raises ManifestError if it could not be read back.
    """
    try:
        text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{FILE_NAME}: cannot be written as JSON: {error}") from None
    _parse(json.loads(text), FILE_NAME)
    return text + "\n"


def write(manifest: ArtifactManifest, path: Path) -> None:
    """Write `manifest` to the file `path`, by way of a temporary name. Raises ManifestError if it is not consistent."""
    text = to_json(manifest)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)  # mkstemp gives 0600; a container may read with another user
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(model_dir: Path) -> ArtifactManifest:
    """Read manifest.json of the unpacked artifact in `model_dir`. Raises ManifestError with one clear line."""
    path = Path(model_dir) / FILE_NAME
    try:
        data = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise ManifestError(f"{path}: not there; {model_dir} is not an unpacked model.tar.gz") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also JSONDecodeError and UnicodeDecodeError
        raise ManifestError(f"{path}: is not JSON: {error}") from None
    return _parse(data, str(path))


def verify_files(manifest: ArtifactManifest, model_dir: Path) -> None:
    """Compare every file with the manifest's sha256. Raises ManifestError naming the first that differs."""
    for name, expected in sorted(manifest.files.items()):
        path = Path(model_dir) / name
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            raise ManifestError(f"{name}: in the manifest, but not in {model_dir}") from None
        except OSError as error:
            raise ManifestError(f"{name}: cannot be read: {error.strerror}") from None
        if found != expected:
            raise ManifestError(f"{name}: sha256 is {found}, the manifest says {expected}; publish the artifact again")


def file_sha256(path: Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


class _Reader:
    """Takes typed values out of one JSON object; every error names the file and the place."""

    def __init__(self, data: Any, where: str, keys: Iterable[str]) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise ManifestError(f"{where}: is {_short(data)}, not an object")
        expected = set(keys)
        for problem, names in (("missing", expected - data.keys()), ("unknown", data.keys() - expected)):
            if names:
                raise ManifestError(f"{where}: {problem} key {', '.join(sorted(names))}")
        self.data: dict[str, Any] = data

    def fail(self, key: str, wanted: str) -> ManifestError:
        return ManifestError(f"{self.where}: {key} is {_short(self.data[key])}, it must be {wanted}")

    def text(self, key: str) -> str:
        value = self.data[key]
        if not isinstance(value, str) or not value:
            raise self.fail(key, "a text that is not empty")
        return value

    def flag(self, key: str) -> bool:
        value = self.data[key]
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def positive(self, key: str) -> int:
        value = self.data[key]
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        raise self.fail(key, "a whole number, at least 1")

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in allowed:
            raise self.fail(key, f"one of {', '.join(allowed)}")
        return value

    def digest(self, key: str) -> str:
        value = self.data[key]
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise self.fail(key, "a sha256 in 64 lower-case hexadecimal digits")
        return value

    def path(self, key: str) -> str:
        value = self.text(key)
        if not _is_inside(value):
            raise self.fail(key, "a relative path inside the artifact")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.data[key]
        if not isinstance(value, dict):
            raise self.fail(key, "an object")
        return value

    def texts(self, key: str) -> dict[str, str]:
        value = self.mapping(key)
        if not all(isinstance(entry, str) for entry in value.values()):
            raise self.fail(key, "an object of texts")
        return value

    def items(self, key: str) -> list[Any]:
        value = self.data[key]
        if not isinstance(value, list) or not value:
            raise self.fail(key, "a list that is not empty")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _parse(data: Any, where: str) -> ArtifactManifest:
    if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
        raise ManifestError(f"{where}: format is {_short(data['format'])}, this code reads format {FORMAT}")
    if isinstance(data, dict):  # artifacts made before the key was there have their weights in the program
        data = {"separate_weights": False, **data}
    reader = _Reader(data, where, _names(ArtifactManifest))
    task = _Reader(reader.data["task"], f"{where}: task", _names(TaskEntry))
    digests = _Reader(reader.data["digests"], f"{where}: digests", _names(Digests))
    manifest = ArtifactManifest(
        format=reader.positive("format"),
        name=reader.text("name"),
        rehearsal=reader.flag("rehearsal"),
        stand_in=reader.flag("stand_in"),
        separate_weights=reader.flag("separate_weights"),
        target=reader.one_of("target", TARGETS),
        digests=Digests(build=digests.digest("build"), handler=digests.digest("handler")),
        task=TaskEntry(name=task.text("name"), settings=task.mapping("settings")),
        handler=None if reader.data["handler"] is None else reader.path("handler"),
        graphs=tuple(_graph(g, f"{where}: graphs[{i}]") for i, g in enumerate(reader.items("graphs"))),
        versions=reader.texts("versions"),
        cores_per_copy=reader.positive("cores_per_copy"),
        environment=reader.texts("environment"),
        files=_files(reader),
    )
    _cross_check(manifest, where)
    return manifest


def _files(reader: _Reader) -> dict[str, str]:
    files = _Reader(reader.data["files"], f"{reader.where}: files", reader.mapping("files"))
    for name in files.data:
        if not _is_inside(name) or name == FILE_NAME:
            raise ManifestError(f"{files.where}: {name!r} is not a relative path of another file inside the artifact")
        files.digest(name)
    return files.data


def _graph(data: Any, where: str) -> PackagedVariant:
    reader = _Reader(data, where, _names(PackagedVariant))
    graph = PackagedVariant(
        role=reader.text("role"),
        bucket=reader.mapping("bucket"),
        batch_size=reader.positive("batch_size"),
        file=reader.path("file"),
        inputs=tuple(_tensor(t, f"{where}: inputs[{i}]") for i, t in enumerate(reader.items("inputs"))),
        outputs=tuple(_tensor(t, f"{where}: outputs[{i}]") for i, t in enumerate(reader.items("outputs"))),
        structure=reader.mapping("structure"),
    )
    try:
        check(graph.structure, len(graph.outputs))
    except StructureError as error:
        raise ManifestError(f"{where}: structure: {error}") from None
    for kind, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise ManifestError(f"{where}: {kind}: two have one name: {[tensor.name for tensor in tensors]}")
    for kind, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        for tensor in tensors:
            axis = tensor.item_axis
            if axis is None and kind == "outputs":
                continue
            if axis is None or (kind == "inputs" and axis != 0):
                raise ManifestError(f"{where}: {kind}: item_axis of {tensor.name} is {axis}, of an input it must be 0")
            if tensor.shape[axis : axis + 1] != (graph.batch_size,):
                raise ManifestError(
                    f"{where}: {kind}: {tensor.name} has shape {list(tensor.shape)}, "
                    f"its axis {axis} must be the batch size {graph.batch_size}"
                )
    return graph


def _tensor(data: Any, where: str) -> TensorDescription:
    reader = _Reader(data, where, _names(TensorDescription))
    shape = reader.data["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise reader.fail("shape", "a list of whole numbers")
    axis = reader.data["item_axis"]
    if axis is not None and (type(axis) is not int or axis < 0):
        raise reader.fail("item_axis", "a whole number from 0 on, or null")
    return TensorDescription(reader.text("name"), tuple(shape), reader.one_of("dtype", DTYPES), axis)


def _cross_check(manifest: ArtifactManifest, where: str) -> None:
    """What must agree between the parts: files of graphs and handler are listed, no two graphs are for one case."""
    seen: dict[str, str] = {}
    for graph in manifest.graphs:
        if graph.file not in manifest.files:
            raise ManifestError(f"{where}: graph {graph.file} is not among the files")
        case = f"{graph.role} {json.dumps(graph.bucket, sort_keys=True)} batch {graph.batch_size}"
        if case in seen:
            raise ManifestError(f"{where}: two graphs for {case}: {seen[case]} and {graph.file}")
        seen[case] = graph.file
    if manifest.handler is not None and f"code/{manifest.handler}" not in manifest.files:
        raise ManifestError(f"{where}: handler code/{manifest.handler} is not among the files")
    if "torch" not in manifest.versions:
        raise ManifestError(f"{where}: versions has no torch")
