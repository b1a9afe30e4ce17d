"""The AWS SDK integrations of Step Functions: names of services, parameters, results and errors as AWS has them.

Source: "Learning to use AWS service SDK integrations in Step Functions",
https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html: parameters are in PascalCase also
where the service's API is not; errors are ServiceName.ErrorNameException. An error that the service's model does not
have is the SDK's general one of the service, such as Ec2.Ec2Exception: EC2's model has no errors at all, SageMaker's
has no ThrottlingException.
"""

from __future__ import annotations

import datetime
import sys
import threading
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceRuntimePart
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment

from .. import context
from ..clients import service_model
from ..host import Host

# ARN name of the service: name in boto3, prefix of its errors (the table of the page above). A service that is not
# here cannot be called: its names would be a guess.
SERVICES = {
    "cloudwatch": ("cloudwatch", "CloudWatch"),
    "cloudwatchlogs": ("logs", "CloudWatchLogs"),
    "ec2": ("ec2", "Ec2"),
    "eventbridge": ("events", "EventBridge"),
    "iam": ("iam", "Iam"),
    "s3": ("s3", "S3"),
    "sagemaker": ("sagemaker", "SageMaker"),
    "sfn": ("stepfunctions", "Sfn"),
    "sns": ("sns", "Sns"),
    "sqs": ("sqs", "Sqs"),
    "ssm": ("ssm", "Ssm"),
    "sts": ("sts", "Sts"),
}


class UnknownServiceError(ValueError):
    """A service whose integration is not in the table."""


def host_of(env: Environment) -> Host:
    """The server that an execution belongs to."""
    return context.of(env.aws_execution_details.account).host


def install() -> None:
    """Put our parts in place of moto's."""
    StateTaskServiceAwsSdk._eval_service_task = _call  # type: ignore[method-assign,assignment]
    StateTaskServiceAwsSdk._from_error = _failure  # type: ignore[method-assign,assignment]
    StateTaskServiceAwsSdk._validate_service_integration_is_supported = _check  # type: ignore[method-assign]
    StateTaskServiceSfn._normalise_parameters = _lower_first  # type: ignore[method-assign,assignment]
    _call_this_server_only()


def _call_this_server_only() -> None:
    """The optimised integrations (sns:publish ...) make a client for each call, without a word of the execution.

    Each execution of a state has a thread of its own, which keeps the environment for them.
    """
    running = threading.local()

    def remembered(original: Any) -> Any:
        def eval_execution(self: ExecutionState, env: Environment) -> None:
            running.env = env
            original(self, env)

        return eval_execution

    kinds: list[Any] = [ExecutionState]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "_eval_execution" in vars(kind):
            kind._eval_execution = remembered(kind._eval_execution)
    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions.parser") and hasattr(module, "boto_client_for"):
            module.boto_client_for = lambda region, service, **_: host_of(running.env).clients.client(service, region)  # type: ignore[attr-defined]


_normalised = StateTaskServiceSfn._normalise_parameters


def _lower_first(task: StateTaskServiceSfn, parameters: dict[str, Any], *names: str | None, **more: str | None) -> None:
    """states:startExecution takes StateMachineArn, Name and Input, which the API and boto3 begin with a small letter.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/connect-stepfunctions.html
    """
    _normalised(task, parameters, *names, **more)
    for name in list(parameters):
        parameters[name[:1].lower() + name[1:]] = parameters.pop(name)


def _check(task: StateTaskServiceAwsSdk) -> None:
    """A machine with an unknown service or action is refused when it is made, as on AWS."""
    service, action = task.resource.api_name, task.resource.api_action
    if service not in SERVICES:
        raise UnknownServiceError(
            f"the embedded AWS has no AWS SDK integration aws-sdk:{service}; it has {', '.join(sorted(SERVICES))}"
        )
    if _method(action) not in map(xform_name, service_model(SERVICES[service][0]).operation_names):
        raise UnknownServiceError(f"aws-sdk:{service} has no action {action}")


def _method(action: str) -> str:
    """boto3's name of an action that is written in camelCase."""
    return xform_name(action[0].upper() + action[1:])


def _call(
    task: StateTaskServiceAwsSdk,
    env: Environment,
    resource_runtime_part: ResourceRuntimePart,
    normalised_parameters: dict[str, Any],
    state_credentials: Any,  # noqa: ARG001 - moto's signature; permissions are not checked here
) -> None:
    """One call; its result is pushed on the stack."""
    service, _ = SERVICES[task.resource.api_name]
    client = host_of(env).clients.client(service, resource_runtime_part.region)
    name = _method(task.resource.api_action)
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[name])
    answer = getattr(client, name)(**_request(normalised_parameters, model.input_shape))
    answer.pop("ResponseMetadata", None)
    env.stack.append(_result(answer, model.output_shape))


def _request(value: Any, shape: Any) -> Any:
    """Parameters in PascalCase under the API's own names; what it does not have stays, and is refused by the client."""
    if shape is None:
        return value
    if shape.type_name == "structure" and isinstance(value, dict):
        own = {member.lower(): member for member in shape.members}
        made = {}
        for key, item in value.items():
            member = own.get(key.lower(), key)
            made[member] = _request(item, shape.members.get(member))
        return made
    if shape.type_name == "list" and isinstance(value, list):
        return [_request(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: _request(item, shape.value) for key, item in value.items()}
    return value


def _result(value: Any, shape: Any) -> Any:
    """A result in PascalCase: bodies as text, times in ISO 8601."""
    if isinstance(value, (StreamingBody, bytes)):
        return (value if isinstance(value, bytes) else value.read()).decode()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list):
        return [_result(item, getattr(shape, "member", None)) for item in value]
    if not isinstance(value, dict):
        return value
    if shape is not None and shape.type_name == "map":
        return {key: _result(item, shape.value) for key, item in value.items()}
    members = shape.members if shape is not None and shape.type_name == "structure" else {}
    return {key[0].upper() + key[1:]: _result(item, members.get(key)) for key, item in value.items()}


_super_from_error = StateTaskServiceAwsSdk.__mro__[1]._from_error  # type: ignore[attr-defined]


def _failure(task: StateTaskServiceAwsSdk, env: Environment, ex: Exception) -> FailureEvent:
    """The error of a failed call: prefix, name and always the suffix Exception."""
    if not isinstance(ex, ClientError):
        return _super_from_error(task, env=env, ex=ex)  # type: ignore[no-any-return]
    _, prefix = SERVICES[task.resource.api_name]
    kind = type(ex).__name__
    name = prefix if kind == "ClientError" else kind
    name = name if name.endswith("Exception") else f"{name}Exception"
    details, meta = ex.response["Error"], ex.response.get("ResponseMetadata", {})
    cause = (
        f"{details.get('Message')} (Service: {prefix}, Status Code: {meta.get('HTTPStatusCode')}, "
        f"Request ID: {meta.get('RequestId', 'none')})"
    )
    return task._get_task_failure_event(env=env, error=f"{prefix}.{name}", cause=cause)
