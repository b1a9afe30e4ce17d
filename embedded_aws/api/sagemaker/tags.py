"""Tags of what is hosted or runs here; those of every other SageMaker resource are moto's."""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult

from .request import SageMakerRequest


def _tags(request: SageMakerRequest) -> list[dict[str, str]] | None:
    """The tags of a resource of ours, or None for any other."""
    kind, _, name = request.params["ResourceArn"].rsplit(":", 1)[-1].partition("/")
    hosted, job = request.hosted, request.jobs.processing.get((request.region, name))
    if kind == "endpoint":
        return request.find(hosted.endpoints, kind, name).tags  # type: ignore[no-any-return]
    if kind == "processing-job" and job is not None:
        return job.tags
    if kind not in {"model", "endpoint-config"}:
        return None
    entry = request.find(hosted.models if kind == "model" else hosted.configs, kind, name)
    return entry.setdefault("Tags", [])  # type: ignore[no-any-return]


def list_tags(request: SageMakerRequest) -> ActionResult:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTags.html"""
    tags = _tags(request)
    return SageMakerRequest.list_tags(request) if tags is None else ActionResult({"Tags": tags})


def add_tags(request: SageMakerRequest) -> ActionResult:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html"""
    tags = _tags(request)
    if tags is None:
        return SageMakerRequest.add_tags(request)
    new = {tag["Key"] for tag in request.params["Tags"]}
    tags[:] = [tag for tag in tags if tag["Key"] not in new] + list(request.params["Tags"])
    return ActionResult({"Tags": tags})


def delete_tags(request: SageMakerRequest) -> ActionResult:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteTags.html"""
    tags = _tags(request)
    if tags is None:
        return SageMakerRequest.delete_tags(request)
    tags[:] = [tag for tag in tags if tag["Key"] not in request.params["TagKeys"]]
    return EmptyResult()


OPERATIONS = (list_tags, add_tags, delete_tags)
