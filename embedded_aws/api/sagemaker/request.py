"""What every SageMaker operation has: the request's parameters, its server's state, names and ARNs."""

from __future__ import annotations

import re
from typing import Any

from moto.sagemaker.responses import SageMakerResponse

from ...context import WithContext
from ...errors import AwsError
from ...hosting.hosted import Hosted
from ...sagemaker_jobs.jobs import Jobs

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")  # the pattern of all three names in the API reference


class RequestError(AwsError):
    """SageMaker's answer to a request that cannot be right."""

    code = "ValidationException"


class SageMakerRequest(WithContext, SageMakerResponse):
    """One request to SageMaker's control plane."""

    @property
    def hosted(self) -> Hosted:
        """The hosting of the request's region."""
        return self.context.hosted[self.region]

    @property
    def jobs(self) -> Jobs:
        """The jobs of this server."""
        return self.context.jobs

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a resource."""
        return f"arn:{self.partition}:sagemaker:{self.region}:{self.current_account}:{kind}/{name}"

    def new_name(self, key: str, kind: str, taken: Any) -> str:
        """The name that a creating request gives. Raises RequestError when it cannot be one or is taken."""
        name = str(self.params[key])
        if not NAME.fullmatch(name):
            raise RequestError(f"Value '{name}' at '{key}' failed to satisfy constraint: {NAME.pattern}")
        if name in taken:
            raise RequestError(f'Cannot create already existing {kind} "{self.arn(kind, name)}".')
        return name

    def find(self, table: dict[str, Any], kind: str, name: str) -> Any:
        """A resource by its name. Raises RequestError when there is none."""
        if name not in table:
            called = kind.replace("-config", " configuration")
            raise RequestError(f'Could not find {called} "{self.arn(kind, name)}".')
        return table[name]
