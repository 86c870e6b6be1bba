"""The command `agentguard`: what operators do, from a shell."""

from __future__ import annotations

from importlib import metadata

import click

from . import (
    approvals,
    artifacts,
    autonomy,
    check,
    completion,
    costs,
    demo,
    doctor,
    effects,
    kill,
    policy,
    runs,
    slo_status,
    store,
)
from .shell import CODES, Root

_NOUNS = (
    demo.demo, doctor.doctor, check.check, runs.runs, approvals.approvals, effects.effects, policy.policy,
    autonomy.autonomy, costs.costs, artifacts.artifacts,
    kill.kill, slo_status.slo, store.store, completion.completion,
)  # fmt: skip


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
