"""Model calls that are interrupted on their way: nothing stays held, and the record says so."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from agentguard import BudgetExceeded, Guard, _runtime
from agentguard.hosting import ModelReports, Run
from agentguard.ledger.model_calls import (
    ModelEnd,
    ModelStart,
    ModelState,
    begin_model,
    end_model,
)
from agentguard.ledger.values import Pending
from agentguard.protocols import Tx
from agentguard.record import fold
from tests.faults.instructions import Interrupts

ASKED: dict[str, Any] = {"model": "big", "messages": ["hello"], "max_output_tokens": 1000}


@pytest.fixture(name="guard")
def guard_that_knows_prices() -> Iterator[Guard]:
    """A guard to which a model call costs something before it is made."""
    guard = Guard("memory://", prices={"big": ("1000", "4000")})
    yield guard
    guard.close()


def told(guard: Guard, run_id: str = "r") -> list[dict[str, Any]]:
    """What the record says of the run's model calls."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "model.called"]


def held(guard: Guard, run_id: str = "r") -> Decimal:
    """What the run still holds for calls that have not ended."""
    return guard.runs.show(run_id).held_usd


async def cancelled_at_start(run: Run, *, reported: bool) -> bool:
    """Cancel a model call while it is being reserved; whether it was cancelled."""
    reports = ModelReports(run)
    start = reports.astarted("1", **ASKED) if reported else run.amodel_started(**ASKED)
    task: asyncio.Task[Any] = asyncio.ensure_future(start)
    await asyncio.sleep(0)  # the commit is under way
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.parametrize("reported", [False, True])
async def test_a_model_call_cancelled_while_it_is_reserved_gives_back_its_hold(
    guard: Guard, *, reported: bool
) -> None:
    """It is not dispatched; the record has its step, at no cost, and why."""
    async with guard.run(run_id="r") as run:
        assert await cancelled_at_start(run, reported=reported)
        assert (run.usage.held, held(guard)) == (0, Decimal(0))
    (call,) = told(guard)
    assert (call["error"], call["dispatched"], call["cost_nanos"]) == ("CancelledError", False, 0)
    info = guard.runs.show("r")
    assert (info.spent_usd, info.cost_complete, info.steps) == (Decimal(0), True, 1)


async def test_the_waterfall_says_that_it_was_not_dispatched(guard: Guard) -> None:
    """Who reads the run's steps sees it beside calls that failed at the provider."""
    async with guard.run(run_id="r") as run:
        await cancelled_at_start(run, reported=False)
    (step,) = fold(guard.runs.events("r"))
    assert (step.kind, step.detail) == ("model", "CancelledError; not dispatched")


async def test_a_cancelled_start_leaves_room_for_another_call(guard: Guard) -> None:
    """The money that it held can be spent by the next."""
    async with guard.run(run_id="r", max_spend_usd="5") as run, ModelReports(run) as reports:
        for _ in range(3):
            assert await cancelled_at_start(run, reported=False)
        await reports.astarted("1", **ASKED)
        with pytest.raises(BudgetExceeded, match="max_spend_usd"):
            await reports.astarted("2", **ASKED)
        await reports.afinished("1", input_tokens=1)
    assert held(guard) == 0


def test_a_call_is_settled_once(guard: Guard) -> None:
    """Whoever settles it again changes nothing, neither its cost nor the record."""
    with guard.run(run_id="r") as run:
        call = run.model_started(**ASKED)
        run.model_finished(call, input_tokens=1000, output_tokens=100)
        run.model_finished(call, error=KeyError())
    assert (guard.runs.show("r").spent_usd, held(guard)) == (Decimal("1.4"), Decimal(0))
    assert [call["error"] for call in told(guard)] == [None]


def test_what_is_reserved_and_settled_in_one_transaction_is_settled_once(guard: Guard) -> None:
    """An interrupted caller's end may share the batch of the start that it gives back."""

    def both(tx: Tx) -> None:
        begin_model(tx, start)
        end_model(tx, end)
        end_model(tx, end)

    with guard.run(run_id="r") as run:
        made = ModelState()
        start = ModelStart(run.ref, "a", "big", run.limits, 5, Pending(), made)
        end = ModelEnd(run.ref, made, 5, 0, 0, 0, {}, None, Pending())
        guard.store.transact(both)
    assert (len(told(guard)), held(guard)) == (1, Decimal(0))


def sync_call(guard: Guard, run_id: str, found: Interrupts) -> None:
    """A model call, interrupted somewhere."""
    with guard.run(run_id=run_id) as run, ModelReports(run) as reports, found:
        reports.started("1", **ASKED)
        reports.finished("1", output="hi", input_tokens=1000, output_tokens=100)


def async_call(guard: Guard, run_id: str, found: Interrupts) -> None:
    """The same on an event loop."""

    async def call() -> None:
        async with guard.run(run_id=run_id) as run, ModelReports(run) as reports:
            with found:
                await reports.astarted("1", **ASKED)
                await reports.afinished("1", output="hi", input_tokens=1000, output_tokens=100)

    asyncio.run(call())


@pytest.mark.filterwarnings("ignore:.*coroutine")  # those that it keeps from being awaited
@pytest.mark.parametrize("call", [sync_call, async_call])
def test_no_instruction_between_start_and_end_is_a_bad_moment_for_an_interrupt(
    guard: Guard, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in our code a signal handler raises, nothing stays held and no step is without end."""
    monkeypatch.setattr(_runtime, "_PATIENCE", 0.02)  # for a commit that nobody has asked for yet
    problems, dispatched = [], set[Any]()
    for chosen in itertools.count(1):
        found, run_id = Interrupts(chosen), str(chosen)
        with contextlib.suppress(KeyboardInterrupt):
            call(guard, run_id, found)
        if not found.place:
            break
        calls, info = told(guard, run_id), guard.runs.show(run_id)
        dispatched |= {call.get("dispatched", True) for call in calls}
        if found.place.startswith(("sqlite.py", "_writer.py")):  # it knows what it is to write
            problems += [str(call) for call in calls if call["error"] == "_CutOff"]
        if info.held_usd or len(calls) != info.model_calls or len(calls) != info.steps:
            problems.append(f"{chosen} {found.place}: {info.held_usd} {calls} {info.steps}")
    assert problems == []
    assert dispatched == {False, True}
    assert chosen > 80, "too few places to be interrupted at"
