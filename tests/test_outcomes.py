"""How runs come out: the one word that record, spans and service levels share."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from agentguard import Guard, falls_back_to, idempotent, requires_approval, tool_contract
from agentguard.errors import GuardError
from agentguard.outcomes import RUN_OUTCOMES, run_outcome


@pytest.mark.parametrize(
    ("stands", "outcome"),
    [
        (("succeeded",), "success"),
        (("failed", "ValueError"), "failure"),
        (("failed", "effect_in_doubt"), "failure"),
        (("failed", "budget_exceeded"), "budget_exceeded"),
        (("failed", "loop_detected"), "budget_exceeded"),
        (("failed", "run_halted"), "aborted"),
        (("failed", "CancelledError"), "aborted"),
        (("failed", "approval_rejected"), "escalated"),
        (("failed", "action_drafted"), "escalated"),
        (("halted", None, "ticket"), "escalated"),
        (("halted", "run_halted"), "aborted"),
        (("cancelled", "budget_exceeded"), "aborted"),
        (("waiting", None, "ask"), "pending"),
        (("waiting",), "pending"),
    ],
)
def test_every_end_of_a_run_has_one_word(stands: tuple[Any, ...], outcome: str) -> None:
    """How a run stands, what ended it and its safe ending make one outcome."""
    assert run_outcome(*stands) == outcome
    assert outcome in RUN_OUTCOMES


def _told(guard: Guard) -> list[str]:
    """Return what the ends of all runs say, the first run first."""
    found = [guard.runs.events(run.id) for run in reversed(guard.runs.list())]
    return [e.data["outcome"] for events in found for e in events if e.kind == "run.finished"]


@tool_contract(effect="write")
@idempotent(key="book:{at}")
def book(at: int) -> int:
    """Book."""
    if at < 0:
        raise ValueError(at)
    return at


@requires_approval(when="at > 5")
@tool_contract(effect="write")
@idempotent(key="late:{at}")
def book_late(at: int) -> int:
    """Book, late ones only with a yes."""
    return at


@falls_back_to("draft")
@tool_contract(effect="write")
@idempotent(key="draft:{at}")
def book_or_draft(at: int) -> int:
    """Book, or end the run with a draft."""
    return at


@pytest.mark.parametrize(
    ("call", "at", "limit", "outcome"),
    [
        (book, 1, 9, "success"),
        (book, -1, 9, "failure"),
        (book_late, 7, 9, "pending"),
        (book, 1, 0, "budget_exceeded"),
        (book_or_draft, 1, 0, "escalated"),
    ],
)
def test_the_record_says_how_a_run_came_out(call: Any, at: int, limit: int, outcome: str) -> None:
    """The event of a run's end carries its outcome, so that no reader has to guess."""
    guard = Guard("memory://")
    with contextlib.suppress(GuardError), guard.run("w", max_tool_calls=limit):
        call(at)
    assert _told(guard) == [outcome]


def test_a_cancelled_run_is_told_as_aborted() -> None:
    """What an operator cancels came out aborted."""
    guard = Guard("memory://")
    with pytest.raises(GuardError), guard.run("w", run_id="r"):
        book_late(7)
    guard.runs.cancel("r", by="ops", reason="no more")
    assert _told(guard) == ["pending", "aborted"]
