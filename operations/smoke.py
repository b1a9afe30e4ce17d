"""Send an endpoint the lock's sample and compare the answer with what the build saw."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from botocore.exceptions import ClientError

from endpoint_spec import built_images, derive
from endpoint_spec.lock import SampleAnswer, SampleRequest

from .account import Account, code_of
from .errors import OperationError
from .locked import Locked, guard

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeEndpointOutputTypeDef


@dataclass(frozen=True)
class Smoke:
    """Compared answers, the worst of them: errors are absolute, the round trip is that of the first, which was alone,
    in milliseconds as seen from this machine. beside: how many answers were given while other requests were there.
    """

    name: str
    compared: int
    error: float
    tolerance: float
    milliseconds: float
    variant: str
    beside: int = 0

    @property
    def passed(self) -> bool:
        """Whether every compared number is within the tolerance."""
        return self.error <= self.tolerance


def compare_array(body: bytes, expected: SampleAnswer) -> tuple[int, float]:
    """Compare an .npy answer at the positions the lock holds; return how many, and the largest absolute error."""
    try:
        found = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise OperationError(f"the answer is not a readable .npy array ({error}).") from error
    shape = list(expected.shape or ())
    if list(found.shape) != shape or str(found.dtype) != expected.dtype:
        raise OperationError(
            f"the answer is {found.dtype}{list(found.shape)}, the build's was {expected.dtype}{shape}."
        )
    values = found.reshape(-1)[list(expected.positions or ())].astype(np.float64)
    difference = np.abs(values - np.asarray(expected.values, dtype=np.float64))
    # A NaN where a number should be is never within any tolerance.
    return difference.size, math.inf if np.isnan(difference).any() else float(difference.max(initial=0.0))


def compare_json(found: Any, expected: Any, where: str = "answer") -> tuple[int, float]:
    """Compare two JSON values of equal structure; return how many numbers, and the largest absolute error.

    Raises:
        OperationError: naming the first place where structure or text differ.
    """
    if isinstance(expected, (bool, str)) or expected is None:
        if found != expected:
            raise OperationError(f"{where} is {found!r}, the build's was {expected!r}.")
        return 0, 0.0
    if isinstance(expected, (int, float)):
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise OperationError(f"{where} is {found!r}, the build's was the number {expected!r}.")
        difference = abs(float(found) - float(expected))
        return 1, math.inf if math.isnan(difference) else difference
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            raise OperationError(f"{where} has other keys than the build's {sorted(expected)}.")
        parts = [compare_json(found[key], value, f"{where}.{key}") for key, value in expected.items()]
    else:
        if not isinstance(found, list) or len(found) != len(expected):
            raise OperationError(f"{where} is not a list of {len(expected)} as in the build.")
        parts = [compare_json(found[index], value, f"{where}[{index}]") for index, value in enumerate(expected)]
    return sum(count for count, _ in parts), max((error for _, error in parts), default=0.0)


def compare(body: bytes, content_type: str, expected: SampleAnswer) -> tuple[int, float]:
    """Compare an answer with the lock's; return how many numbers, and the largest absolute error."""
    if content_type.partition(";")[0].strip() != expected.content_type.partition(";")[0].strip():
        raise OperationError(f"the answer is {content_type}, the build's was {expected.content_type}.")
    if expected.positions is not None:
        return compare_array(body, expected)
    try:
        found = json.loads(body)
    except ValueError as error:
        raise OperationError(f"the answer is not JSON ({error}).") from error
    return compare_json(found, expected.json_value)


def smoke(locked: Locked, account: Account) -> Smoke:
    """Invoke the deployed endpoint with the lock's sample: alone, and where it batches, among other requests.

    Raises:
        OperationError: no sample in the lock, endpoint not in service or not what spec and lock say, an error from the
            container, or an answer of another kind. A wrong number is no exception: see `Smoke.passed`.
    """
    lock = locked.lock
    guard(account, lock)
    if lock.sample is None:
        raise OperationError(f"the lock of {lock.name} holds no sample: its model's definition has none.")
    require_in_service(lock.name, account)
    require_deployed(locked, account)
    request, expected = lock.sample.request, lock.sample.answer
    started = time.perf_counter()
    body, kind, variant = invoke(lock.name, account, request, request.body)
    milliseconds = (time.perf_counter() - started) * 1e3
    compared, worst = compare(body, kind, expected)
    batch = max(graph.batch_size for graph in lock.graphs)
    bodies = [request.body, request.neighbour or request.body] * batch if batch > 1 else []
    with ThreadPoolExecutor(max(1, len(bodies))) as pool:
        answers = list(pool.map(lambda body: invoke(lock.name, account, request, body), bodies))
    for body, kind, _ in answers[::2]:
        more, error = compare(body, kind, expected)
        compared, worst = compared + more, max(worst, error)
    return Smoke(lock.name, compared, worst, expected.tolerance, milliseconds, variant, len(answers[::2]))


