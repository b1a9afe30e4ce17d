"""Bring weights from S3 to the place where a build looks for them: build/weights/SHA256."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import endpoint_spec as specs
from endpoint_spec.digests import file_digest

from .account import Account
from .errors import OperationError, WrongUseError


def fetch_weights(spec: specs.EndpointSpec, account: Account) -> Path:
    """Download the spec's s3 weights and check their digest; nothing half-downloaded stays.

    Raises:
        WrongUseError: where the spec's weights are not on S3.
        OperationError: where the object's digest is another than the spec's.
    """
    weights = spec.model.weights
    if not isinstance(weights, specs.S3Weights):
        raise WrongUseError(f"{spec.name}: model.weights is not an s3: address; there is nothing to fetch.")
    if weights.sha256 is None:
        raise WrongUseError(
            f"{spec.name}: model.weights names no sha256, so {weights.uri} could not be checked. Add it."
        )
    target = spec.root / "build" / "weights" / weights.sha256
    if target.is_file() and file_digest(target) == weights.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    address = urlsplit(weights.uri)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / "part"
        account.s3.download_file(address.netloc, address.path.lstrip("/"), str(part))
        found = file_digest(part)
        if found != weights.sha256:
            raise OperationError(
                f"{weights.uri} has sha256 {found}, the spec's model.weights names {weights.sha256}. "
                "Take the right object, or correct the spec if the new weights are meant."
            )
        part.replace(target)
    return target
