"""What the stacks of one endpoint have in common."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from constructs import Construct

from endpoint_spec import EndpointSpec

from ..constructs.labels import add_tags
from ..deployment import Deployment
from ..refusal import refuse_deployment
from .artifacts import ArtifactsStack


class SpecStack(Stack):
    """Beside the stack with the artifacts, tagged as the spec says. With problems, deploying it is refused."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        spec: EndpointSpec,
        description: str,
        problems: Sequence[str],
        artifacts: ArtifactsStack,
        deployment: Deployment,
    ) -> None:
        super().__init__(
            scope, construct_id, stack_name=construct_id, env=deployment.environment, description=description
        )
        # Also where nothing in it refers to the artifacts: `cdk destroy --all` has to take this stack first.
        self.add_stack_dependency(artifacts)
        if problems:
            refuse_deployment(self, problems)
        add_tags(self, spec.tags, rehearsal=deployment.rehearsal)
