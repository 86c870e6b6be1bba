"""`agentguard slo status|report|override|lift`: how service levels stand, and who lifts a demotion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from .levels import (
    COLUMNS,
    REPORT_KEYS,
    STATUS_KEYS,
    demotion_line,
    level_json,
    report_json,
    report_lines,
)
from .output import show_list, show_one
from .shell import CODES, Exit, Failure, decided_by, say, shell
from .slo import DEFAULT_FILE, slo, with_config

if TYPE_CHECKING:
    from ..ledger.levels import Level

__all__ = ["slo"]


def _file(file: str | None) -> str | None:
    """Return the configuration that was named, or `agent_run.yaml` where there is one."""
    return file or (DEFAULT_FILE if Path(DEFAULT_FILE).exists() else None)


@slo.command("status", epilog=f"{STATUS_KEYS} {CODES}")
@click.option("--check", is_flag=True,
              help="Exit with 5 if one burns, is exhausted, or has taken autonomy away.")  # fmt: skip
@with_config
def status(file: str | None, *, check: bool) -> int:
    """Show how the service levels stand: what was good, how sure that is, what is left, what follows.

    Without a configuration only those are shown that have taken autonomy away.
    """
    with shell().guard(_file(file)) as guard:
        found = guard.slos.status(tenant=shell().tenant)
    show_list(found, level_json, COLUMNS, "no service level is declared here, and none has taken"
              " autonomy away; name the configuration with --config FILE")  # fmt: skip
    if shell().output == "text":
        for level in found:
            if level.head.stage is not None:
                say(demotion_line(level))
    return Exit.CHECK_FAILED if check and any(map(_is_bad, found)) else Exit.DONE


def _is_bad(level: Level) -> bool:
    burns = level.now is not None and level.now.state in ("burning", "exhausted")
    return burns or level.head.stage is not None


@slo.command("report", epilog=f"{REPORT_KEYS} {CODES}")
@click.argument("name")
@click.option("--days", type=click.IntRange(1, 366), default=28, show_default=True,
              help="So many days, today included.")  # fmt: skip
@with_config
def report(name: str, days: int, file: str | None) -> None:
    """Show what the service level NAME counted day by day, and the runs that spent its budget."""
    with shell().guard(_file(file)) as guard:
        try:
            found = guard.slos.report(name, days=days, tenant=shell().tenant)
        except ConfigurationError as error:
            raise Failure(error.message) from None
    show_one(report_json(found), lambda: report_lines(found))


@slo.command("override", epilog=CODES)
@click.argument("name")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), required=True,
              help="For so long; then it counts again.")  # fmt: skip
@decided_by
@with_config
def override(name: str, hours: float, by: str, reason: str, file: str | None) -> None:
    """Lift what the service level NAME has taken away, for some hours; it goes on counting."""
    _needs_reason("override", reason)
    with shell().guard(_file(file)) as guard:
        guard.slos.override(name, by=by, reason=reason, hours=hours, tenant=shell().tenant)
        found = [
            level for level in guard.slos.status(tenant=shell().tenant) if level.head.slo == name
        ]
    for level in found:
        say(
            demotion_line(level)
            if level.head.stage
            else f"{name} takes nothing away for {hours:g} h"
        )
    if shell().output != "text":
        show_list(found, level_json, COLUMNS)


@slo.command("lift", epilog=CODES)
@click.argument("name")
@decided_by
@with_config
def lift(name: str, by: str, reason: str, file: str | None) -> None:
    """End the override of the service level NAME: what it has taken away counts again."""
    _needs_reason("lift", reason)
    with shell().guard(_file(file)) as guard:
        head = guard.slos.lift(name, by=by, reason=reason, tenant=shell().tenant)
    say(f"{name} counts again: {head.over.replace(':', ' ')} is at {head.stage or 'auto'}")


def _needs_reason(verb: str, reason: str) -> None:
    if not reason.strip():
        raise click.UsageError(f"{verb} needs --reason: it stands in the record")