def invoke(name: str, account: Account, request: SampleRequest, body: str) -> tuple[bytes, str, str]:
    """The answer's body, its kind, and the production variant that gave it. body: base64."""
    try:
        answer = account.runtime.invoke_endpoint(
            EndpointName=name,
            ContentType=request.content_type,
            Accept=request.accept,
            Body=base64.b64decode(body),
        )
    except ClientError as error:
        raise OperationError(explain_model_error(name, error)) from error
    return answer["Body"].read(), answer["ContentType"], answer.get("InvokedProductionVariant", "")


def describe(name: str, account: Account) -> DescribeEndpointOutputTypeDef:
    """DescribeEndpoint; raises OperationError where there is no such endpoint."""
    try:
        return account.sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        raise OperationError(
            f'endpoint {name} does not exist. Deploy it: "cdk deploy InferentiaEndpoint-{name}".'
        ) from error


def require_in_service(name: str, account: Account) -> None:
    """Refuse an endpoint that does not exist or cannot answer."""
    description = describe(name, account)
    status = description["EndpointStatus"]
    if status not in ("InService", "Updating"):
        reason = description.get("FailureReason", "no reason given")
        raise OperationError(f"endpoint {name} is {status}: {reason}")


def require_deployed(locked: Locked, account: Account) -> None:
    """Walk from the endpoint to its configuration and model, and hold them against spec and lock.

    While it is updated the configuration is the one before, and nothing is compared.

    Raises:
        OperationError: an update that SageMaker took back, which leaves the endpoint InService with a FailureReason
            (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html), or another model data
            address, image or environment, each with both values.
    """
    name = locked.lock.name
    description = describe(name, account)
    if description["EndpointStatus"] != "InService":
        return
    if "FailureReason" in description:
        raise OperationError(
            f"endpoint {name} is InService with {description['EndpointConfigName']}, the configuration before its last "
            f"update, which SageMaker took back: {description['FailureReason']}"
        )
    config = account.sagemaker.describe_endpoint_config(EndpointConfigName=description["EndpointConfigName"])
    names = [variant["ModelName"] for variant in config["ProductionVariants"]]
    model = account.sagemaker.describe_model(ModelName=names[0])
    found = _flat(dict(model["PrimaryContainer"]))
    wanted = _flat(_container(locked, account))
    rows = [
        f"{key} is {found.get(key, 'not there')}, not {wanted.get(key, 'there')}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]
    if len(names) != 1:
        rows.insert(0, f"it has {len(names)} variants, not 1")
    if rows:
        raise OperationError(
            f"endpoint {name} serves something else than spec and lock say: {'; '.join(rows)}. Somebody pointed it "
            f'elsewhere (configuration {description["EndpointConfigName"]}), or it was not deployed since: "cdk deploy '
            f'InferentiaEndpoint-{name}".'
        )


def _container(locked: Locked, account: Account) -> dict[str, Any]:
    """What the stack gives the model, of what is compared."""
    spec, lock, region = locked.spec, locked.lock, account.sagemaker.meta.region_name
    image = derive.container_image(spec)
    built, unbuilt = (None, []) if lock.rehearsal else built_images.find(spec.root, image, lock.name)
    if unbuilt:
        raise OperationError(" ".join(unbuilt))
    environment = derive.worker_environment(spec, lock) | derive.neuron_monitor_environment(spec, region)
    return {
        "ModelDataUrl": f"s3://{account.artifact_bucket}/{lock.artifact.key}",
        "Image": f"/{built_images.reference(image, built)}",
        "Environment": environment,
    }


def _flat(container: dict[str, Any]) -> dict[str, str]:
    """Address, image without its registry, and each variable of the environment."""
    image = str(container["Image"])
    variables = {f"Environment.{key}": value for key, value in (container.get("Environment") or {}).items()}
    address = {"ModelDataUrl": container.get("ModelDataUrl", ""), "Image": image[image.index("/") :]}
    return {**address, **variables}


def explain_model_error(name: str, error: ClientError) -> str:
    """The container's own message, which SageMaker wraps in a ModelError (424)."""
    status, message = error.response.get("OriginalStatusCode"), error.response.get("OriginalMessage")
    if status is None:
        return f"invoking {name} failed: {error}"
    return f"invoking {name} failed: the container answered {status}: {message}"
