"""Cancellation: a task that is cancelled at any of its awaits leaves nothing twice and nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import pytest

from agentguard import (
    EffectInDoubt,
    Guard,
    Happened,
    NotHappened,
    _meter,
    budget,
    current_run,
    idempotent,
    tool_contract,
)
from tests.faults import oracle
from tests.faults.test_kills import Record
from tests.faults.world import World

# A cancellation can arrive while the awaited thing is under way, or when it has just ended and
# its waiter has not run yet; the second is where results get lost.
Moment = Callable[[asyncio.Task[Any], Any], object]


def while_waiting(task: asyncio.Task[Any], _future: Any) -> None:
    """Cancel the task as soon as it waits."""
    asyncio.get_running_loop().call_soon(task.cancel)


def as_it_wakes(task: asyncio.Task[Any], future: Any) -> None:
    """Cancel the task when what it waits for has ended and it has not gone on yet."""
    if future is None:
        task.get_loop().call_soon(task.cancel)
    else:
        future.add_done_callback(lambda _: task.cancel())


@types.coroutine
def cancelled_at(
    number: int, work: Coroutine[Any, Any, Any], moment: Moment, seen: list[int]
) -> Generator[Any, Any, Any]:
    """Run *work* and cancel its task at its await of this number; count the awaits in *seen*."""
    inner = work.__await__()
    go_on: Callable[[], Any] = partial(inner.send, None)
    while True:
        try:
            future = go_on()
        except StopIteration as end:
            return end.value
        seen[0] += 1
        if seen[0] == number:
            task = asyncio.current_task()
            assert task is not None
            moment(task, future)
        try:
            go_on = partial(inner.send, (yield future))
        except BaseException as error:  # noqa: BLE001 - handed on to the work
            go_on = partial(inner.throw, error)


def payer(world: World, *, hook: bool) -> Any:
    """Make an async tool that pays, waiting before and after."""

    async def look(call: Any) -> Happened | NotHappened:
        await asyncio.sleep(0)
        return Happened("found") if world.effects()[call.arguments["ticket"]] else NotHappened()

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", reconcile=look if hook else None)
    @budget(cost="0.30", max_calls=3)
    async def pay(ticket: str) -> str:
        await asyncio.sleep(0)
        world.act(ticket, current_run().call.idempotency_key)
        await asyncio.sleep(0)
        return "paid"

    return pay


async def work(world: World, guard: Guard, pay: Any, *tickets: str) -> list[str]:
    """Make calls in the run, as a worker does."""

    @tool_contract(effect="read")
    async def look(ticket: str) -> str:
        world.look()
        await asyncio.sleep(0)
        return ticket

    async with guard.run("work", run_id="r", max_spend_usd="5"):
        await look("T-1")
        return [await pay(ticket) for ticket in tickets]


async def cancel(number: int, moment: Moment, job: Coroutine[Any, Any, Any]) -> bool:
    """Cancel *job* at one await; False if it has ended well with fewer."""
    seen = [0]
    task = asyncio.ensure_future(cancelled_at(number, job, moment, seen))
    await asyncio.wait([task])
    assert task.cancelled() == (seen[0] >= number), "a cancellation was swallowed"
    return task.cancelled()


MOMENTS = pytest.mark.parametrize("moment", [while_waiting, as_it_wakes])


@MOMENTS
async def test_a_call_cancelled_anywhere_is_never_repeated_in_silence(
    world: World, moment: Moment, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """Wherever a task is cancelled, its call has not started, is recorded, or is in doubt."""
    monkeypatch.setattr(_meter, "FLUSH_AFTER", 1)  # so that a read has a commit to be cancelled in
    number, cancelled = 0, True
    while cancelled:
        number += 1
        each = World(world.folder / str(number))
        each.folder.mkdir()
        guard = Guard(each.url)
        cancelled = await cancel(number, moment, work(each, guard, payer(each, hook=False), "T-1"))
        await assert_one_effect_or_a_doubt(guard, each)
        guard.close()
    record_property("points", number)
    assert number > 8, "the enumeration found too few awaits"


async def assert_one_effect_or_a_doubt(guard: Guard, world: World) -> None:
    """Call again without and with a hook: a doubt is told and never guessed at, then resolved."""
    assert oracle.problems(guard, world) == []
    doubts = guard.effects.list(state="in_doubt")
    before = world.effects()["T-1"]
    if doubts:
        with pytest.raises(EffectInDoubt):
            await work(world, guard, payer(world, hook=False), "T-1")
        assert world.effects()["T-1"] == before
    else:
        await work(world, guard, payer(world, hook=False), "T-1")
    await work(world, guard, payer(world, hook=True), "T-1")
    assert world.effects()["T-1"] == 1
    assert oracle.problems(guard, world) == []


@MOMENTS
async def test_a_replay_cancelled_anywhere_stays_a_replay(
    guard: Guard, world: World, moment: Moment, record_property: Record
) -> None:
    """Cancelling a call that is a repetition cancels the task and runs nothing."""
    pay = payer(world, hook=False)
    await work(world, guard, pay, "T-1")
    number = 1
    while await cancel(number, moment, work(world, guard, pay, "T-1", "T-1")):
        number += 1
    record_property("points", number)
    assert world.effects() == {"T-1": 1}
    assert oracle.problems(guard, world) == []


@MOMENTS
async def test_a_reconciliation_cancelled_anywhere_converges(
    world: World, moment: Moment, record_property: Record
) -> None:
    """Cancelling the call that asks the hook leaves the doubt, or its answer, and one effect."""
    number, cancelled = 0, True
    while cancelled:
        number += 1
        each = World(world.folder / str(number))
        each.folder.mkdir()
        guard = Guard(each.url)
        # The fifth await is the body's second: the effect is done, and its end is lost.
        await cancel(5, while_waiting, work(each, guard, payer(each, hook=False), "T-1"))
        assert len(guard.effects.list(state="in_doubt")) == each.effects()["T-1"] == 1
        cancelled = await cancel(number, moment, work(each, guard, payer(each, hook=True), "T-1"))
        await work(each, guard, payer(each, hook=True), "T-1")
        assert each.effects() == {"T-1": 1}
        assert oracle.problems(guard, each) == []
        guard.close()
    record_property("points", number)


@MOMENTS
async def test_a_cancelled_repeat_under_the_same_key_leaves_its_doubt(
    world: World, moment: Moment, record_property: Record
) -> None:
    """A repeat that is cancelled before its body began does not make the first try unhappen."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", on_doubt="retry_same_key", downstream_dedupe="24h")
    async def pay(ticket: str) -> str:
        await asyncio.sleep(0)
        if world.effects()[ticket]:
            return "paid already"
        world.act(ticket, current_run().call.idempotency_key)
        raise OSError("the reply was lost")

    number, cancelled = 0, True
    while cancelled:
        number += 1
        guard = Guard(f"sqlite:///{world.folder / str(number)}.db")
        with contextlib.suppress(EffectInDoubt):
            await work(world, guard, pay, f"T-{number}")
        cancelled = await cancel(number, moment, work(world, guard, pay, f"T-{number}"))
        (effect,) = guard.effects.list()
        assert effect.state in (("in_doubt", "succeeded") if cancelled else ("succeeded",))
        guard.close()
    record_property("points", number)
    assert number > 5, "the enumeration found too few awaits"


async def test_cancelling_one_who_waits_leaves_the_one_who_works_alone(
    guard: Guard, world: World
) -> None:
    """A second caller that is cancelled while it waits neither stops nor repeats the first."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    async def pay(ticket: str) -> str:
        inside.set()
        await go_on.wait()
        world.act(ticket, current_run().call.idempotency_key)
        return "paid"

    async with guard.run("work", run_id="r"):
        first = asyncio.ensure_future(pay("T-1"))
        await inside.wait()
        await cancel(2, while_waiting, pay("T-1"))
        go_on.set()
        assert await first == "paid"
    assert world.effects() == {"T-1": 1}
    assert oracle.problems(guard, world) == []


async def test_a_cancelled_task_does_not_go_on_into_its_run(guard: Guard) -> None:
    """A task cancelled while its run is opened does nothing in it, and the run is closed."""

    async def job() -> None:
        async with guard.run("work", run_id="r"):
            pytest.fail("the run was entered")

    assert await cancel(1, while_waiting, job()) >= 1
    assert guard.runs.show("r").status == "failed"
    assert guard.runs.verify("r") is None
