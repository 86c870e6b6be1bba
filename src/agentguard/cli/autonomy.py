"""`agentguard autonomy`: how far tools may go by themselves, by their outcomes and by operators' word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..autonomy import STAGES
from .levels import demotion_line
from .output import Column, Line, show_list, show_one
from .shapes import iso
from .shell import CODES, Group, decided_by, say, shell
from .text import count, escaped, instant, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..ledger.autonomy import Standing
    from ..record import StageChange, Step
    from .loading import Page

_KEYS = (
    "JSON keys: tenant, tool, stage, pinned, passed, failed, sure, changed_at, changed_by, reason."
)


@click.group("autonomy", cls=Group)
def autonomy() -> None:
    """How far tools may go by themselves: list, pin, unpin, incident."""


@autonomy.command("list", epilog=_KEYS)
def list_standings() -> None:
    """List the tools that have earned a stage, are pinned, or have verified outcomes counted.

    What service levels have taken away is told on stderr; `agentguard slo status` says more.
    """
    with shell().guard() as guard:
        found = guard.standings(tenant=shell().tenant)
        demoted = guard.slos.status(tenant=shell().tenant)
    for level in demoted:
        if level.head.stage is not None:
            say(demotion_line(level, configured=False))
    show_list(found, standing_json, _COLUMNS, "nothing is known of any tool: none is pinned, and no"
              " verified outcome was counted")  # fmt: skip


def standing_json(standing: Standing) -> dict[str, Any]:
    """Return how a tool stands as JSON."""
    return {
        "tenant": standing.tenant, "tool": standing.tool, "stage": standing.stage,
        "pinned": standing.pinned, "passed": standing.passed, "failed": standing.failed,
        "sure": f"{standing.sure:.4f}", "changed_at": iso(standing.changed_at),
        "changed_by": standing.changed_by or None, "reason": standing.reason or None,
    }  # fmt: skip


def _outcomes(standing: Standing) -> str:
    total = standing.passed + standing.failed
    return f"{standing.passed} of {total} ({standing.sure:.3f})" if total else "-"


_COLUMNS: list[Column[Standing]] = [
    Column("tool", lambda s: escaped(s.tool), flex=12),
    Column("tenant", lambda s: escaped(s.tenant), flex=6, spare=2),
    Column("earned", lambda s: s.stage or "-"),
    Column("pinned", lambda s: s.pinned or "-"),
    Column("verified since (at least)", _outcomes),
    Column("by", lambda s: escaped(s.changed_by) or "-", flex=8, spare=1),
    Column("reason", lambda s: escaped(s.reason) or "-", flex=8, spare=3),
    Column("changed", lambda s: instant(s.changed_at), spare=4),
]


@autonomy.command("pin", epilog=CODES)
@click.argument("tool")
@click.argument("stage", type=click.Choice(STAGES))
@decided_by
def pin(tool: str, stage: str, by: str, reason: str) -> None:
    """Pin TOOL at STAGE, whatever it has earned; what runs and configuration say caps it."""
    _needs_reason("pin", reason)
    with shell().guard() as guard:
        now = guard.pin(tool, stage, by=by, reason=reason, tenant=shell().tenant)
    _told(now, f"{tool} is pinned at {stage}; agentguard autonomy unpin {tool} takes that back")


@autonomy.command("unpin", epilog=CODES)
@click.argument("tool")
@decided_by
def unpin(tool: str, by: str, reason: str) -> None:
    """Take the pin of TOOL away: what it has earned counts again."""
    _needs_reason("unpin", reason)
    with shell().guard() as guard:
        now = guard.unpin(tool, by=by, reason=reason, tenant=shell().tenant)
    _told(now, f"{tool} is not pinned any more; it has earned {now.stage or 'nothing yet'}")


@autonomy.command("incident", epilog=CODES)
@click.argument("tool")
@decided_by
@click.option("--config", metavar="FILE", type=click.Path(),
              help="The runs' configuration: how far down, and from where.")  # fmt: skip
def incident(tool: str, by: str, reason: str, config: str | None) -> None:
    """Take TOOL one stage down after an incident; its verified outcomes count anew."""
    _needs_reason("incident", reason)
    with shell().guard(config) as guard:
        now = guard.incident(tool=tool, by=by, reason=reason, tenant=shell().tenant)
    pinned = f", but it is pinned at {now.pinned}" if now.pinned else ""
    _told(now, f"{tool} has {now.stage} now{pinned}")


def _needs_reason(verb: str, reason: str) -> None:
    if not reason.strip():
        raise click.UsageError(f"{verb} needs --reason: it stands in the record")


def _told(standing: Standing, text: str) -> None:
    say(text)
    if shell().output != "text":
        show_one(standing_json(standing))


def change_json(change: StageChange) -> dict[str, Any]:
    """Return a change of a stage as JSON."""
    return {
        "at": iso(change.at), "step": change.step, "tool": change.tool, "from": change.before,
        "to": change.after, "why": change.why, "by": change.by, "passed": change.passed,
        "failed": change.failed, "reason": change.reason or None, "slo": change.slo,
    }  # fmt: skip


def change_lines(page: Page) -> Iterator[Line]:
    """Yield how tools moved up and down in a run."""
    for change in page.changes:
        moved = f"{escaped(change.tool)}: {change.before or '-'} -> {change.after or '-'}"
        total, kind = change.passed + change.failed, "outcome" if change.slo else "verified outcome"
        verb = "were good" if change.slo else "passed"
        counted = f", {change.passed} of {count(total, kind)} {verb}" if total else ""
        who = "" if change.by.startswith("system:") else f" by {escaped(change.by)}"
        step = "" if change.step is None else f", step {change.step}"
        why = f": {escaped(change.reason)}" if change.reason else ""
        yield Line("autonomy", f"{moved}, {change.why}{who}{step}{counted}{why}", "note")


def draft_hint(step: Step) -> Line:
    """Return what a person can do about a draft."""
    question = step.questions[-1]
    name, noun = short(question.approval_id), "proposal" if question.stage == "propose" else "draft"
    if step.outcome == "approved":
        mend = f"agentguard approvals execute {name} --by YOU --tools MODULE"
        return Line(noun, f"step {step.number} is approved: {mend}", "approved")
    return Line(noun, f"step {step.number}: agentguard approvals show {name}", "drafted")
