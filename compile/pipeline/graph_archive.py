"""A compiled variant as one file: its graphs and everything that a build says of them, each with its sha256.

variant.tar holds variant.json first, then artifact/ (the graph as it is served), cpu/ (the same graph for this CPU,
where the target's own does not run here) and record/ (the compiler's log). A build that has it goes on as if it had
compiled the variant itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compile.analysis.capacity import VariantSize
from compile.definition import GraphVariant
from compile.errors import CompileError
from compile.files import place, staging
from compile.frontend.weights import WeightsReport
from compile.ir.flat_module import Signature
from compile.packaging import archive
from compile.pipeline.graph import COMPARISON, BuiltVariant, Places
from compile.targets import CompilerOutput, Cost
from compile.verification.parity import OutputParity, Parity
from compile.verification.tolerance import Closeness
from endpoint_spec import archives
from endpoint_spec.digests import canonical
from endpoint_spec.jobs import tree_digests
from inference_code.artifact.manifest import TensorDescription

_DESCRIPTION = "variant.json"
_ARTIFACT, _CPU, _RECORD = "artifact", "cpu", "record"
# Of a record what says how it went; the compiler's own work directory can be many times the graph.
_KEPT = ("compile.log", "cost.json", COMPARISON, "request.json", "result.json")
_CHECKSUM = "checksum"


@dataclass(frozen=True)
class CompiledVariant:
    """A finished graph with what a build needs besides: where and from what it was made, and how large it is.

    versions: of everything that compiled it. footprint: None in a rehearsal, where nothing has to fit.
    """

    key: str
    graph: BuiltVariant
    versions: Mapping[str, str]
    weights: WeightsReport
    rehearsal: bool
    stand_in: bool
    footprint: VariantSize | None


def storable(graph: BuiltVariant) -> bool:
    """Whether a graph is worth keeping: it equals the original, and everything measured of it is a number."""
    device = [value for found in (graph.device or {}).values() for value in found.to_json().values()]
    return graph.parity.passed and all(map(math.isfinite, device))


def pack(compiled: CompiledVariant, places: Places, file: Path) -> None:
    """Writes a variant whose graphs lie in `places` to `file`, which appears when it is whole."""
    with staging(file.parent.parent) as scratch:
        folder, draft = scratch / "variant", scratch / file.name
        _collect(compiled.graph, places, folder)
        said = {**_to_json(compiled), "files": tree_digests(folder)}
        (folder / _DESCRIPTION).write_text(canonical({**said, _CHECKSUM: _checksum(said)}), encoding="utf-8")
        archive.write_tar(folder, draft)
        place([(draft, file)])


def _collect(graph: BuiltVariant, places: Places, folder: Path) -> None:
    name = graph.variant.file
    _copy(places.artifact / name, folder / _ARTIFACT / name)
    if (places.cpu / name).is_file():
        _copy(places.cpu / name, folder / _CPU / name)
    record = graph.compiled.record
    for kept in _KEPT if record is not None else ():
        if record is not None and (record / kept).is_file():
            _copy(record / kept, folder / _RECORD / kept)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def unpack(file: Path, key: str, variant: GraphVariant, places: Places) -> CompiledVariant:
    """Puts a variant's graphs into `places`, its record too, and returns what it says.

    Raises CompileError in one line when the file is missing, damaged, or of another variant.
    """
    folder = places.artifact.parent / f".variant-{key[:16]}"
    try:
        said = _verified(file, folder)
        if said["key"] != key or canonical(said["variant"]) != canonical(_variant(variant)):
            raise CompileError(
                f"{file} is the variant {said['variant']} with the key {said['key']}, not {variant} with {key}."
            )
        compiled = _from_json(said, variant, places.record / variant.slug)
        for part, home in ((_ARTIFACT, places.artifact), (_CPU, places.cpu), (_RECORD, places.record / variant.slug)):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, home, dirs_exist_ok=True)
        return compiled
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError(f"{file} is damaged: {type(error).__name__}: {error}.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _verified(file: Path, folder: Path) -> dict[str, Any]:
    """What variant.json says, after every file was found and has its digest."""
    try:
        archives.extract(file, folder, compressed=False)
        said = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise CompileError(f"{file} cannot be read: {missing} is not there.") from None
    except (OSError, archives.ArchiveError) as error:
        raise CompileError(f"{file} is damaged: {error}.") from None
    checksum = said.pop(_CHECKSUM)
    if checksum != _checksum(said):
        raise CompileError(f"{file} is damaged: {_DESCRIPTION} has another checksum than it says.")
    (folder / _DESCRIPTION).unlink()
    found = tree_digests(folder)
    wrong = sorted({*found.items()} ^ {*said["files"].items()})
    if wrong:
        raise CompileError(f"{file} is damaged: {wrong[0][0]} is missing, unexpected, or has another sha256.")
    return dict(said)


def _checksum(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(dict(said)).encode()).hexdigest()


def _to_json(compiled: CompiledVariant) -> dict[str, Any]:
    graph, output = compiled.graph, compiled.graph.compiled
    return {
        "key": compiled.key,
        "versions": dict(compiled.versions),
        "weights": asdict(compiled.weights),
        "rehearsal": compiled.rehearsal,
        "stand_in": compiled.stand_in,
        "footprint": asdict(compiled.footprint) if compiled.footprint else None,
        "variant": _variant(graph.variant),
        "signature": {
            "inputs": [asdict(tensor) for tensor in graph.signature.inputs],
            "outputs": [asdict(tensor) for tensor in graph.signature.outputs],
            "structure": graph.signature.structure,
        },
        "parity": asdict(graph.parity),
        "unused_inputs": graph.unused_inputs,
        "coverage": graph.coverage,
        "subgraphs": graph.subgraphs,
        "cost": asdict(output.cost) if output.cost else None,
        "comparison": output.comparison,
        "recorded": output.record is not None,
        "device": {name: asdict(found) for name, found in graph.device.items()} if graph.device is not None else None,
    }


def _variant(variant: GraphVariant) -> dict[str, Any]:
    return {"role": variant.role, "bucket": dict(variant.bucket), "batch": variant.batch}


def _from_json(said: Mapping[str, Any], variant: GraphVariant, record: Path) -> CompiledVariant:
    device, cost, footprint = said["device"], said["cost"], said["footprint"]
    graph = BuiltVariant(
        variant=variant,
        signature=_signature(said["signature"]),
        parity=_parity(said["parity"]),
        unused_inputs=said["unused_inputs"],
        coverage=said["coverage"],
        subgraphs=said["subgraphs"],
        compiled=CompilerOutput(
            cost=Cost(**cost) if cost else None,
            comparison=said["comparison"],
            record=record if said["recorded"] else None,
        ),
        device={name: Closeness(**found) for name, found in device.items()} if device is not None else None,
    )
    return CompiledVariant(
        key=said["key"],
        graph=graph,
        versions=said["versions"],
        weights=WeightsReport(**said["weights"]),
        rehearsal=said["rehearsal"],
        stand_in=said["stand_in"],
        footprint=VariantSize(**footprint) if footprint else None,
    )


def _signature(said: Mapping[str, Any]) -> Signature:
    return Signature(_tensors(said["inputs"]), _tensors(said["outputs"]), said["structure"])


def _tensors(said: Sequence[Mapping[str, Any]]) -> tuple[TensorDescription, ...]:
    return tuple(TensorDescription(tensor["name"], tuple(tensor["shape"]), tensor["dtype"]) for tensor in said)


def _parity(said: Mapping[str, Any]) -> Parity:
    return Parity(said["inputs"], [OutputParity(**output) for output in said["outputs"]], list(said["notes"]))
