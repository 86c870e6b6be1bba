"""The command `agentguard`: what operators do, from a shell."""

from __future__ import annotations

from importlib import metadata

import click

from .approvals import approvals
from .completion import completion
from .demo import demo
from .doctor import doctor
from .effects import effects
from .kill import kill
from .policy import policy
from .runs import runs
from .shell import CODES, Root
from .store import store

_NOUNS = (demo, doctor, runs, approvals, effects, policy, kill, store, completion)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click
    if wanted:
        click.echo(f"agentguard {metadata.version('agentguard')}")
        context.exit()


@click.group(
    "agentguard", cls=Root, epilog=CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
              help="Print the version.")  # fmt: skip
def main() -> None:
    """Operate the AI agents you run: what they did, what waits, what is in doubt.

    Data goes to stdout, messages to stderr. Ids may be shortened.
    """


for _noun in _NOUNS:
    main.add_command(_noun)
