"""`agentguard completion`: what the shell needs to complete our words."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from .shell import PlainCommand

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_WHERE = {
    "bash": 'eval "$(agentguard completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(agentguard completion zsh)" in ~/.zshrc',
    "fish": "agentguard completion fish > ~/.config/fish/completions/agentguard.fish",
}


@click.command("completion", cls=PlainCommand, epilog="To keep it: " + "; ".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    root = click.get_current_context().find_root().command
    click.echo(_SHELLS[shell](root, {}, "agentguard", "_AGENTGUARD_COMPLETE").source())
