"""STS: sessions with keys that are issued, of roles of this account only.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.models import iam_backends
from moto.sts.responses import TokenResponse
from moto.sts.utils import random_session_token

from ..errors import AwsError


class Sts(TokenResponse):
    """GetSessionToken and GetFederationToken with a key that is issued; moto gives one of AWS's documentation."""

    def assume_role(self) -> ActionResult:
        """A role of another account does not exist here; moto would open a session in that account.

        Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
        """
        self._check_role()
        return super().assume_role()

    def assume_role_with_web_identity(self) -> ActionResult:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html"""
        self._check_role()
        return super().assume_role_with_web_identity()

    def assume_role_with_saml(self) -> ActionResult:
        """Refused: moto takes the role from the assertion, which nobody here has signed."""
        raise AwsError("AccessDenied", "the embedded AWS does not honour AssumeRoleWithSAML")

    def _check_role(self) -> None:
        role = str(self._get_param("RoleArn"))
        if role.split(":")[4:5] != [self.current_account]:
            text = (
                f"is not authorized to perform: sts:AssumeRole on resource: {role}: no role of {self.current_account}"
            )
            raise AwsError("AccessDenied", f"{self.access_key} {text}")

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
