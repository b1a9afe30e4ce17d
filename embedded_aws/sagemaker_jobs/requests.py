"""What a request must look like, by the service's own model, and what of CreateProcessingJob is honoured here.

The service models come with botocore: required members, lengths, patterns and enumerations are AWS's own. The wording
is that of the AWS services' validation errors.
Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..clients import service_model

CONTAINER_FOLDER = "/opt/ml/processing/"


def request_faults(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """Everything about a request that the operation's model does not allow."""
    return list(_faults(service_model(service).operation_model(operation).input_shape, request, ""))


def refusal(faults: list[str]) -> str:
    """The message of a ValidationException."""
    noun = "error" if len(faults) == 1 else "errors"
    return f"{len(faults)} validation {noun} detected: {'; '.join(faults)}"


def _faults(shape: Any, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        yield from _structure_faults(shape, value, path)
    elif kind in {"list", "map"}:
        yield from _length_faults(shape, value, path, len(value))
        inner = shape.member if kind == "list" else shape.value
        for name, item in enumerate(value, 1) if kind == "list" else value.items():
            yield from _faults(inner, item, f"{path}.{name}")
    elif kind == "string":
        yield from _string_faults(shape, str(value), path)
    elif kind in {"integer", "long", "float", "double"}:
        yield from _length_faults(shape, value, path, float(value))


def _structure_faults(shape: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must be a structure"
        return
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{_joined(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name not in shape.members:
            yield f"Unknown member '{_joined(path, name)}'"
        elif item is not None:
            yield from _faults(shape.members[name], item, _joined(path, name))


def _joined(path: str, name: str) -> str:
    """A member's path as the services write it: first letter small."""
    return ".".join(part for part in (path, name[0].lower() + name[1:]) if part)


def _string_faults(shape: Any, value: str, path: str) -> Iterator[str]:
    begin = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy"
    if shape.enum and value not in shape.enum:
        yield f"{begin} enum value set: [{', '.join(shape.enum)}]"
    pattern = shape.metadata.get("pattern", "")
    # Java's classes by Unicode property are not Python's; no name or path uses them
    if pattern and r"\p{" not in pattern and not re.fullmatch(pattern, value):
        yield f"{begin} regular expression pattern: {pattern}"
    yield from _length_faults(shape, value, path, len(value))


def _length_faults(shape: Any, value: Any, path: str, size: float) -> Iterator[str]:
    what = "have value" if shape.type_name in {"integer", "long", "float", "double"} else "have length"
    begin = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {what}"
    if size < shape.metadata.get("min", float("-inf")):
        yield f"{begin} greater than or equal to {shape.metadata['min']}"
    if size > shape.metadata.get("max", float("inf")):
        yield f"{begin} less than or equal to {shape.metadata['max']}"


def unsupported(request: dict[str, Any]) -> list[str]:
    """What CreateProcessingJob takes on AWS and this machine does not honour."""
    faults = []
    if request.get("ExperimentConfig"):
        faults.append("the embedded AWS does not honour ExperimentConfig of a processing job")
    if request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] != 1:
        faults.append("the embedded AWS runs a processing job on one instance: InstanceCount must be 1")
    if not request["AppSpecification"].get("ContainerEntrypoint"):
        faults.append("the embedded AWS pulls no images: AppSpecification.ContainerEntrypoint must say what to run")
    for item in request.get("ProcessingInputs") or []:
        faults += _input_faults(item)
    for item in (request.get("ProcessingOutputConfig") or {}).get("Outputs") or []:
        faults += _output_faults(item)
    return faults


def _input_faults(item: dict[str, Any]) -> list[str]:
    name, source = item["InputName"], item.get("S3Input")
    if item.get("AppManaged") or item.get("DatasetDefinition") or not source:
        return [f"input {name}: the embedded AWS honours S3Input without AppManaged, nothing else"]
    faults = []
    for key, only in (("S3InputMode", "File"), ("S3CompressionType", "None")):
        if source.get(key, only) != only:
            faults.append(f"input {name}: the embedded AWS honours {key} {only}, not {source[key]}")
    if not str(source.get("LocalPath", "")).startswith(CONTAINER_FOLDER):
        faults.append(f"LocalPath of input {name} must begin with {CONTAINER_FOLDER}, not {source.get('LocalPath')}")
    return faults


def _output_faults(item: dict[str, Any]) -> list[str]:
    name, target = item["OutputName"], item.get("S3Output")
    if item.get("AppManaged") or item.get("FeatureStoreOutput") or not target:
        return [f"output {name}: the embedded AWS honours S3Output without AppManaged, nothing else"]
    if not str(target.get("LocalPath", "")).startswith(CONTAINER_FOLDER):
        return [f"LocalPath of output {name} must begin with {CONTAINER_FOLDER}, not {target.get('LocalPath')}"]
    return []
