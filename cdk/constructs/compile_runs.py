"""The runs of a compile stack: the machine that compiles, the one that cleans up, and the rule between them."""

from __future__ import annotations

from aws_cdk import aws_logs as logs
from constructs import Construct

from endpoint_spec import jobs

from ..nag import acknowledge_patterns
from ..permissions import allow
from ..states.cleanup import cleanup_machine
from ..states.job import JobContext
from ..states.run import run_machine
from .backend import ComputeBackend
from .cleanup_rule import CleanupRule
from .job_files import JobFiles
from .notification_topic import NotificationTopic
from .state_machine import StateMachine


class CompileRuns(Construct):
    """run, cleanup: the two machines."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        context: JobContext,
        backend: ComputeBackend,
        files: JobFiles,
        topic: NotificationTopic,
        log_group: logs.ILogGroup,
        bounds: tuple[int, int],
    ) -> None:
        """bounds: seconds that a run may take, and jobs that it may have at once."""
        super().__init__(scope, construct_id)
        self.cleanup = StateMachine(
            self,
            "Cleanup",
            definition=cleanup_machine(context, backend.stop, topic.arns),
            statements=[*backend.stop_statements, *topic.may_publish()],
            log_group=log_group,
            description=f"Ends what compile runs of endpoint {context.name} left running",
            any_resource=backend.stop_any_resource,
        )
        self.run = StateMachine(
            self,
            "Run",
            definition=run_machine(
                context,
                backend.workflow,
                time_limit=bounds[0],
                max_parallel=bounds[1],
                topics=topic.arns,
                cleanup=self.cleanup.arn,
            ),
            statements=[
                *backend.run_statements,
                files.find(jobs.base_prefix(files.name)),
                *topic.may_publish(),
                allow("StartCleanup", "states:StartExecution", self.cleanup.arn),
            ],
            log_group=log_group,
            description=f"Compiles endpoint {context.name}: starts its jobs",
            any_resource=backend.run_any_resource,
        )
        acknowledge_patterns(self.run.role, backend.run_patterns)
        acknowledge_patterns(self.cleanup.role, backend.stop_patterns)
        CleanupRule(self, "Rule", run=self.run.arn, cleanup=self.cleanup.arn, endpoint_name=context.name)
