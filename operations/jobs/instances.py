"""EC2 instances of a run that still cost money after it ended. There should be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from operations.jobs.run import Run

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

TAG = "inferentia:run"
_COSTING = ["pending", "running", "stopping", "stopped"]


def left_over(run: Run) -> list[str]:
    """A sentence about instances of an ended run that are not gone, empty where there are none."""
    if run.stack.where != "ec2":
        return []
    wanted: list[FilterTypeDef] = [
        {"Name": f"tag:{TAG}", "Values": [run.run]},
        {"Name": "instance-state-name", "Values": _COSTING},
    ]
    try:
        found = run.account.ec2.describe_instances(Filters=wanted)
    except (ClientError, BotoCoreError) as error:
        return [f"instances: could not be asked for ({error}); look at those with the tag {TAG}={run.run}"]
    names = [row["InstanceId"] for group in found["Reservations"] for row in group["Instances"]]
    if not names:
        return ["instances: none left"]
    return [
        f"instances: {', '.join(names)} still there. The stack's clean-up ends them within minutes, and they end "
        f"themselves at their time limit; at once: aws ec2 terminate-instances --instance-ids {' '.join(names)}"
    ]
