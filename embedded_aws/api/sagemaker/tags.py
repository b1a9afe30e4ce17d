"""Tags of what is hosted or runs here; those of every other SageMaker resource are moto's."""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult

from .request import SageMakerRequest


class Tags(SageMakerRequest):
    """Tags of what is hosted or runs here."""

    def list_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTags.html"""
        tags = _tags(self)
        return super().list_tags() if tags is None else ActionResult({"Tags": tags})

    def add_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html"""
        tags = _tags(self)
        if tags is None:
            return super().add_tags()
        new = {tag["Key"] for tag in self.params["Tags"]}
        tags[:] = [tag for tag in tags if tag["Key"] not in new] + list(self.params["Tags"])
        return ActionResult({"Tags": tags})

    def delete_tags(self) -> ActionResult:
        """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteTags.html"""
        tags = _tags(self)
        if tags is None:
            return super().delete_tags()
        tags[:] = [tag for tag in tags if tag["Key"] not in self.params["TagKeys"]]
        return EmptyResult()


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
