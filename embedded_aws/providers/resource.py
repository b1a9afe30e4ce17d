"""One CloudFormation type: which properties it takes and which boto3 calls create, change and delete it."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from ..clients import Clients

Properties = dict[str, Any]


class ProviderError(Exception):
    """The resource could not be created, changed or deleted; the text becomes the event's reason."""


@dataclass(frozen=True)
class Context:
    """Where a resource lives, and how to call the services there."""

    clients: Clients
    account: str
    region: str
    partition: str
    stack_name: str
    logical_id: str

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One boto3 call with its parameters coerced to the operation's shape; None values are left out.

        Raises ProviderError naming a parameter that the operation does not have, and ClientError as the service says.
        """
        client = self.clients.client(service, self.region)
        model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
        given = {name: value for name, value in parameters.items() if value is not None}
        answer: dict[str, Any] = getattr(client, operation)(**coerce(given, model.input_shape, operation))
        return answer

    def arn(self, service: str, resource: str, region: str | None = None) -> str:
        """An ARN of this account."""
        where = self.region if region is None else region
        return f"arn:{self.partition}:{service}:{where}:{self.account}:{resource}"

    def name(self, limit: int, *, stack: bool = True, lower: bool = False, joint: str = "-") -> str:
        """A physical name as CloudFormation makes them: stack, logical id and random characters, cut to `limit`.

        Source: "Name type", https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-name.html
        """
        alphabet = string.ascii_lowercase if lower else string.ascii_letters
        tail = "".join(secrets.choice(alphabet + string.digits) for _ in range(12))
        parts = [self.stack_name, self.logical_id] if stack else [self.logical_id]
        head = joint.join(parts)[: limit - len(tail) - 1]
        name = f"{head}{joint}{tail}"
        return name.lower() if lower else name


@dataclass(frozen=True)
class Created:
    """What a create or update gives back: the physical id (what Ref returns) and the attributes (Fn::GetAtt)."""

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


Create = Callable[[Context, Properties], Created]
Update = Callable[[Context, str, Properties, Properties], Created]
Delete = Callable[[Context, str, Properties], None]


@dataclass(frozen=True)
class ResourceType:
    """A row of the table of types.

    `properties` are the top-level properties that are honoured; any other one fails the stack by its name.
    `update` is None for a type whose every change is a replacement. `ref` gives another value for Ref than the
    physical id. `replace` names properties that force a replacement besides those that AWS's schema marks.
    """

    name: str
    properties: frozenset[str]
    create: Create
    delete: Delete
    update: Update | None = None
    replace: frozenset[str] = frozenset()


def coerce(value: Any, shape: Any, path: str) -> Any:
    """A template's value as the botocore shape wants it ("60" as a number, "true" as a boolean).

    Raises ProviderError with the path of a member that the shape does not have, or of a value of the wrong kind.
    """
    kind = shape.type_name
    try:
        if kind == "structure":
            unknown = sorted(set(value) - set(shape.members))
            if unknown:
                raise ProviderError(f"{path} has no member {', '.join(unknown)}")
            return {name: coerce(item, shape.members[name], f"{path}.{name}") for name, item in value.items()}
        if kind == "list":
            return [coerce(item, shape.member, f"{path}[{index}]") for index, item in enumerate(value)]
        if kind == "map":
            return {str(key): coerce(item, shape.value, f"{path}.{key}") for key, item in value.items()}
        return _SCALARS.get(kind, lambda item: item)(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ProviderError(f"{path} must be a {kind}, not {value!r}") from error


def _boolean(value: Any) -> bool:
    words = {"true": True, "false": False}
    return words[str(value).lower()] if str(value).lower() in words else _wrong(value)


def _wrong(value: Any) -> bool:
    raise ValueError(value)


def _string(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "string": _string,
}


def document(value: Any) -> str | None:
    """A policy or another JSON document as the text that the services take."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def absent(error: ClientError) -> bool:
    """Whether a call failed because the thing is not there (any more)."""
    details = error.response["Error"]
    code, text = details.get("Code", ""), details.get("Message", "")
    return (
        any(word in code for word in ("NoSuch", "NotFound", "NonExist", "DoesNotExist"))
        or code == "404"
        or (
            code.startswith("Validation")
            and any(word in text for word in ("Could not find", "No scal", "does not exist"))
        )
    )


def gone(context: Context, service: str, operation: str, **parameters: Any) -> None:
    """A deleting call for which an absent thing is a success.

    Source: "Resource type handler contract" (delete of a missing resource),
    https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-test-contract.html
    """
    try:
        context.call(service, operation, **parameters)
    except ClientError as error:
        if not absent(error):
            raise


def refuse_existing(context: Context, name: str, service: str, operation: str, **parameters: Any) -> None:
    """Raises ProviderError when a reading call finds the thing: some creating calls would take it over silently.

    Source: "Resource type handler contract" (create must fail with AlreadyExists),
    https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-test-contract.html
    """
    try:
        found = context.call(service, operation, **parameters)
    except ClientError as error:
        if absent(error):
            return
        raise
    if any(value for key, value in found.items() if key != "ResponseMetadata") or operation.startswith("head"):
        raise ProviderError(f"{name} already exists")


def changed_tags(old: Any, new: Any) -> tuple[list[dict[str, str]], list[str]]:
    """Tags to set and tag keys to remove, from two lists of Key and Value."""
    before = {tag["Key"]: tag["Value"] for tag in old or []}
    after = {tag["Key"]: tag["Value"] for tag in new or []}
    to_set = [{"Key": key, "Value": value} for key, value in after.items() if before.get(key) != value]
    return to_set, [key for key in before if key not in after]


def retag(
    context: Context,
    service: str,
    old: Properties,
    new: Properties,
    *,
    calls: tuple[str, str] = ("tag_resource", "untag_resource"),
    members: tuple[str, str] = ("Tags", "TagKeys"),
    shape: Callable[[list[dict[str, str]]], Any] = list,
    **resource: Any,
) -> None:
    """Set and remove the tags that an update changes.

    `calls` and `members` are the service's names of its two operations and of their members; `shape` makes the tags
    as it takes them of a list of Key and Value; `resource` names the resource.
    """
    to_set, to_remove = changed_tags(old.get("Tags"), new.get("Tags"))
    if to_set:
        context.call(service, calls[0], **resource, **{members[0]: shape(to_set)})
    if to_remove:
        context.call(service, calls[1], **resource, **{members[1]: to_remove})


def tag_map(tags: list[dict[str, str]] | None) -> dict[str, str] | None:
    """A list of Key and Value as an object; None without tags."""
    return {tag["Key"]: tag["Value"] for tag in tags or []} or None
