"""One CloudFormation type: which properties it takes and which boto3 calls create, change and delete it."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
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
    """What a create or update gives back: the physical id (what Ref returns) and the attributes (Fn::GetAtt).

    `arn` is for tagging, where it is none of the attributes.
    """

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arn: str = ""


Create = Callable[[Context, Properties], Created]
# None where neither the physical id nor an attribute changes
Change = Callable[[Context, str, Properties, Properties], Created | None]
Delete = Callable[[Context, str, Properties], None]


@dataclass(frozen=True)
class Tagging:
    """How a service changes the tags of what is there.

    `resource` gives the members that name the resource; `calls` and `members` are the two operations and their members
    for tags and for keys; `shape` and `keyed` make those, as the service takes them, of a list of Key and Value and of
    a list of keys.
    """

    service: str
    resource: Callable[[Created], Mapping[str, Any]]
    calls: tuple[str, str] = ("tag_resource", "untag_resource")
    members: tuple[str, str] = ("Tags", "TagKeys")
    shape: Callable[[list[dict[str, str]]], Any] = list
    keyed: Callable[[list[str]], Any] = list

    def change(self, context: Context, made: Created, old: Any, new: Any) -> None:
        """Set and remove the tags that differ."""
        to_set, to_remove = changed_tags(old, new)
        named = self.resource(made)
        if to_set:
            context.call(self.service, self.calls[0], **named, **{self.members[0]: self.shape(to_set)})
        if to_remove:
            context.call(self.service, self.calls[1], **named, **{self.members[1]: self.keyed(to_remove)})


@dataclass(frozen=True)
class ResourceType:
    """A row of the table of types.

    `properties` are the top-level properties that are honoured; any other one fails the stack by its name.
    `change` carries out an update of all properties but the tags, `tagging` that of the tags; every change of a type
    with neither is a replacement. `replace` names properties that force one besides those that AWS's schema marks.
    `find` gives a resource that is there already by its name, for a stack that imports it.
    """

    name: str
    properties: frozenset[str]
    create: Create
    delete: Delete
    change: Change | None = None
    tagging: Tagging | None = None
    replace: frozenset[str] = frozenset()
    find: Callable[[Context, str], Created | None] | None = None

    @property
    def fixed(self) -> bool:
        """Whether every change is a replacement."""
        return self.change is None and self.tagging is None

    def update(self, context: Context, present: Created, old: Properties, new: Properties) -> Created:
        """Bring what is there to its new properties."""
        made = None
        if self.change is not None:
            rest = {key: value for key, value in new.items() if self.tagging is None or key != "Tags"}
            made = self.change(context, present.physical_id, old, rest)
        if self.tagging is not None:
            self.tagging.change(context, made or present, old.get("Tags"), new.get("Tags"))
        return made or present


def names(text: str) -> frozenset[str]:
    """Names that a text holds, separated by spaces."""
    return frozenset(text.split())


def picked(properties: Properties, keys: Iterable[str]) -> Properties:
    """These of the properties, as far as they are given."""
    return {key: properties[key] for key in keys if key in properties}


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
    if str(value).lower() not in ("true", "false"):
        raise ValueError(value)
    return str(value).lower() == "true"


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


def deleting(service: str, operation: str, member: str, named: Callable[[str], Any] = str) -> Delete:
    """What deletes a resource by one call; `named` makes the member's value of the physical id."""

    def delete(context: Context, physical_id: str, _: Properties) -> None:
        gone(context, service, operation, **{member: named(physical_id)})

    return delete


def putting(put: Create) -> Change:
    """What changes a resource by the call that created it."""
    return lambda context, _id, _old, new: put(context, new)


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
    """Tags to set and tag keys to remove, from the tags before and after."""
    before, after = tag_map(old), tag_map(new)
    to_set = {key: value for key, value in after.items() if before.get(key) != value}
    return tag_list(to_set), [key for key in before if key not in after]


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """A map of tags as a list of Key and Value."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(tags: Any) -> dict[str, str]:
    """A list of Key and Value, or a map, as a map."""
    return dict(tags) if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags or []}


def difference(old: Iterable[Any] | None, new: Iterable[Any] | None) -> tuple[list[Any], list[Any]]:
    """What is new and what is gone, each sorted."""
    before, after = set(old or ()), set(new or ())
    return sorted(after - before), sorted(before - after)
