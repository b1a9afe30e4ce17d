"""The verbs of `inferentia`, in the order of the work. A room is imported when one of its verbs runs, not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from typer.main import get_group

CHECK, MODEL, DEPLOY, REHEARSE, JOBS = (
    "1. What you want",
    "2. From the model to an artifact with its proof",
    "3. On AWS",
    "Without AWS",
    "Parts of submit",
)


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, and where its command is.

    module: has COMMANDS by name, or `app`, a Typer whose command of this name (or which as a whole) is meant.
    room: the module whose `run(command)` turns its errors into one message and an exit code.
    """

    name: str
    group: str
    help: str
    module: str
    room: str

    def load(self) -> Any:
        """The command, imported now."""
        module = importlib.import_module(self.module)
        app = module.COMMANDS[self.name] if hasattr(module, "COMMANDS") else module.app
        if not isinstance(app, typer.Typer):
            command, app = app, typer.Typer(rich_markup_mode="markdown")
            app.command(self.name)(command)
        group = get_group(app)
        return group.commands.get(self.name, group)


def _verbs(group: str, room: str, *rows: tuple[str, str, str]) -> tuple[Verb, ...]:
    return tuple(Verb(name, group, text, module, room) for name, module, text in rows)


VERBS = (
    *_verbs(
        CHECK,
        "endpoint_spec.__main__",
        ("check", "endpoint_spec.__main__", "Check the specs; list each fault with file, line, key and the way out."),
        ("cost", "endpoint_spec.__main__", "Show what a month of an endpoint costs, before it is deployed."),
        ("schema", "endpoint_spec.__main__", "Print the JSON Schema of a spec, for editors."),
    ),
    *_verbs(
        CHECK,
        "operations.__main__",
        ("status", "operations.commands.status", "Show endpoints, their locks, and what of them is deployed."),
    ),
    *_verbs(
        MODEL,
        "compile.cli.app",
        ("list", "compile.cli.new", "List the built-in families and their variants."),
        ("new", "compile.cli.new", "Write a spec to begin with, from the zoo or a family."),
        ("weights", "compile.cli.weights", "Download trained weights of a list, by hash, with licence and origin."),
        ("analyze", "compile.cli.analyze", "Count supported operators and predict the partition, without the SDK."),
        ("read-log", "compile.cli.analyze", "Read coverage and subgraphs from a compiler's log."),
        ("graph", "compile.cli.graph", "Show the operators and weights of a built graph, or what differs of two."),
        ("buckets", "compile.cli.buckets", "Choose the input sizes to compile for."),
        ("build", "compile.cli.build", "Compile (or trace), prove that it is equal, write artifact and lock."),
        ("verify", "compile.cli.verify", "Compare the artifact with the original again; per module, in low precision."),
        ("package", "compile.cli.build", "Put changed handler code into the artifact; nothing is compiled."),
        ("serve", "compile.cli.serve", "Serve the artifact on this machine, as its endpoint would."),
        ("measure", "compile.cli.measure", "Measure latency and throughput on the target."),
        ("report", "compile.cli.report", "Write what was proven and measured as a page."),
        ("cache", "compile.cli.cache", "Show or empty the cache of compiled variants."),
    ),
    *_verbs(
        DEPLOY,
        "operations.__main__",
        ("preflight", "operations.commands.preflight", "Ask the account what would fail later, before anything costs."),
        (
            "image",
            "operations.commands.images",
            "Build the native server's image in your account, keep its base: build, mirror, status.",
        ),
        ("submit", "operations.commands.jobs", "Compile graphs in your account; make and publish the artifact here."),
        ("attach", "operations.commands.jobs", "Follow a compile run that was submitted before."),
        (
            "wheels",
            "operations.commands.jobs",
            "Download the compiler for jobs whose image lacks it, or an image's packages; keep them.",
        ),
        ("fetch-weights", "operations.commands.artifacts", "Download weights that a spec has on S3."),
        ("publish", "operations.commands.artifacts", "Upload the artifact to S3, under its sha256."),
        ("smoke", "operations.commands.smoke", "Invoke the endpoint and compare its answer with the lock's."),
        ("policies", "operations.commands.policies", "Print the least that publishing, deploying and invoking need."),
        ("wait", "operations.commands.smoke", "Return when no update and no scaling of the endpoint runs."),
        ("guard", "operations.commands.smoke", "Deploy with the endpoint's alarms taking a bad update back."),
        ("empty-bucket", "operations.commands.artifacts", "Delete all artifacts, so that the stack can be destroyed."),
        ("conformance", "operations.commands.conformance", "Try on AWS, for cents, what the embedded AWS answers."),
    ),
    *_verbs(
        REHEARSE,
        "embedded_aws.rehearsal",
        ("rehearsal", "embedded_aws.rehearsal", "An AWS on this machine: up, down, env, clock, fault."),
    ),
    *_verbs(
        JOBS,
        "compile.cli.app",
        ("bundle", "compile.cli.jobs", "Capture the model, and pack its graphs for compile jobs."),
        ("adopt", "compile.cli.jobs", "Make artifact and lock of what jobs compiled."),
    ),
)


def find(name: str) -> Verb | None:
    """The verb of that name."""
    return next((verb for verb in VERBS if verb.name == name), None)


def runner(verb: Verb | None) -> Callable[[Callable[[], object]], int]:
    """What runs a verb's command and turns the errors of its room into a message and an exit code."""
    if verb is None:
        return run_plainly
    run: Callable[[Callable[[], object]], int] = importlib.import_module(verb.room).run
    return run


def run_plainly(command: Callable[[], object]) -> int:
    """Run a command that needs no room: help, completion, or a verb that does not exist."""
    command()
    return 0
