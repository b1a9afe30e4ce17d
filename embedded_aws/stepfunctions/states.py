"""What is changed in moto's Step Functions interpreter, each place with its reason.

The interpreter itself is moto's ("execute_state_machine"). Sources: AWS Step Functions Developer Guide,
https://docs.aws.amazon.com/step-functions/latest/dg/welcome.html, pages named below.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import moto.stepfunctions.urls
from botocore.exceptions import ClientError
from jsonpath_ng.ext.parser import parse
from moto.core.config import default_user_config
from moto.core.responses import ActionResult
from moto.stepfunctions.parser.api import ExecutionStatus, InvalidDefinition
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import TimeoutSeconds
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.inline_iteration_component import (
    InlineIterationComponent,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.logging import CloudWatchLoggingConfiguration, CloudWatchLoggingSession
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped, ProgramTimedOut
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str
from moto.stepfunctions.parser.asl.utils.json_path import NoSuchJsonPathError
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.responses import StepFunctionResponse

from .. import context
from ..errors import AwsError
from . import events, integrations
from .integrations import host_of

log = logging.getLogger(__name__)
ENDED = (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.ABORTED, ExecutionStatus.TIMED_OUT)
STOP_WITHIN_SECONDS = 10.0
PATH = re.compile(r"\$$|\$\$?[.\[]|\$[A-Za-z_]|States\.\w+\(")  # also $variable
PAGE = 100  # "default value of 100", https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html


class StepFunctions(StepFunctionResponse):
    """One request to Step Functions."""

    starting = threading.Lock()

    def _check_paths(self) -> None:
        """A field that ends in .$ holds a path or an intrinsic function; moto would pass anything else on as it is.

        Source: https://docs.aws.amazon.com/step-functions/latest/dg/connect-parameters.html
        """
        try:
            definition = json.loads(self._get_param("definition") or "{}")
        except ValueError as error:
            raise AwsError("InvalidDefinition", f"Invalid State Machine Definition: {error}") from error
        wrong = list(_wrong_paths(definition))
        if wrong:
            raise AwsError("InvalidDefinition", f"Invalid State Machine Definition: {'; '.join(wrong)}")

    def create_state_machine(self) -> ActionResult:
        """A name that is taken is only accepted for the very same machine, which moto does not look at.

        Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
        """
        self._check_paths()
        name, definition = self._get_param("name"), self._get_param("definition")
        for machine in self.stepfunction_backend.state_machines:
            same = (definition, self._get_param("roleArn")) == (machine.definition, machine.roleArn)
            if machine.name == name and not same:
                raise AwsError("StateMachineAlreadyExists", f"State Machine Already Exists: '{machine.arn}'")
        return self._with_its_code(super().create_state_machine)

    def update_state_machine(self) -> ActionResult:
        """A definition that cannot be is refused."""
        self._check_paths()
        return self._with_its_code(super().update_state_machine)

    @staticmethod
    def _with_its_code(answer: Callable[[], ActionResult]) -> ActionResult:
        """The interpreter's own errors reach the client without their code."""
        try:
            return answer()
        except InvalidDefinition as error:
            raise AwsError("InvalidDefinition", f"Invalid State Machine Definition: {error.message}") from error

    def start_execution(self) -> ActionResult:
        """One at a time, so that of two with the same name only one can win; without a name it gets a UUID.

        Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
        """
        backend = self.stepfunction_backend
        name = self._get_param("name") or str(uuid.uuid4())
        backend._validate_name(name)
        with self.starting:
            machine, given = self._get_param("stateMachineArn"), self._get_param("input", if_none="{}")
            execution = backend.start_execution(machine, name, given)
        return ActionResult({"executionArn": execution.execution_arn, "startDate": execution.start_date})

    def stop_execution(self) -> ActionResult:
        """Keeps the error and cause that are given, and answers when it has stopped; moto drops and does neither.

        Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html
        """
        execution = self._execution()
        deadline = time.monotonic() + STOP_WITHIN_SECONDS
        while execution.exec_worker.env is None and time.monotonic() < deadline:
            time.sleep(0.01)  # its thread has only just begun
        if execution.exec_status == ExecutionStatus.RUNNING:
            error, cause = self._get_param("error"), self._get_param("cause")
            execution.error, execution.cause = error, cause
            execution.stop(datetime.datetime.now(tz=datetime.timezone.utc), error, cause)
        while execution.exec_status == ExecutionStatus.RUNNING and time.monotonic() < deadline:
            time.sleep(0.01)
        return ActionResult({"stopDate": execution.stop_date or datetime.datetime.now(tz=datetime.timezone.utc)})

    def _execution(self) -> Any:
        return self.stepfunction_backend.describe_execution(self._get_param("executionArn"))

    def describe_execution(self) -> ActionResult:
        """With the end of an execution that timed out, which moto leaves out."""
        shown: Any = super().describe_execution().result
        execution = self._execution()
        if execution.exec_status in ENDED:
            shown["stopDate"] = execution.stop_date
        return ActionResult(shown)

    def list_executions(self) -> ActionResult:
        """With the end of executions that timed out, which moto leaves out."""
        shown: Any = super().list_executions().result
        for row in shown["executions"]:
            execution: Any = self.stepfunction_backend.describe_execution(row["executionArn"])
            if execution.exec_status in ENDED:
                row["stopDate"] = execution.stop_date
        return ActionResult(shown)

    def get_execution_history(self) -> ActionResult:
        """In pages and in both directions, which moto ignores.

        Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html
        """
        history: Any = super().get_execution_history().result
        rows = list(history["events"])
        if self._get_param("reverseOrder"):
            rows.reverse()
        begin = int(self._get_param("nextToken") or 0)
        end = begin + int(self._get_param("maxResults") or PAGE)
        return ActionResult({"events": rows[begin:end], **({"nextToken": str(end)} if end < len(rows) else {})})


