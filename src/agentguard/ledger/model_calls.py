"""Model calls: counted and paid from the run's budget before they are dispatched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import switches
from .runs import RunLog
from .values import Draft, Pending, Refused, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Limits, Usage
    from ..protocols import Tx


@dataclass(frozen=True, slots=True)
class ModelStart:
    """A model call about to be dispatched; *hold* is its worst case in nano-dollars."""

    run: RunRef
    agent: str
    model: str
    limits: Limits
    hold: int
    pending: Pending


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """A model call that came back; *cost* is None when no price is known."""

    run: RunRef
    step: int
    hold: int
    cost: int | None
    input_tokens: int
    output_tokens: int
    data: Mapping[str, Any]
    content: Mapping[str, Any] | None
    pending: Pending


@dataclass(frozen=True, slots=True)
class ModelStarted:
    """The step of a model call that may be dispatched."""

    step: int


def begin_model(tx: Tx, start: ModelStart) -> tuple[ModelStarted | Refused, Usage]:
    """Reserve a model call, or refuse it before a token is spent."""
    log = RunLog(tx, start.run)
    log.absorb(start.pending)
    refusal = (
        log.stopped()
        or switches.closed(tx, start.run.tenant, start.agent, "")
        or log.over(start.limits, step=True, tool=False, model=True, cost=start.hold)
    )
    if refusal is not None:
        refusal.run_id, refusal.step = start.run.run_id, log.last_step
        log.add(Draft("budget.exceeded", {**refusal.details(), "error": refusal.kind,
                                          "model": start.model}, log.last_step))  # fmt: skip
        return Refused(refusal, log.last_step), log.save()
    step = log.next_step()
    log.model_calls += 1
    log.held += start.hold
    return ModelStarted(step), log.save()


def end_model(tx: Tx, end: ModelEnd) -> Usage:
    """Settle a model call: what it really used, and what it was asked and answered."""
    log = RunLog(tx, end.run)
    log.absorb(end.pending)
    log.held -= end.hold
    log.spent += end.cost or 0
    log.cost_complete = int(bool(log.cost_complete) and end.cost is not None)
    log.input_tokens += end.input_tokens
    log.output_tokens += end.output_tokens
    log.add(Draft("model.called", end.data, end.step, end.content))
    return log.save()
