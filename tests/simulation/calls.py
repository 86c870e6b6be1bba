"""A delivered call by the whole pipeline: decorated tools in runs of a guard, over simulated time.

The pipeline awaits nothing but its runtime, so a runtime that stops at every place lets a schedule
decide who goes on. Names are patched where the product looks them up; nothing in it knows of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

from agentguard import (
    Guard,
    Happened,
    NoEffect,
    NotHappened,
    Principal,
    Retry,
    _apart,
    _claim,
    _durable,
    _meter,
    _read,
    budget,
    current_run,
    declaration,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard import run as run_module
from agentguard._pipeline import guarded
from agentguard._runtime import (
    AsyncioRuntime,
    BodyAbandoned,
    DeadlinePassed,
    Outcome,
    ThreadRuntime,
    outcome_of,
)
from agentguard.canonical import effect_key
from agentguard.codec import encode
from agentguard.errors import EffectInDoubt, EffectInProgress, GuardError, StoreUnavailable
from agentguard.tool import Tool
from tests.simulation.disk import SECOND, Crashed, Disk, Machines, Process, SimulatedStore, Time
from tests.simulation.places import HOOK_SAID_NO, IN_BODY, Nap
from tests.simulation.schedule import Order, Schedule
from tests.simulation.world import POOL, TENANT, Body

ENDS = (
    *("returned",) * 14, *("no effect",) * 2, "no effect, for good", "unclear, happened",
    "unclear, did not happen", "unclear, did not happen",
)  # fmt: skip
GUARDS = 24
"""Processes that may deliver calls in one schedule."""


class Here:
    """Which process executes this, in which schedule, for which order."""

    def __init__(self, schedule: Schedule, process: Process, order: Order) -> None:
        self.schedule, self.process, self.order = schedule, process, order


HERE: contextvars.ContextVar[Here] = contextvars.ContextVar("here")


@types.coroutine
def place(name: Any) -> Generator[Any, None, None]:
    """Stop here and let the schedule decide who goes on; a dead process goes nowhere."""
    if not HERE.get().process.alive:
        raise Crashed
    yield name


# The runtimes.


class SimulatedRuntime(AsyncioRuntime):
    """Like the one over asyncio: a commit that is under way is not given up by a cancellation."""

    __slots__ = ()

    async def commit(self, store: Any, verb: Callable[..., Any], *args: Any) -> Any:
        """Run one verb in one transaction, with a place before it and one after it."""
        await self._stay(f"wishes to {verb.__name__}")
        result = store.transact(verb, *args)
        await self._stay(f"has done {verb.__name__}")
        return result

    async def _stay(self, name: str) -> None:
        try:
            await place(name)
        except asyncio.CancelledError as cancelled:
            self._cancelled = cancelled

    async def sleep(self, seconds: float) -> None:
        """Sleep in simulated time."""
        await place(Nap(seconds * SECOND))

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        """Run the body, and return its end as a value."""
        try:
            return await body(), None
        except Crashed:
            raise
        except BaseException as error:  # noqa: BLE001 - as the runtime that this stands for
            return None, error


class SimulatedThread(ThreadRuntime):
    """Like the one over threads: the body goes on beside its caller, and after its deadline too."""

    def take(self, call: Any, store: Any) -> None:
        """Remember which call this is for."""
        super().take(call, store)
        self._call = call

    async def commit(self, store: Any, verb: Callable[..., Any], *args: Any) -> Any:
        """Run one verb in one transaction, with a place before it and one after it."""
        await place(f"wishes to {verb.__name__}")
        result = store.transact(verb, *args)
        await place(f"has done {verb.__name__}")
        return result

    async def sleep(self, seconds: float) -> None:
        """Sleep in simulated time."""
        await place(Nap(seconds * SECOND))

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        """Have the body run beside this, and wait for it until its deadline or an interrupt."""
        here, ends, context = HERE.get(), list[Outcome](), contextvars.copy_context()
        abandoned = False
        _begin(self._call)

        def thread() -> Iterator[str]:
            yield IN_BODY
            end = context.run(outcome_of, body)
            yield "in the body, after the effect"
            ends.append(end)
            if abandoned:
                with contextlib.suppress(StoreUnavailable):
                    context.run(self.late, *end)

        here.schedule.spawn(here.process, thread(), here.order, "has a thread at work")
        nothing: Outcome = (None, DeadlinePassed())
        try:
            for _ in range(3):
                if not ends:
                    await self.sleep((seconds or 0) / 3)
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            self._interrupt, nothing = interrupt, (None, BodyAbandoned(interrupt))
        abandoned = not ends
        return nothing if abandoned else ends[0]


def keep_trying(store: Any, verb: Callable[..., object], *args: Any) -> None:
    """Have something written as soon as the store takes it, by a thread of this process."""
    here = HERE.get()

    def work() -> Iterator[Any]:
        while True:
            yield Nap(SECOND)
            try:
                store.transact(verb, *args)
            except StoreUnavailable:
                continue
            return

    here.schedule.spawn(here.process, work(), here.order, f"has {verb.__name__} to write")


# The tools.


async def _look_for(call: Any) -> Happened | NotHappened:
    found = _look_at(call)
    await place(HOOK_SAID_NO if isinstance(found, NotHappened) else "the hook says: happened")
    return found


def _look_at(call: Any) -> Happened | NotHappened:
    here = HERE.get()
    world = here.schedule.world
    fences = [fence for key, fence in world.starts if key == call.idempotency_key]
    happened = world.look(here.process, call.idempotency_key, max(fences))
    return Happened(f"done {call.arguments['name']}") if happened else NotHappened()


def _end(end: str, name: str) -> str:
    if end.startswith("no effect"):
        raise NoEffect(end, retryable=end == "no effect")
    if end.startswith("unclear"):
        raise OSError(end)
    return f"done {name}"


def _act() -> str:
    here, call = HERE.get(), current_run().call
    end = here.schedule.random.choice(ENDS)
    if end in ("returned", "unclear, happened"):
        dedupes = call.tool.on_doubt == "retry_same_key"
        body = Body(call.idempotency_key, call.fence, dedupes, call.edits)
        here.schedule.world.act(body)
    return end


def _begin(call: Any) -> None:
    HERE.get().schedule.world.begun.add((call.idempotency_key, call.fence))


async def _work(name: str) -> str:
    _begin(current_run().call)
    await place(IN_BODY)
    end = _act()
    await place("in the body, after the effect")
    return _end(end, name)


_cost = budget(cost=Decimal("0.000000007"))
_twice = Retry(attempts=2)


@_cost
@idempotent(key="{name}")
@tool_contract(effect="write", retry=_twice)
async def plain(name: str, amount: int) -> str:
    """Do something that nobody can look up."""
    return await _work(name)


@_cost
@idempotent(key="{name}", reconcile=_look_for)
@tool_contract(effect="write", retry=_twice)
async def hooked(name: str, amount: int) -> str:
    """Do something that can be looked up."""
    return await _work(name)


@_cost
@idempotent(key="{name}", on_doubt="retry_same_key", downstream_dedupe="24h")
@tool_contract(effect="write", retry=_twice)
async def deduped(name: str, amount: int) -> str:
    """Do something that the backend does once for each key."""
    return await _work(name)


@_cost
@requires_approval(expires="1h", allow_edit=True)
@idempotent(key="{name}", reconcile=_look_for)
@tool_contract(effect="write", retry=_twice)
async def asked(name: str, amount: int) -> str:
    """Do something that a person has to allow."""
    return await _work(name)


@_cost
@requires_approval(expires="1h", allow_edit=True, quorum=2)
@idempotent(key="{name}", reconcile=_look_for)
@tool_contract(effect="write", retry=_twice)
async def asked_twice(name: str, amount: int) -> str:
    """Do something that two people have to allow."""
    return await _work(name)


@budget(max_calls=POOL, cost=Decimal("0.000000007"), per="run")
@idempotent(key="{name}", reconcile=_look_for)
@tool_contract(effect="write", retry=_twice)
async def pooled(name: str, amount: int) -> str:
    """Do something for which there is a budget."""
    return await _work(name)


@_cost
@idempotent(key="{name}", reconcile=_look_at)
@tool_contract(effect="write", timeout=10, isolation="thread")
def threaded(name: str, amount: int) -> str:
    """Do something in a thread, which nobody can stop."""
    return _end(_act(), name)


@tool_contract(effect="read")
async def look(name: str) -> str:
    """Look something up, which changes nothing."""
    HERE.get().schedule.world.looks += 1
    return name


TOOLS: dict[str, Any] = {
    tool.__name__: tool for tool in (plain, hooked, deduped, asked, asked_twice, pooled, threaded)
}


# The deliveries.


class InContext:
    """A coroutine that is always executed in a context of its own."""

    def __init__(self, here: Here, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine, self._context = coroutine, contextvars.copy_context()
        self._context.run(HERE.set, here)

    def send(self, value: Any) -> Any:
        """Go on."""
        return self._context.run(self._coroutine.send, value)

    def throw(self, error: BaseException) -> Any:
        """Go on with an exception that comes from outside."""
        return self._context.run(self._coroutine.throw, error)

    def close(self) -> None:
        """Go on never more."""
        self._context.run(self._coroutine.close)


class Calls:
    """Deliveries by the whole guarded call."""

    can_be_cancelled = True

    def __init__(self, disk: Disk) -> None:
        machines = Machines(disk, Time(), leases=False)
        stores = [SimulatedStore(machines, machines.start("a")) for _ in range(GUARDS)]
        who = Principal("bot", TENANT)
        self.guards = [Guard(store, principal=who) for store in stores]
        disk.rows("DELETE FROM owners")  # a guard looks for dead ones when it is made
        self._of: dict[Process, Guard] = {}
        self._schedule: Schedule | None = None

    def row(self, order: Order) -> str:
        """Return the key of an order's effect in the store."""
        sheet = self._sheet(self.guards[0], order)
        return effect_key(TENANT, "tenant", sheet.name, sheet.major, ["{name}", order.key])

    def kept(self, order: Order) -> str:
        """Return the result of an order as the store keeps it."""
        return "j" + encode(f"done {order.key}").decode()

    def _tool(self, order: Order) -> Any:
        return TOOLS["asked_twice" if (order.tool, order.quorum) == ("asked", 2) else order.tool]

    def _sheet(self, guard: Guard, order: Order) -> Tool:
        declared = declaration.declaration_of(self._tool(order))
        assert declared is not None
        return guard.bind(declared)

    def __call__(self, schedule: Schedule, process: Process, order: Order, run: str) -> InContext:
        """Return the steps of one delivery."""
        if schedule is not self._schedule:
            self._schedule = schedule
            self._of.clear()
            random.seed(schedule.seed)  # waits between attempts have jitter
        guard = self._guard(schedule, process)
        return InContext(Here(schedule, process, order), self._deliver(schedule, guard, order, run))

    def _guard(self, schedule: Schedule, process: Process) -> Guard:
        guard = self._of.get(process)
        if guard is None:
            guard = self._of[process] = self.guards[len(self._of)]
            store: Any = guard.store
            store.machines, store.process, store.clock = schedule.machines, process, schedule.time
        return guard

    async def _deliver(self, schedule: Schedule, guard: Guard, order: Order, run: str) -> None:
        await place("before the run")
        for _ in range(3):
            try:
                async with guard.run("w", run_id=run):
                    if schedule.random.random() < 0.3:
                        await look(order.key)
                    told = await self._call(order)
                schedule.world.tell(self.row(order), told)
                return
            except (EffectInDoubt, EffectInProgress):
                await place(Nap(40 * SECOND))
            except (GuardError, NoEffect, OSError):
                return  # the caller is told so, and may come again

    async def _call(self, order: Order) -> Any:
        tool = self._tool(order)
        if order.tool != "threaded":
            return await tool(name=order.key, amount=9)
        run = current_run()
        sheet, given = self._sheet(run.guard, order), {"name": order.key, "amount": 9}
        value, error = await guarded(
            SimulatedThread(), run, sheet, tool.__wrapped__, None, (), given
        )
        if error is not None:
            raise error
        return value

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put simulated time and runtimes where the product looks for real ones."""
        time: Any = types.SimpleNamespace(
            monotonic=lambda: self._now().monotonic(),
            monotonic_ns=lambda: self._now().monotonic_ns(),
        )
        with contextlib.ExitStack() as stack:
            for module in (_durable, _meter, _read, run_module):
                stack.enter_context(mock.patch.object(module, "time", time))
            for module in (run_module, declaration):
                stack.enter_context(mock.patch.object(module, "AsyncioRuntime", SimulatedRuntime))
            for module in (_durable, _claim, _apart):
                stack.enter_context(mock.patch.object(module, "keep_trying", keep_trying))
            stack.enter_context(mock.patch.object(_durable, "_PATIENCE", 0.3))
            yield

    def _now(self) -> Time:
        return self._schedule.time if self._schedule else Time()
