"""`agentguard runs`: what agents did, step by step, and how to stop one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .autonomy import change_json, change_lines
from .effects import effect_columns
from .estimating import estimate
from .loading import now, page_of, run_named, tally_of
from .output import Column, console, is_terminal, sheet, show_list, show_one, table
from .planview import costs_json, drifted, plan_json
from .rolling import rollback
from .routing import route_json, route_lines
from .runview import cost_of, draw, header, hints, legend, step_columns
from .shapes import RunJson, StepJson, effect_json, keys, run_json, step_json, stop_json
from .shell import CODES, Failure, Group, careful, confirmed, decided_by, say, shell
from .steps import answers
from .text import ago, count, escaped, instant
from .verdicts import verdict_json
from .watching import watch_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..guard import Guard
    from ..model import RunInfo
    from .loading import Page

ENDED = ("succeeded", "failed", "halted", "cancelled")
STATUSES = ("running", "waiting", *ENDED)


@click.group("runs", cls=Group)
def runs() -> None:
    """Runs of agents: list, show, watch, cancel, answer, roll back."""


@runs.command("list", epilog=keys(RunJson))
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many."
)
def list_runs(status: str | None, limit: int) -> None:
    """List runs, newest first."""
    with shell().guard() as guard:
        found = guard.runs.list(status=status, tenant=shell().tenant, limit=limit)
        tallies = {(run.tenant, run.id): tally_of(guard, run) for run in found}
        show_list(
            found, lambda run: run_json(run, tallies[run.tenant, run.id]),
            _columns(guard, tallies), _no_runs(status),
        )  # fmt: skip


def _no_runs(status: str | None) -> str:
    if status:
        return f"no run is {status}; agentguard runs list shows all"
    return "no runs yet: run an agent with agentguard, or try `agentguard demo`"


def _columns(
    guard: Guard, tallies: Mapping[tuple[str, str], Mapping[str, int]]
) -> list[Column[RunInfo]]:
    at = now(guard)

    def counted(title: str, name: str, state: str = "", spare: int = 0) -> Column[RunInfo]:
        def number(run: RunInfo) -> int:
            return tallies[run.tenant, run.id][name]

        return Column(
            title, lambda run: str(number(run) or "-"), right=True,
            state=lambda run: state if number(run) else "", spare=spare,
        )  # fmt: skip

    return [
        Column("run", lambda run: escaped(run.id), flex=20),
        Column("workflow", lambda run: escaped(run.workflow), flex=14),
        Column("status", lambda run: run.status, state=lambda run: run.status),
        Column("part", lambda run: str(run.part), right=True, spare=4),
        Column("steps", lambda run: str(run.steps), right=True, spare=2),
        counted("writes", "writes", spare=3),
        counted("retries", "retries", spare=1),
        counted("waits", "waiting", "waiting"),
        counted("doubts", "in_doubt", "in_doubt"),
        Column("cost", cost_of, right=True),
        Column("started", lambda run: instant(run.started_at), lambda run: ago(run.started_at, at)),
    ]


@runs.command(
    "show",
    epilog=f"{keys(RunJson)} Besides: timeline, stops, costs, plan, autonomy, routing, verdicts. Of"
    f" a step in the timeline: {keys(StepJson)}",
)
@click.argument("run")
@click.option(
    "--step", type=click.IntRange(1), metavar="N", help="Answer everything about one step."
)
@click.option("--writes", is_flag=True, help="List all that this run wrote, or may have written.")
def show(run: str, step: int | None, writes: bool) -> None:  # noqa: FBT001 - click gives it by name
    """Show RUN: its budget, its steps on one time axis, and what waits."""
    if step is not None and writes:
        raise click.UsageError("--step and --writes are two questions: ask one")
    with shell().guard() as guard:
        page = page_of(guard, run)
        if step is not None:
            _show_step(guard, page, step)
        elif writes:
            _show_writes(page)
        else:
            _show_run(page)


def _show_run(page: Page) -> None:
    if shell().output != "text":
        show_one({
            **run_json(page.run, page.tally),
            "timeline": [step_json(step, page.now, page.undo(step)) for step in page.steps],
            "stops": [stop_json(stop) for stop in page.stops],
            "costs": costs_json(page.costs),
            "plan": plan_json(page.drift),
            "verdicts": [verdict_json(verdict) for verdict in page.verdicts],
            "autonomy": [change_json(change) for change in page.changes],
            "routing": [route_json(change) for change in page.routes],
        })  # fmt: skip
        return
    sheet(list(header(page)))
    click.echo()
    if not page.steps:
        say("no steps yet")
    elif is_terminal() and draw(page):
        console().print(legend(page))
    else:
        table(page.steps, step_columns(page))
    told = [*drifted(page.drift), *change_lines(page), *route_lines(page), *hints(page)]
    if told:
        click.echo()
        sheet(told)


def _show_writes(page: Page) -> None:
    found = sorted((e for e in page.effects.values() if e.kind == "write"), key=lambda e: e.step)
    none = f"{page.run.id} wrote nothing; agentguard runs show {page.run.id} shows its steps"
    show_list(found, effect_json, effect_columns(page.now), none)


def _show_step(guard: Guard, page: Page, number: int) -> None:
    step = next((step for step in page.steps if step.number == number), None)
    if step is None:
        has = f"it has {count(len(page.steps), 'step')}"
        raise Failure(f"run {page.run.id} has no step {number}: {has}")
    tenant = page.run.tenant
    effect = guard.effects.show(step.key, tenant=tenant) if step.key else None
    approvals = {
        question.approval_id: guard.approvals.show(question.approval_id, tenant=tenant)
        for question in step.questions
    }
    data = step_json(step, page.now, effect.undo if effect else None)
    show_one(data, lambda: answers(page, step, effect, approvals))


@runs.command("watch", epilog=CODES)
@click.argument("run")
@click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Stop then, with exit 4."
)
def watch(run: str, timeout: float | None) -> int:
    """Follow RUN until it ends: a line for every event. Exit 1 if it does not succeed.

    With -o json or jsonl each line is one event.
    """
    with shell().guard() as guard:
        return watch_run(guard, run_named(guard, run), timeout)


@runs.command("cancel", epilog=CODES)
@click.argument("run")
@decided_by
@careful
def cancel(run: str, by: str, reason: str, dry_run: bool, yes: bool) -> None:  # noqa: FBT001 - click
    """Stop RUN for good: nothing more starts in it, and it cannot be resumed."""
    if not reason.strip():
        raise click.UsageError("cancelling a run needs --reason: it is what the agent is told")
    with shell().guard() as guard:
        found = run_named(guard, run)
        if found.status in ENDED:
            raise Failure(f"run {found.id} is {found.status} already; nothing was changed")
        if confirmed(f"cancel run {found.id} ({found.status}) for good", dry_run=dry_run, yes=yes):
            guard.runs.cancel(found.id, by=by, reason=reason, tenant=found.tenant)
            say(f"run {found.id} is cancelled")


@runs.command("answer", epilog=CODES)
@click.argument("run")
@click.argument("text")
@click.option(
    "--by", required=True, envvar="AGENTGUARD_BY", show_envvar=True, metavar="PERSON",
    help="Who answers.",
)  # fmt: skip
def answer(run: str, text: str, by: str) -> None:
    """Answer the question of RUN with TEXT: the run may go on and write again.

    The answer allows nothing by itself; what needs an approval still needs one.
    """
    with shell().guard() as guard:
        found = run_named(guard, run)
        guard.runs.answer(found.id, text, by=by, tenant=found.tenant)
        say(f"run {found.id} has its answer and may be entered again under its id")


runs.add_command(estimate)
runs.add_command(rollback)
