"""A run as a whole: its row, its steps, its effects and what waits, read for one page."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..ledger import queries
from ..record import (
    Checked,
    Costs,
    Drift,
    RouteChange,
    StageChange,
    Step,
    Stop,
    changes,
    costs_of,
    drift,
    fold,
    route_changes,
    stops,
    verdicts,
)
from .shell import busy, found, shell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..guard import Guard
    from ..model import Approval, Effect, RunInfo

_ALL = 100_000


@dataclass(frozen=True)
class Page:
    """What `runs show` shows.

    Attributes:
        tally: how many effects were written, started again, wait, are in doubt.
        effects: the run's effects by key.
        now: by the store's clock.
        costs: what it cost, by what for.
        drift: how it stands to its plan, if it has one.
        changes: how tools moved up and down in it.
        verdicts: what was said of it as a whole.
        routes: when heavier models took over in it.
    """

    run: RunInfo
    steps: list[Step]
    stops: list[Stop]
    tally: Mapping[str, int]
    effects: Mapping[str, Effect]
    now: dt.datetime
    costs: Costs
    drift: Drift | None
    changes: list[StageChange]
    verdicts: list[Checked]
    routes: list[RouteChange]

    def undo(self, step: Step) -> str | None:
        """Return what is declared to undo a step."""
        effect = self.effects.get(step.key or "")
        return effect.undo if effect else None


def now(guard: Guard) -> dt.datetime:
    """Return the time by the store's clock."""
    return dt.datetime.fromtimestamp(guard.store.clock.now() / 1_000_000, dt.UTC)


def run_named(guard: Guard, name: str) -> RunInfo:
    """Return the run of this id or beginning.

    Raises:
        Failure: there is none, or more than one.
    """
    tenant = shell().tenant
    return found(
        lambda: guard.runs.show(name, tenant=tenant),
        lambda: [
            run.id if run.tenant == "default" else f"{run.id} --tenant {run.tenant}"
            for run in guard.store.read(queries.run, tenant, name)
        ],
    )


def approval_named(guard: Guard, name: str) -> Approval:
    """Return the approval of this id or beginning.

    Raises:
        Failure: there is none, or more than one.
    """
    tenant = shell().tenant
    return found(
        lambda: guard.approvals.show(name, tenant=tenant),
        lambda: [a.id for a in guard.store.read(queries.approval, tenant, name)],
    )


def effect_named(guard: Guard, name: str) -> Effect:
    """Return the effect of this id or beginning.

    Raises:
        Failure: there is none, or more than one.
    """
    tenant = shell().tenant
    return found(
        lambda: guard.effects.show(name, tenant=tenant),
        lambda: [e.id for e in guard.store.read(queries.effect, tenant, name)],
    )


def tally_of(guard: Guard, run: RunInfo) -> Mapping[str, int]:
    """Return how many effects of a run were written, started again, wait, are in doubt."""
    return guard.store.read(queries.tally, run.tenant, run.id)


def page_of(guard: Guard, name: str) -> Page:
    """Read a run as a whole."""
    run = run_named(guard, name)
    with busy("reading the record"):
        events = guard.runs.events(run.id, tenant=run.tenant)
        rows = guard.effects.list(run_id=run.id, tenant=run.tenant, limit=_ALL)
        steps = [_current(guard, run, step) for step in fold(events, run.steps)]
        return Page(
            run,
            steps,
            stops(events),
            tally_of(guard, run),
            {row.id: row for row in rows},
            now(guard),
            costs_of(events),
            drift(events),
            changes(events),
            verdicts(events),
            route_changes(events),
        )


def _current(guard: Guard, run: RunInfo, step: Step) -> Step:
    """Time runs out without an event: a waiting step may have expired meanwhile."""
    if step.outcome not in ("waiting", "drafted", "approved"):
        return step
    last = step.questions[-1]
    approval = guard.approvals.show(last.approval_id, tenant=run.tenant)
    if approval.status != "expired":
        return step
    lapsed = replace(last, status="expired", decided_at=approval.expires_at)
    questions = (*step.questions[:-1], lapsed)
    return replace(step, outcome="expired", ended_at=approval.expires_at, questions=questions)
