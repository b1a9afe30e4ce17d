"""Access keys that this AWS issues, looked up where moto keeps them: IAM's CreateAccessKey, STS, jobs, instances.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html (a key that was deleted or
deactivated is refused), https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp.html.
"""

from __future__ import annotations

from moto.iam.models import iam_backends
from moto.sts.models import AssumedRole, sts_backends
from moto.utilities.utils import get_partition

LIFE_SECONDS = 6 * 3600  # of a role's session on an instance; as long as on AWS, and not enforced here


def issued(account: str, key: str) -> bool:
    """Whether the account issued an access key and neither deleted nor deactivated it; its expiry is not looked at."""
    found = [backend.access_keys.get(key) for backend in list(iam_backends[account].values())]
    return any(one is not None and one.status == "Active" for one in found)


def session(account: str, role_arn: str, name: str, region: str) -> AssumedRole:
    """A session of a role with a temporary key, as an AWS service opens one for a job or an instance."""
    return sts_backends[account][get_partition(region)].assume_role(
        region_name=region,
        role_session_name=name,
        role_arn=role_arn,
        policy="",
        duration=LIFE_SECONDS,
        external_id="",
    )
