"""`shardwise completion`: what a shell needs to complete commands, options and names of jobs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VARIABLE = "_SHARDWISE_COMPLETE"
INSTALL = {
    "bash": "shardwise completion bash >~/.local/share/bash-completion/completions/shardwise",
    "zsh": "shardwise completion zsh >~/.zfunc/_shardwise   (a folder of your fpath)",
    "fish": "shardwise completion fish >~/.config/fish/completions/shardwise.fish",
}
NO_FILES = ":4"
"""What ends an answer to kubectl: complete no names of files (cobra's directive)."""
FILES = ":0"


@click.command(epilog="\b\n" + "\n".join(f"{shell}: {line}" for shell, line in INSTALL.items()))
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; it goes where that shell looks for it.

    `kubectl shardwise` completes through kubectl's own completion, by the program
    kubectl_complete-shardwise, which is installed beside shardwise.
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from shardwise.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    # The base class's: bash's own starts a bash to see how old it is.
    click.echo(ShellComplete.source(kind(main, {}, "shardwise", VARIABLE)))


def kubectl(arguments: list[str] | None = None) -> int:
    """kubectl's protocol: the words so far are arguments; candidates and a directive go out."""
    words = sys.argv[1:] if arguments is None else arguments
    found, files = candidates(words[:-1], words[-1] if words else "")
    for item in found:
        sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write((FILES if files else NO_FILES) + "\n")
    return 0


def candidates(words: list[str], incomplete: str) -> tuple[list[CompletionItem], bool]:
    """What may come next, and whether names of files may too."""
    from click.shell_completion import ShellComplete

    from shardwise.cli.main import main

    items = ShellComplete(main, {}, "shardwise", VARIABLE).get_completions(words, incomplete)
    plain = [item for item in items if item.type == "plain"]
    return plain, len(plain) < len(items)


def main_kubectl() -> None:
    """The entry point `kubectl_complete-shardwise`."""
    # Completion must neither draw nor ask.
    os.environ["NO_COLOR"] = "1"
    sys.exit(kubectl())
