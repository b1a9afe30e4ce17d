"""`inferentia`: from a PyTorch model to a watched Inferentia endpoint."""

import signal

# Until a command runs there is nothing to clean up: Ctrl-C, which C++ being imported may swallow, ends it at once.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from cli.verbs import VERBS, find, runner

HELP = """From a PyTorch model to a watched AWS Inferentia endpoint on SageMaker.

The usual order: new, check, build (or submit), publish, cdk deploy, smoke. `inferentia VERB --help` explains each.
"""


class Verbs(TyperGroup):
    """Shows the table without loading anything; loads a verb's room when it is the one to run or to complete."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (Typer's signature)
        """In the order of the work."""
        return [verb.name for verb in VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The verb's line in the help."""
        verb = find(cmd_name)
        return verb and TyperCommand(verb.name, help=verb.help, rich_help_panel=verb.group)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb's own command."""
        verb = find(args[0])
        if verb is None:
            return super().resolve_command(ctx, args)
        command = verb.load()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there may be something to clean up
        return verb.name, command, args[1:]


app = typer.Typer(
    cls=Verbs, help=HELP, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


@app.callback()
def _options() -> None:
    """Has no options of its own."""


def _stop(*_: object) -> NoReturn:
    # SIGTERM unwinds like an error, so that half-done work is removed and no worker stays behind.
    raise SystemExit(143)


def main() -> int:
    """The command line. Exit codes: 0 done, 1 the work failed, 2 wrong use, 130 Ctrl-C."""
    signal.signal(signal.SIGTERM, _stop)
    run = runner(find(sys.argv[1]) if len(sys.argv) > 1 else None)
    try:
        return run(lambda: app(prog_name="inferentia"))
    except OSError as error:  # a standard output that takes nothing, most often
        typer.echo(f"failed: {error}", err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
