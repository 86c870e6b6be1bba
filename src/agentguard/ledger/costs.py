"""Costs that no call reserves: recorded when they are known, and counted against the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .runs import RunLog
from .sealed import reading
from .values import Draft, Pending, RunRef

if TYPE_CHECKING:
    from decimal import Decimal

    from ..errors import BudgetExceeded
    from ..model import Limits, Usage
    from ..protocols import Tx

KIND = "cost.added"


@dataclass(frozen=True, slots=True)
class Cost:
    """One cost of a run.

    Attributes:
        kind: retrieval, tool, human or other.
        nanos: nano-dollars; None if nobody knows what it costs.
        step: the step of the run that it belongs to; *tool*, where that call has none yet.
        retry: it was caused by trying again.
        minutes: of a person, as text.
        by: that person.
        note: kept beside the chain.
        limits: refuse it where these leave no room: it is not spent yet.
    """

    kind: str
    nanos: int | None
    step: int | None = None
    retry: bool = False
    minutes: str | None = None
    by: str | None = None
    note: str = ""
    limits: Limits | None = None
    tool: str | None = None

    def draft(self) -> Draft:
        """Return the event that tells of it."""
        data: dict[str, Any] = {"kind": self.kind, "nanos": self.nanos}
        if self.retry:
            data["retry"] = True
        if self.tool is not None:
            data["tool"] = self.tool
        if self.minutes is not None:
            data |= {"minutes": self.minutes, "by": self.by}
        return Draft(KIND, data, self.step, {"note": self.note} if self.note else None)


def add_cost(
    tx: Tx, ref: RunRef, cost: Cost, pending: Pending
) -> tuple[BudgetExceeded | None, Usage]:
    """Count a cost. What is spent already is never refused: it closes the budget instead."""
    log = RunLog(tx, ref)
    log.absorb(pending)
    limits = cost.limits
    over = (
        None
        if limits is None
        else log.over(limits, step=False, tool=False, model=False, cost=cost.nanos or 0)
    )
    if over is not None:
        fact = {**over.details(), "cost": cost.kind}
        log.add(Draft("budget.exceeded", fact, log.last_step or None))
        return over, log.save()
    count(log, cost)
    return None, log.save()


def count(log: RunLog, cost: Cost) -> None:
    """Write a cost into a run whose row this transaction holds."""
    log.spent += cost.nanos or 0
    log.cost_complete = int(bool(log.cost_complete) and cost.nanos is not None)
    log.add(cost.draft())


def count_decision(tx: Tx, log: RunLog, by: str, step: int) -> None:
    """Count what a person's decision costs, as the run's first entry says; it stops no decision."""
    row = tx.row(
        "SELECT data FROM events WHERE tenant = ? AND run_id = ? AND seq = 1",
        (log.ref.tenant, log.ref.run_id),
    )
    with reading(f"the record of run {log.ref.run_id}"):
        said = None if row is None else json.loads(row[0]).get("decision_costs")
        cost = said and Cost("human", said["nanos"], step, minutes=said["minutes"], by=by)
    if cost:
        count(log, cost)


def minutes_text(minutes: Decimal) -> str:
    """Return minutes as the record holds them: no floats."""
    return format(minutes.normalize(), "f")