def _wrong_paths(part: Any, where: str = "") -> Iterator[str]:
    """Every field of a definition whose name ends in .$ and whose value is no path."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield from _wrong_paths(item, f"{where}/{index}")
    elif isinstance(part, dict):
        for key, value in part.items():
            if key.endswith(".$") and not (isinstance(value, str) and PATH.match(value)):
                yield f"SCHEMA_VALIDATION_FAILED: The value for the field '{key}' must be a valid JSONPath at {where}"
            yield from _wrong_paths(value, f"{where}/{key}")


def install() -> None:
    """Put our parts in place of moto's. Must run before the first request."""
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    moto.stepfunctions.urls.url_paths["{0}/$"] = StepFunctions.dispatch
    integrations.install()
    _read_paths_as_aws()
    _wait_by_the_clock()
    _limit_by_the_clock()
    _stop_the_other_iterations()
    _stay_stopped()
    _tell_about_executions()


INDEFINITE = re.compile(r"\.\.|\[[^\]]*[*:,?]|\.\*")
_parsed = functools.cache(parse)


def _read_paths_as_aws() -> None:
    """A path that can only mean one thing gives that thing, any other gives a list; moto makes $.a[0].b a list.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/amazon-states-language-paths.html (paths are those of
    Jayway JsonPath, https://github.com/json-path/JsonPath#what-is-returned-when)
    """

    def extract_json(path: str, data: Any) -> Any:
        values = [match.value for match in _parsed(path).find(data)]
        if not INDEFINITE.search(path):
            if not values:
                raise NoSuchJsonPathError(json_path=path, data=data)
            return values[0]
        # an index at the end of it takes one of the list, which the specification of JSONPath does not have
        return values[0] if len(values) == 1 and re.search(r"\[\d+\]$", path) else values

    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions.parser") and hasattr(module, "extract_json"):
            module.extract_json = extract_json  # type: ignore[attr-defined]


def _wait_by_the_clock() -> None:
    """Wait states and the intervals of Retry last as long as the clock says, and end with the execution.

    moto's Wait counts whole seconds only, and its Retry sleeps on after the execution was stopped.
    """

    def wait_interval(_: WaitFunction, env: Environment, wait_seconds: float) -> None:
        _pause(env, wait_seconds)

    WaitFunction._wait_interval = wait_interval  # type: ignore[method-assign,assignment]
    current = threading.local()
    original = retrier_decl.RetrierDecl._eval_body

    def eval_body(self: retrier_decl.RetrierDecl, env: Environment) -> None:
        current.env = env
        original(self, env)

    class Interval:
        """What the module knows as `time`."""

        @staticmethod
        def sleep(seconds: float) -> None:
            _pause(current.env, seconds)

    retrier_decl.RetrierDecl._eval_body = eval_body  # type: ignore[method-assign]
    retrier_decl.time = Interval  # type: ignore[assignment,attr-defined]


