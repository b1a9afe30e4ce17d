"""Access keys that this AWS issues, looked up where moto keeps them: IAM's CreateAccessKey, STS, jobs, instances.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html (a key that was deleted or
deactivated is refused), https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp.html.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.models import iam_backends
from moto.sts.models import AssumedRole, sts_backends
from moto.sts.responses import TokenResponse
from moto.sts.utils import random_session_token
from moto.utilities.utils import get_partition

from embedded_aws.clients import ACCOUNT

LIFE_SECONDS = 6 * 3600  # of a role's session on an instance; as long as on AWS, and not enforced here


def issued(key: str) -> bool:
    """Whether an access key was issued and neither deleted nor deactivated since; its expiry is not looked at."""
    for account in list(iam_backends.values()):
        for backend in list(account.values()):
            found = backend.access_keys.get(key)
            if found is not None:
                return bool(found.status == "Active")
    return False


def session(role_arn: str, name: str, region: str) -> AssumedRole:
    """A session of a role with a temporary key, as an AWS service opens one for a job or an instance."""
    return sts_backends[ACCOUNT][get_partition(region)].assume_role(
        region_name=region,
        role_session_name=name,
        role_arn=role_arn,
        policy="",
        duration=LIFE_SECONDS,
        external_id="",
    )


class Sts(TokenResponse):
    """GetSessionToken and GetFederationToken with a key that is issued; moto gives one of AWS's documentation."""

    def get_session_token(self) -> ActionResult:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html"""
        return self._issued(super().get_session_token())

    def get_federation_token(self) -> ActionResult:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html"""
        return self._issued(super().get_federation_token())

    def _issued(self, answer: ActionResult) -> ActionResult:
        shown: dict[str, Any] = dict(answer.result)  # type: ignore[call-overload]
        key = iam_backends[self.current_account][self.partition].create_temp_access_key()
        shown["Credentials"] = {
            **shown["Credentials"],
            "AccessKeyId": key.access_key_id,
            "SecretAccessKey": key.secret_access_key,
            "SessionToken": random_session_token(),
        }
        return ActionResult(shown)
