"""One EC2 instance: its user data as a process group in a scratch folder, from boot to termination.

Sources: "Run commands when you launch an EC2 instance with user data input",
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html (run once, as root, without a terminal);
"Terminate Amazon EC2 instances" and the instance-initiated shutdown behaviour,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html;
StateReason, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html.
A shutdown ends the processes with SIGTERM, then SIGKILL (systemd waits for 90 s; here less, see below).
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from moto.core.utils import utcnow
from moto.sts.models import AssumedRole

from ..clients import Clients
from ..control.faults import Fault
from ..host import Host
from ..keys import session
from ..process.group import ProcessGroup, basics, write_program
from .metadata import SHUTDOWN, Metadata

log = logging.getLogger(__name__)
SHUTTING_DOWN, TERMINATED, STOPPING, STOPPED = (
    (32, "shutting-down"),
    (48, "terminated"),
    (64, "stopping"),
    (80, "stopped"),
)
GRACE_SECONDS = 15.0  # for what runs when the system goes down
SPOT_NOTICE_SECONDS = 120.0
RENEW_SECONDS = 3600.0  # what a role's credentials have left when new ones are given out
SHUTDOWN_DOUBLE = """
import json, sys, urllib.request as r
headers = {{"Authorization": "Bearer {secret}", "Content-Type": "application/json"}}
q = r.Request("{url}", json.dumps(sys.argv[1:]).encode(), headers, method="PUT")
print(r.build_opener(r.ProxyHandler({{}})).open(q).read().decode())
"""
BY_USER = "Client.UserInitiatedShutdown: User initiated shutdown"
BY_ITSELF = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
BY_SPOT = "Server.SpotInstanceTermination: Spot instance termination"
BY_FAULT = "Server.InternalError: Internal error on launch"


class Machine:
    """What runs behind one instance of moto's; `end` ends it."""

    def __init__(self, host: Host, instance: Any, data: Mapping[str, Any]) -> None:
        """data: what it was launched with, of the request and of the launch template."""
        self.host, self.instance, self.data = host, instance, data
        self.folder: Path = host.directory / "instances" / instance.id
        self._lock = threading.RLock()
        self._ending = False
        self._process: ProcessGroup | None = None
        self._timers: list[threading.Timer] = []
        self._notice: datetime | None = None
        self._session: AssumedRole | None = None
        self.role = _role(host.clients, data)
        self.options: Mapping[str, Any] = data.get("MetadataOptions") or {}
        required = self.options.get("HttpTokens", "optional") == "required"
        self.metadata = Metadata(self._paths, self._shutdown, required=required)

    # -- from boot on ---------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Run the user data in the background."""
        threading.Thread(target=self._boot, name=f"instance {self.instance.id}", daemon=True).start()

    def _boot(self) -> None:
        subject = "\n".join(f"{key}={value}" for key, value in self._tags().items())
        fault = self.host.faults.take("instance", subject)
        try:
            with self._lock:
                if self._ending:
                    return
                self._process = self._run(self._prepared())
            if fault is not None:
                self._later(fault.after_seconds, lambda: self._hurt(fault))
            with (self.folder / "console.txt").open("w") as console:
                for line in self._process.output:
                    console.write(line)
                    console.flush()
        except Exception:
            log.exception("instance %s", self.instance.id)
            self.end(BY_FAULT, grace=0.0)

    def _prepared(self) -> Path:
        """The folder of the machine with its user data and the doubles of `aws` and `shutdown`; the script."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        python, cli = shlex.quote(sys.executable), shlex.quote(str(Path(__file__).with_name("aws_cli.py")))
        write_program(programs / "aws", f'exec {python} -I {cli} "$@"')
        ask = programs / "shutdown.py"  # a file, since other users could read the secret among a command's arguments
        ask.write_text(SHUTDOWN_DOUBLE.format(url=self.metadata.url + SHUTDOWN, secret=self.metadata.secret))
        ask.chmod(0o600)
        for name, first in (("shutdown", ""), ("poweroff", " now"), ("halt", " now")):
            write_program(programs / name, f'exec {python} -I {shlex.quote(str(ask))}{first} "$@"')
        user_data = self.data.get("UserData")
        script = self.folder / "user-data"
        script.write_text(user_data.decode() if user_data is not None else "")
        return script

    def _run(self, script: Path) -> ProcessGroup:
        """Start the user data with the interpreter of its first line, as cloud-init does."""
        text = script.read_text()
        interpreter = shlex.split(text.splitlines()[0][2:]) if text.startswith("#!") else ["true"]
        base = basics(self.host.programs)
        environment = {
            **base,
            "PATH": f"{self.folder / 'bin'}:{base['PATH']}",
            "TMPDIR": str(self.folder / "tmp"),
            "AWS_ENDPOINT_URL": self.host.clients.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata.url,
        }
        return ProcessGroup([*interpreter, str(script)], self.folder, environment)

    def console(self) -> str:
        """What it has printed."""
        file = self.folder / "console.txt"
        return file.read_text() if file.exists() else ""

    # -- its end --------------------------------------------------------------------------------------------------

    def end(self, reason: str, *, grace: float = GRACE_SECONDS, stop: bool = False) -> None:
        """Bring it down in the background: shutting-down until nothing of it runs, then terminated (or stopped)."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
            for timer in self._timers:
                timer.cancel()
            self._is(STOPPING if stop else SHUTTING_DOWN, reason)
        threading.Thread(target=self._end, args=(reason, grace, stop), daemon=True).start()

    def _end(self, reason: str, grace: float, stop: bool) -> None:
        if self._process is not None:
            self._process.end(grace)
        self.metadata.stop()
        with self._lock:
            if not stop and self.instance.state_code != TERMINATED[0]:
                self.instance.terminate()
            self._is(STOPPED if stop else TERMINATED, reason)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def kill(self) -> None:
        """The server ends: leave nothing behind."""
        with self._lock:
            self._ending = True
            for timer in self._timers:
                timer.cancel()
        if self._process is not None:
            self._process.end(0)

    def _is(self, state: tuple[int, str], reason: str) -> None:
        instance = self.instance
        instance._state.code, instance._state.name = state
        when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        instance._reason = f"User initiated ({when})" if reason == BY_USER else reason
        instance.state_reason.code, instance.state_reason.message = reason.split(":", 1)[0], reason

    def _shutdown(self, arguments: list[str]) -> str:
        """`shutdown [-h|-P|-c] [now|+MINUTES]`, https://man7.org/linux/man-pages/man8/shutdown.8.html."""
        if "-c" in arguments:
            with self._lock:
                for timer in self._timers:
                    timer.cancel()
            return "Shutdown cancelled."
        when = next((part for part in arguments if not part.startswith("-")), "+1")
        minutes = 0 if when == "now" else int(when.removeprefix("+"))
        self._later(self.host.clock.limit(minutes * 60.0), self._power_off)
        return f"Shutdown scheduled in {minutes} minutes."

    def _power_off(self) -> None:
        behaviour = self.data.get("InstanceInitiatedShutdownBehavior") or "stop"
        self.end(BY_ITSELF, stop=behaviour == "stop")

    def _later(self, seconds: float, act: Any) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        with self._lock:
            if not self._ending:
                self._timers.append(timer)
                timer.start()

    def _hurt(self, fault: Fault) -> None:
        """Carry out an injected fault."""
        if fault.action == "crash":
            self.end(BY_FAULT, grace=0.0)
        elif fault.action == "hang" and self._process is not None:
            self._process.signal(signal.SIGSTOP)
        elif fault.action == "interrupt":
            seconds = self.host.clock.wait(SPOT_NOTICE_SECONDS)
            self._notice = datetime.now(timezone.utc) + timedelta(seconds=seconds)
            self._later(seconds, lambda: self.end(BY_SPOT))

    # -- metadata -------------------------------------------------------------------------------------------------

    def _tags(self) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self.instance.get_tags()}

    def _paths(self) -> dict[str, str]:
        """What the metadata service knows of it."""
        instance = self.instance
        region, zone = instance.region_name, instance.availability_zone
        facts = {
            "instance-id": instance.id,
            "instance-type": instance.instance_type,
            "ami-id": instance.image_id,
            "instance-life-cycle": "spot" if instance.lifecycle == "spot" else "on-demand",
            "local-ipv4": instance.private_ip or "",
            "hostname": instance.private_dns_name or "",
            "placement/region": region,
            "placement/availability-zone": zone,
            **self._role_paths(),
        }
        if self.options.get("InstanceMetadataTags") == "enabled":
            # tags that AWS itself gives are not shown
            shown = {key: value for key, value in self._tags().items() if not key.startswith("aws:")}
            facts |= {f"tags/instance/{key}": value for key, value in shown.items()}
        if self._notice is not None:
            notice = {"action": "terminate", "time": self._notice.strftime("%Y-%m-%dT%H:%M:%SZ")}
            facts["spot/instance-action"] = json.dumps(notice)
        document = {
            "accountId": self.host.account,
            "availabilityZone": zone,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "region": region,
        }
        return {
            **{f"/latest/meta-data/{name}": value for name, value in facts.items()},
            "/latest/dynamic/instance-identity/document": json.dumps(document),
            "/latest/user-data": self.data["UserData"].decode() if self.data.get("UserData") is not None else "",
        }

    def _role_paths(self) -> dict[str, str]:
        """The role's credentials, only for an instance with a profile that has a role."""
        if self.role is None:
            return {}
        found = self._credentials(self.role["Arn"])
        begin, end = found.access_key.create_date, found.expiration
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": found.access_key_id,
            "SecretAccessKey": found.secret_access_key,
            "Token": found.session_token,
            "LastUpdated": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {f"iam/security-credentials/{self.role['RoleName']}": json.dumps(credentials)}

    def _credentials(self, role_arn: str) -> AssumedRole:
        """The role's session, another one when its end is near.

        Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
        """
        with self._lock:
            held = self._session
            if held is None or held.expiration < utcnow() + timedelta(seconds=RENEW_SECONDS):
                held = self._session = session(self.host.account, role_arn, self.instance.id, self.instance.region_name)
            return held


def _role(clients: Clients, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The role of the instance profile that an instance is launched with, if it has one."""
    profile = data.get("IamInstanceProfile") or {}
    name = profile.get("Name") or str(profile.get("Arn", "")).rsplit("/", 1)[-1]
    if not name:
        return None
    found = clients.client("iam", "us-east-1").get_instance_profile(InstanceProfileName=name)
    roles: list[dict[str, Any]] = found["InstanceProfile"]["Roles"]
    return roles[0] if roles else None
