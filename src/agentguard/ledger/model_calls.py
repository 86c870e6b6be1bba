"""Model calls: counted and paid from the run's budget before they are dispatched."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..protocols import foreseen
from . import switches
from .runs import RunLog, asked
from .sealed import reading
from .values import Draft, Pending, Refused, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Limits, Usage
    from ..protocols import Tx


@dataclass(slots=True, eq=False)
class Done:
    """Whether something was written; known also if its caller was interrupted meanwhile.

    Attributes:
        durable: it is.
        tx: the transaction that writes it, until that is durable; one that is undone never is.
    """

    durable: bool = False
    tx: Tx | None = None

    def note(self, tx: Tx) -> None:
        """Remember that *tx* writes it."""
        self.tx = tx
        tx.after_commit(self._keep)

    def _keep(self) -> None:
        self.durable, self.tx = True, None

    def before(self, tx: Tx) -> bool:
        """Return whether it was written before now, as *tx* sees it."""
        return self.durable or self.tx is tx


@dataclass(slots=True, eq=False)
class ModelState:
    """What became of a model call: reserved once, settled once, whoever tries."""

    step: int = 0
    reserved: Done = field(default_factory=Done)
    settled: Done = field(default_factory=Done)


@dataclass(frozen=True, slots=True)
class ModelStart:
    """A model call about to be dispatched; *hold* is its worst case in nano-dollars."""

    run: RunRef
    agent: str
    model: str
    limits: Limits
    hold: int
    pending: Pending
    state: ModelState


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """A model call that came back; *cost* is None when no price is known."""

    run: RunRef
    state: ModelState
    hold: int
    cost: int | None
    input_tokens: int
    output_tokens: int
    data: Mapping[str, Any]
    content: Mapping[str, Any] | None
    pending: Pending


def models_called(tx: Tx, tenant: str, run_id: str, after: int) -> tuple[list[str], int]:
    """Return which models a run has called after an event, and the last event that was read.

    Models that were asked to verify have proposed nothing.
    """
    rows = list(tx.rows(
        "SELECT seq, data FROM events"
        " WHERE tenant = ? AND run_id = ? AND seq > ? AND kind = 'model.called' ORDER BY seq",
        (tenant, run_id, after),
    ))  # fmt: skip
    with reading(f"the record of run {run_id}"):
        facts = [json.loads(data) for _, data in rows]
        last = rows[-1][0] if rows else after
        return [str(fact["model"]) for fact in facts if not fact.get("verifier")], last


@foreseen(lambda start: (*asked(start.run), *switches.asked(start.run.tenant, start.agent, "")))
def begin_model(tx: Tx, start: ModelStart) -> tuple[Refused | None, Usage]:
    """Reserve a model call, or refuse it before a token is spent."""
    log = RunLog(tx, start.run)
    log.absorb(start.pending)
    refusal = (
        log.stopped()
        or log.closed()
        or switches.closed(tx, start.run.tenant, start.agent, "")
        or log.over(start.limits, step=True, tool=False, model=True, cost=start.hold)
    )
    if refusal is not None:
        refusal.run_id, refusal.step = start.run.run_id, log.last_step
        log.add(Draft("budget.exceeded", {**refusal.details(), "error": refusal.kind,
                                          "model": start.model}, log.last_step))  # fmt: skip
        return Refused(refusal, log.last_step), log.save()
    start.state.step = log.next_step()
    log.model_calls += 1
    log.held += start.hold
    usage = log.save()
    start.state.reserved.note(tx)
    return None, usage


@foreseen(lambda end: asked(end.run))
def end_model(tx: Tx, end: ModelEnd) -> Usage:
    """Settle a model call: what it really used, and what it was asked and answered.

    Nothing is settled that was never reserved, or twice.
    """
    log, made = RunLog(tx, end.run), end.state
    log.absorb(end.pending)
    if made.settled.before(tx) or not made.reserved.before(tx):
        return log.save()
    log.held -= end.hold
    log.spent += end.cost or 0
    log.cost_complete = int(bool(log.cost_complete) and end.cost is not None)
    log.input_tokens += end.input_tokens
    log.output_tokens += end.output_tokens
    log.add(Draft("model.called", end.data, made.step, end.content))
    usage = log.save()
    made.settled.note(tx)
    return usage
