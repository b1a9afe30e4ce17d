"""The JSON Schema of a spec, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from . import platforms
from .endpoint import Accept, Alarms, Compile, EndpointSpec, Job, RequestLimits, Rollout, Scale, Serve
from .places import families, rewrites


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of endpoints/NAME.yaml, with the installed families and the table's instance types.

    It knows each key by itself; what keys must be together is known to `inferentia check` alone.
    """
    result = EndpointSpec.model_json_schema(mode="validation")
    parts = result["$defs"]
    parts["Serve"]["properties"]["instance_type"]["enum"] = list(platforms.instance_types())
    machines = [*platforms.job_instance_types("processing"), *platforms.job_instance_types("ec2")]
    parts["Job"]["properties"]["instance_type"]["anyOf"][0]["enum"] = machines
    parts["Compile"]["properties"]["sdk"]["anyOf"][0]["enum"] = [*platforms.sdks("inf1"), *platforms.sdks("inf2")]
    parts["Model"]["properties"]["family"]["anyOf"][0]["enum"] = list(families())
    parts["Lowering"]["properties"]["off"]["anyOf"][0]["items"]["enum"] = list(rewrites())
    parts["Model"]["required"].remove("weights")
    parts["Model"]["anyOf"] = [{"required": ["weights"]}, {"required": ["graph"]}]
    # Defaults as a spec writes them, with their units; pydantic would give ISO durations and fractions.
    for section in (Accept, Alarms, Compile, Job, RequestLimits, Rollout, Scale, Serve):
        for name, default in section().model_dump(mode="json").items():
            if not isinstance(default, dict):
                parts[section.__name__]["properties"][name]["default"] = default
    for part in (result, *parts.values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **result,
        "title": "Inferentia endpoint",
    }
