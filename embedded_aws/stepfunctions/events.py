"""EventBridge rules for the status changes of Step Functions executions; moto starts no state machine by itself.

Sources: "Step Functions Execution Status Change",
https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html, and targets,
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-targets.html. Target input: Input, InputPath,
InputTransformer; else the whole event.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from datetime import datetime, timezone
from typing import Any

from jsonpath_ng.parser import parse
from moto.events.models import events_backends
from moto.stepfunctions.parser.backend.execution import Execution

from .. import context
from ..clients import Clients

log = logging.getLogger(__name__)


def execution_changed(execution: Execution) -> None:
    """Send the event of an execution that has started or ended."""
    times = (execution.start_date, execution.stop_date)
    milliseconds = [int(when.timestamp() * 1000) if when else None for when in times]
    ended_well = execution.output is not None
    detail = {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": milliseconds[0],
        "stopDate": milliseconds[1],
        "input": execution.execution_input,
        "output": json.dumps(execution.output) if ended_well else None,
        "inputDetails": {"included": True},
        "outputDetails": {"included": True} if ended_well else None,
        "error": execution.error,
        "cause": execution.cause,
    }
    kind = "Step Functions Execution Status Change"
    send(execution.account_id, execution.region_name, "aws.states", kind, [execution.exec_arn], detail)


def send(account: str, region: str, source: str, kind: str, resources: list[str], detail: dict[str, Any]) -> None:
    """Give an event to every rule of the default bus that it fits; targets are reached in the background."""
    event: Any = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": kind,
        "source": source,
        "account": account,
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": resources,
        "detail": detail,
    }
    clients = context.of(account).host.clients
    for rule in list(events_backends[account][region].event_buses["default"].rules.values()):
        if rule.state == "ENABLED" and rule.event_pattern.get_pattern() and rule.event_pattern.matches_event(event):
            for target in list(rule.targets):
                threading.Thread(target=_deliver, args=(clients, rule.name, target, event), daemon=True).start()


def _deliver(clients: Clients, rule: str, target: dict[str, Any], event: dict[str, Any]) -> None:
    arn = str(target["Arn"])
    service, region = arn.split(":")[2], arn.split(":")[3]
    text = target_input(target, event)
    try:
        if service == "states":
            clients.client("stepfunctions", region).start_execution(stateMachineArn=arn, input=text)
        elif service == "sns":
            clients.client("sns", region).publish(TopicArn=arn, Message=text)
        else:
            log.error("rule %s: the embedded AWS does not deliver events to %s", rule, arn)
    except Exception:
        log.exception("rule %s: %s was not reached", rule, arn)


def target_input(target: dict[str, Any], event: dict[str, Any]) -> str:
    """What a target is given: Input, the part at InputPath, the transformed event, or the event."""
    if target.get("Input") is not None:
        return str(target["Input"])
    if target.get("InputPath") is not None:
        found = parse(target["InputPath"]).find(event)
        return json.dumps(found[0].value if found else None)
    if target.get("InputTransformer"):
        transformer = target["InputTransformer"]
        return _transformed(str(transformer["InputTemplate"]), transformer.get("InputPathsMap") or {}, event)
    return json.dumps(event)


def _transformed(template: str, paths: dict[str, str], event: dict[str, Any]) -> str:
    """The template with its <placeholders>: a text is quoted unless the template quotes it already.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
    """
    for name, path in paths.items():
        found = parse(path).find(event)
        value = found[0].value if found else None
        plain = value if isinstance(value, str) else json.dumps(value)
        template = template.replace(f'"<{name}>"', json.dumps(plain)).replace(f"<{name}>", json.dumps(value))
    return template