def _pause(env: Environment, seconds: float) -> None:
    """Let time pass until it is over or the execution no longer runs."""
    deadline = time.monotonic() + host_of(env).clock.wait(seconds)
    while env.is_running():
        left = deadline - time.monotonic()
        if left <= 0:
            return
        env.program_state_event.wait(min(left, 1.0))


def _limit_by_the_clock() -> None:
    """TimeoutSeconds of the machine and of its states last as long as the clock says."""
    evaluate = Program.eval

    def eval_program(self: Program, env: Environment) -> None:
        limit: Any = self.timeout_seconds
        if limit is not None and not hasattr(limit, "asked"):
            limit.asked = limit.timeout_seconds
            limit.timeout_seconds = host_of(env).clock.limit(limit.asked)
        evaluate(self, env)

    def eval_seconds(self: TimeoutSeconds, env: Environment) -> float:
        return host_of(env).clock.limit(self.timeout_seconds)

    Program.eval = eval_program  # type: ignore[method-assign]
    TimeoutSeconds._eval_seconds = eval_seconds  # type: ignore[method-assign,assignment]


def _stop_the_other_iterations() -> None:
    """When an iteration of a Map fails, the others stop; moto lets them run on in the background.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html ("the entire Map state fails")
    """
    original = InlineIterationComponent._eval_body

    def eval_body(self: InlineIterationComponent, env: Environment) -> None:
        try:
            original(self, env)
        except Exception:
            for frame in list(env._frames):
                frame.set_stop(stop_date=datetime.datetime.now(tz=datetime.timezone.utc), cause=None, error=None)
            raise

    InlineIterationComponent._eval_body = eval_body  # type: ignore[method-assign]


def _stay_stopped() -> None:
    """An execution that was stopped or has timed out stays so; in moto a Catch of the state could make it fail."""
    original = Environment.set_error

    def set_error(self: Environment, error: Any) -> None:
        if not isinstance(self._program_state, (ProgramStopped, ProgramTimedOut)):
            original(self, error)

    Environment.set_error = set_error  # type: ignore[method-assign]


def _tell_about_executions() -> None:
    """Log what the machine's LoggingConfiguration asks for, and send status changes to EventBridge."""
    start, terminated = Execution.start, BaseExecutionWorkerCommunication.terminated

    def started(self: Execution) -> None:
        self._cloud_watch_logging_session = _logging_session(self)
        start(self)
        events.execution_changed(self)

    def ended(self: BaseExecutionWorkerCommunication) -> None:
        terminated(self)
        events.execution_changed(self.execution)

    Execution.start = started  # type: ignore[method-assign]
    BaseExecutionWorkerCommunication.terminated = ended  # type: ignore[method-assign]


class ExecutionLog(CloudWatchLoggingSession):
    """Writes an execution's events to the log group of its machine; moto's own writing fails.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
    """

    made = False

    def publish_history_log(self, history_log: Any) -> None:
        """One event."""
        where = self.configuration
        names = {"logGroupName": where.log_group_name, "logStreamName": where.log_stream_name}
        account = self.execution_arn.split(":")[4]
        client = context.of(account).host.clients.client("logs", where.log_region)
        event = {"timestamp": int(time.time() * 1000), "message": to_json_str(history_log)}
        try:
            if not self.made:
                client.create_log_stream(**names)
                self.made = True
            client.put_log_events(**names, logEvents=[event])
        except ClientError as error:  # the log group may have been deleted with its stack
            log.warning("%s: an event was not logged: %s", self.execution_arn, error)


def _logging_session(execution: Execution) -> ExecutionLog | None:
    machine: Any = execution.state_machine
    wanted: Any = {"includeExecutionData": False, **machine.loggingConfiguration}
    found = CloudWatchLoggingConfiguration.from_logging_configuration(machine.arn, wanted)
    if found is None:
        return None
    # a stream's name may hold no colon, so no ARN
    found.log_stream_name = f"states/{execution.state_machine.name}/{execution.name}"  # type: ignore[misc]
    return ExecutionLog(execution_arn=execution.exec_arn, configuration=found)
