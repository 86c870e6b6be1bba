"""One promise at a time: the smallest calls that tell a sound core from a broken one."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from agentguard import (
    ApprovalRequired,
    DecisionRefused,
    EffectInDoubt,
    Guard,
    IdempotencyConflict,
    NoEffect,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.testing import FakeClock
from tests.faults import oracle
from tests.faults.scenes import payer
from tests.faults.world import World


def test_commits_are_synced_before_anybody_is_answered(guard: Guard) -> None:
    """Every connection that writes has synchronous=FULL in WAL mode: a power cut loses no claim."""
    found: list[tuple[Any, ...]] = []

    def settings(tx: Any) -> None:
        found.append(tuple(tx.row(f"PRAGMA {name}")[0] for name in ("synchronous", "journal_mode")))

    guard.store.transact(settings)
    guard.store.read(settings)
    assert found == [(2, "wal")] * 2


def test_one_key_with_another_payload_never_runs(guard: Guard) -> None:
    """A key reused with other arguments is refused, in every state of its effect."""
    ran: list[int] = []

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str, amount: int) -> int:
        ran.append(amount)
        if ticket == "T-2":
            raise RuntimeError("reset")
        return amount

    with guard.run("conflict"):
        pay("T-1", 1)
        with pytest.raises(IdempotencyConflict):
            pay("T-1", 2)
        with pytest.raises(EffectInDoubt):
            pay("T-2", 1)
        with pytest.raises(IdempotencyConflict):
            pay("T-2", 2)
    assert ran == [1, 1]


@pytest.mark.parametrize("result", [0, 0.0, "", [], {}, None, False])
def test_a_falsy_result_replays_as_itself(guard: Guard, result: Any) -> None:
    """A recorded success is final also when its result counts as false."""
    ran = []

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - any result
        ran.append(ticket)
        return result

    with guard.run("falsy"):
        answers = [pay("T-1") for _ in range(3)]
    assert (answers, ran) == ([result] * 3, ["T-1"])
    assert {type(answer) for answer in answers} == {type(result)}


@pytest.mark.parametrize("retryable", [True, False])
def test_a_repeat_that_did_nothing_leaves_the_doubt(world: World, *, retryable: bool) -> None:
    """That a repeat had no effect says nothing of the body before it, which may have acted."""
    ends: list[Exception] = [OSError("the reply was lost"), NoEffect(retryable=retryable)]
    clock = FakeClock()
    guard = Guard(world.url, clock=clock)

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", on_doubt="retry_same_key", downstream_dedupe="24h")
    def pay(ticket: str) -> str:
        error = ends.pop(0) if ends else None
        if not isinstance(error, NoEffect):
            world.act(ticket, current_run().call.idempotency_key)
        if error is not None:
            raise error
        return "paid"

    with guard.run("repeats"):
        for _ in range(2):
            with pytest.raises(EffectInDoubt):
                pay("T-1")
        clock.advance(hours=48)  # the backend has forgotten the key
        with pytest.raises(EffectInDoubt):
            pay("T-1")
    assert (world.effects()["T-1"], len(guard.effects.list(state="in_doubt"))) == (1, 1)
    guard.close()


def test_an_error_that_tells_nothing_leaves_a_doubt(guard: Guard, world: World) -> None:
    """An exception after the effect is not taken for a sign that nothing happened."""

    def fail() -> None:
        raise RuntimeError("the reply was lost")

    pay = payer(world, after=fail)
    with guard.run("lost-reply"):
        for _ in range(3):
            with pytest.raises(EffectInDoubt):
                pay("T-1")
    assert world.effects() == {"T-1": 1}
    assert oracle.problems(guard, world) == []


@pytest.mark.parametrize("again", ["Dana", "dana", " dana ", "ＤＡＮＡ"])  # noqa: RUF001 - wide letters
def test_a_person_counts_once_whatever_they_call_themselves(
    guard: Guard, world: World, again: str
) -> None:
    """Two votes of one person are not the two people that a call needs."""
    pay = payer(world, requires_approval(quorum=2))
    with guard.run("quorum"):
        with pytest.raises(ApprovalRequired) as asked:
            pay("T-1")
        guard.approvals.decide(asked.value.approval.id, "approve", by="dana")
        with pytest.raises(DecisionRefused):
            guard.approvals.decide(asked.value.approval.id, "approve", by=again)
        with pytest.raises(ApprovalRequired):
            pay("T-1")
        assert world.effects().total() == 0
        guard.approvals.decide(asked.value.approval.id, "approve", by="erin")
        pay("T-1")
    assert world.effects() == {"T-1": 1}


def test_an_event_is_in_the_chain_or_its_change_is_not_there(guard: Guard, world: World) -> None:
    """A change whose event cannot be written does not happen, and the body does not run."""
    ran = []

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        ran.append(current_run().call.fence)
        return ticket

    refuse = "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END"
    with guard.run("no-room", run_id="r"):
        other = sqlite3.connect(world.store)
        other.execute(refuse)
        with pytest.raises(Exception, match="full"):
            pay("T-1")
        other.execute("DROP TRIGGER full")
        other.close()
        assert (ran, guard.effects.list()) == ([], [])
        assert pay("T-1") == "T-1"
    assert (ran, guard.runs.verify("r")) == ([1], None)
