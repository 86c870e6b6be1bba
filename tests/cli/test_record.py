"""A run's events folded into steps: the paths that an ordinary run does not take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from agentguard import Guard, current_run
from agentguard.model import Event
from agentguard.record import Step, fold, stops
from tests.cli import world

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
STARTED = {
    "tool": "refund", "effect": "write", "key": "k1", "rule": "no rule asks", "decision": "allow",
    "payload_hash": "h", "contract": "1", "policy": "p", "fence": 1, "attempt": 1,
}  # fmt: skip
ASKED = {
    "approval_id": "ap_1", "generation": 1, "rule": "always", "roles": [], "quorum": 1,
    "payload_hash": "h", "preview_hash": "x",
}  # fmt: skip


def events(*told: tuple[int | None, str, Mapping[str, Any]]) -> list[Event]:
    """Return events of a run, a second apart."""
    return [
        Event("r", seq, NOON + dt.timedelta(seconds=seq), step, kind, "agent:a", data, None, "", "")
        for seq, (step, kind, data) in enumerate(told, 1)
    ]


def one(*told: tuple[int | None, str, Mapping[str, Any]]) -> Step:
    """Return the only step of these events."""
    (step,) = fold(events(*told))
    return step


def finished(outcome: str, **more: Any) -> dict[str, Any]:
    """Return what the end of a body says."""
    return {"outcome": outcome, "tool": "refund", "attempt": 1, **more}


def test_no_events_are_no_steps() -> None:
    """Nothing on record is no step, whatever was counted."""
    assert fold([], 3) == []


def test_a_number_without_events_is_a_model_call_without_an_end() -> None:
    """Only a model call takes a number before it is written down, so a gap is one."""
    found = fold(events((2, "model.called", {"model": "m", "cost_nanos": None})), 3)
    assert [(step.number, step.kind, step.outcome) for step in found] == [
        (1, "model", "open"), (2, "model", "succeeded"), (3, "model", "open"),
    ]  # fmt: skip


def test_a_model_call_that_failed_says_so() -> None:
    """The error of a model call is its outcome; a price nobody knows is no cost."""
    step = one((1, "model.called", {"model": "m", "error": "Timeout", "cost_nanos": None}))
    assert (step.outcome, step.detail, step.cost_usd) == ("failed", "Timeout", None)


def test_a_call_without_an_end_is_executing() -> None:
    """A body that has started and not ended is executing, with what it holds."""
    step = one((1, "step.started", {**STARTED, "run_nanos": 5_000_000_000, "budgets": []}))
    assert (step.outcome, step.ended_at, step.held_usd) == ("executing", None, Decimal("5.00"))


def test_a_lost_owner_leaves_a_doubt() -> None:
    """A write whose process died is in doubt, and its attempt has ended."""
    step = one(
        (1, "step.started", STARTED),
        (1, "effect.in_doubt", {"key": "k1", "fence": 1, "reason": "owner_lost"}),
    )
    assert (step.outcome, step.doubt) == ("in_doubt", "owner_lost")
    assert (step.attempts[0].outcome, step.attempts[0].lost) == ("in_doubt", True)


def test_a_lost_owner_of_a_read_leaves_no_doubt() -> None:
    """A read whose process died may simply be started again."""
    step = one(
        (1, "step.started", {**STARTED, "effect": "read"}),
        (1, "attempt.failed", {"key": "k1", "fence": 1, "reason": "owner_lost"}),
    )
    assert (step.kind, step.outcome) == ("read", "failed_retryable")


def test_a_late_answer_resolves_the_doubt() -> None:
    """An answer under the same fence ends the doubt with what it says."""
    step = one(
        (1, "step.started", STARTED),
        (1, "effect.in_doubt", {"key": "k1", "fence": 1, "reason": "timeout"}),
        (1, "step.finished", finished("in_doubt", error="ToolTimeout")),
        (1, "step.finished", finished("succeeded", spent_nanos=7_000_000_000, happened=True)),
    )
    assert (step.outcome, step.doubt, step.cost_usd) == ("succeeded", None, Decimal("7.00"))


def test_an_answer_after_a_ruling_is_evidence() -> None:
    """What comes after somebody took over is kept beside the outcome."""
    step = one(
        (1, "step.started", STARTED),
        (1, "effect.in_doubt", {"key": "k1", "fence": 1, "reason": "timeout"}),
        (1, "effect.resolved", {"key": "k1", "ruling": "failed", "fence": 1}),
        (1, "effect.evidence", {"key": "k1", "outcome": "succeeded", "fence": 1}),
    )
    assert step.outcome == "failed_final"
    assert step.late is not None


def test_a_backend_that_drops_repeats_is_asked_again() -> None:
    """Trying again under the same key is a ruling that ends nothing."""
    step = one(
        (1, "step.started", STARTED),
        (1, "effect.in_doubt", {"key": "k1", "fence": 1, "reason": "timeout"}),
        (1, "effect.resolved", {"key": "k1", "ruling": "retry_same_key", "fence": 1}),
        (1, "step.started", {"key": "k1", "fence": 2, "attempt": 1}),
        (1, "step.finished", finished("succeeded")),
    )
    assert [ruling.ruling for ruling in step.rulings] == ["retry_same_key"]
    assert [(a.fence, a.outcome) for a in step.attempts] == [(1, "in_doubt"), (2, "succeeded")]


def test_money_that_was_given_back_is_no_cost() -> None:
    """A failure without effect gives back what it held."""
    step = one(
        (1, "step.started", {**STARTED, "run_nanos": 1, "budgets": [["tool:refund", "run:r", 5]]}),
        (1, "step.finished", finished("failed_final", spent_nanos=0, happened=False)),
    )
    assert (step.cost_usd, step.held_usd, step.budgets) == (Decimal("0.00"), Decimal("0.00"), ())


def test_an_expired_question_is_told() -> None:
    """Nobody answered in time, and the call was denied."""
    step = one(
        (1, "step.decided", {**STARTED, "decision": "ask"}),
        (1, "approval.requested", ASKED),
        (1, "approval.expired", {"approval_id": "ap_1", "generation": 1}),
        (
            1,
            "step.decided",
            {**STARTED, "decision": "deny", "error": "approval_expired", "reason": "late"},
        ),
    )
    assert (step.outcome, step.questions[0].status, step.detail) == ("expired", "expired", "late")


def test_a_vote_short_of_the_quorum_leaves_it_waiting() -> None:
    """One yes of two is a vote, not a decision."""
    vote = {
        "approval_id": "ap_1", "generation": 1, "decision": "approve", "by": "ann", "roles": [],
        "status": "pending",
    }  # fmt: skip
    step = one(
        (1, "step.decided", {**STARTED, "decision": "ask"}),
        (1, "approval.requested", ASKED),
        (1, "approval.decided", vote),
    )
    assert (step.outcome, step.questions[0].decided_at) == ("waiting", None)
    assert step.questions[0].votes[0].person == "ann"


def test_what_belongs_to_an_unknown_question_is_left_out() -> None:
    """A record that begins in the middle is read as far as it goes."""
    step = one(
        (1, "approval.decided", {"approval_id": "ap_9"}),
        (1, "approval.used", {"approval_id": "ap_9", "payload_hash": "h"}),
    )
    assert step.questions == ()


def test_kinds_of_a_newer_version_are_skipped() -> None:
    """An event that this version does not know is counted and changes nothing."""
    step = one((1, "step.started", STARTED), (1, "something.new", {"a": 1}))
    assert (step.outcome, step.events) == ("executing", (1, 2))


def test_a_call_over_the_budget_leaves_the_last_step_alone() -> None:
    """A call refused for want of steps is told on the last one, which keeps its own end."""
    told = events(
        (1, "step.started", STARTED),
        (1, "step.finished", finished("succeeded")),
        (
            1,
            "step.decided",
            {
                **STARTED,
                "key": "k2",
                "tool": "mail",
                "decision": "deny",
                "error": "budget_exceeded",
            },
        ),
        (1, "budget.exceeded", {"budget": "max_steps", "limit": "1", "used": "1"}),
    )
    (step,) = fold(told)
    assert (step.name, step.outcome) == ("refund", "succeeded")
    assert [(stop.what, stop.budget, stop.after) for stop in stops(told)] == [
        ("mail", "max_steps", 1)
    ]


def test_a_model_call_that_was_stopped_is_told() -> None:
    """A switch that stops a model call names no limit, only what stopped it."""
    told = events((None, "budget.exceeded", {"model": "m", "error": "run_halted"}))
    assert [(stop.what, stop.budget, stop.limit) for stop in stops(told)] == [
        ("m", "run_halted", "")
    ]
    assert fold(told) == []


def test_a_model_call_may_end_after_a_refusal_beside_it() -> None:
    """A refusal told on a model call that still runs does not become that call."""
    (step,) = fold(events(
        (1, "step.decided", {**STARTED, "decision": "deny", "error": "budget_exceeded"}),
        (1, "model.called", {"model": "m", "cost_nanos": 0}),
    ))  # fmt: skip
    assert (step.kind, step.name, step.outcome, step.refusal) == ("model", "m", "succeeded", None)


def test_a_model_call_that_never_came_back_is_an_open_step(tmp_path: Path) -> None:
    """A process that dies in a model call leaves a step without an end."""
    guard: Guard = world.guard_of(tmp_path / "a.db", world.Clock())
    with guard.run("w", run_id="r"):
        current_run().model_started(model="planner", messages="hello")
        world.look_up("T-1")
    run = guard.runs.show("r")
    found = fold(guard.runs.events("r"), run.steps)
    assert [(step.kind, step.outcome) for step in found] == [
        ("model", "open"),
        ("read", "succeeded"),
    ]
    guard.close()
