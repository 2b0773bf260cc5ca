"""The `shardwise` command, and `kubectl shardwise`: the same program by two names.

A subcommand's module is imported when it is called: start-up is bounded by click and the standard
library, nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shardwise import __version__
from shardwise.cli import exitcodes

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("run", "Run a job with processes of this machine."),
    "submit": ("submit", "Check a job's manifest and apply it to the cluster."),
    "get": ("get", "List jobs."),
    "watch": ("watch", "Follow a job live until it ends."),
    "logs": ("logs", "Logs of all workers, merged."),
    "describe": ("describe", "All that is known of a job."),
    "explain": ("explain", "What a job waits for, or why it failed."),
    "scale": ("change", "Change the number of workers."),
    "suspend": ("change", "Stop a job's workers; it can be resumed."),
    "resume": ("change", "Let a suspended job go on."),
    "delete": ("change", "Delete jobs and their pods."),
    "tasks": ("tasks", "The tasks of a job that has many."),
    "plot": ("plot", "Curves of local runs, pictures of many tasks."),
    "doctor": ("doctor", "Check the cluster, your rights and the operator."),
    "completion": ("completion", "Print a shell's completion script."),
}
"""Each command's module and its line in --help, in the order shown."""


def program_name(invoked: str) -> str:
    """How the user called the program: a file `kubectl-shardwise` is kubectl's plug-in."""
    return "kubectl shardwise" if Path(invoked).stem == "kubectl-shardwise" else "shardwise"


class Program(click.Group):
    """The group. Loads subcommands late, and knows the name it was called by."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"shardwise.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        name = args[0]
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if name not in COMMANDS and not name.startswith("-") and near:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(exitcodes.INTERRUPTED)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        prog_name = prog_name or program_name(sys.argv[0])
        from shardwise.cli.guard import guarded

        complete_var = complete_var or "_SHARDWISE_COMPLETE"
        # The shell's completion is told bytes, of names that the API server has checked.
        with contextlib.nullcontext() if complete_var in os.environ else guarded():
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Parallel optimization jobs: the same weights on any number of workers."""


if __name__ == "__main__":
    main()
