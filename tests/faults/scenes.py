"""Scenes with several processes, each played in a fresh one: `play("name", folder)`.

A scene returns what is to be asserted, as JSON types; the tests say what it must be.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from agentguard import (
    ApprovalRequired,
    Guard,
    GuardError,
    Happened,
    NotHappened,
    _durable,
    _runtime,
    budget,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.ledger import settling
from tests.faults import oracle
from tests.faults.processes import PATIENCE, Gate, ask, ended, fork
from tests.faults.world import World, append, lines

Tool = Callable[[str], str]


def play(scene: str, folder: Path, *numbers: int) -> dict[str, Any]:
    """Play a scene in a fresh process and return what it saw."""
    found: dict[str, Any] = ask("scenes", scene, str(folder), *map(str, numbers))
    return found


def payer(
    world: World,
    *policies: Callable[[Tool], Tool],
    hook: bool = False,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> Tool:
    """Make the tool that pays; *before* and *after* happen inside its body, around the effect."""

    def look(call: Any) -> Happened | NotHappened:
        return Happened("found") if world.effects()[call.arguments["ticket"]] else NotHappened()

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", reconcile=look if hook else None)
    def pay(ticket: str) -> str:
        before()
        world.act(ticket, current_run().call.idempotency_key)
        after()
        return f"paid-{secrets.token_hex(4)}"

    tool: Tool = pay
    for policy in policies:
        tool = policy(tool)
    return tool


def attempt(tool: Tool, ticket: str, world: World | None = None) -> str:
    """Call a tool and say how it ended; tell the world of a success."""
    try:
        result = tool(ticket)
    except GuardError as error:
        return error.kind
    if world is not None:
        world.tell(ticket, result)
    return "success"


def report(world: World, **more: Any) -> dict[str, Any]:
    """Say what is in the world and what the oracle finds wrong, in a store opened afresh."""
    guard = Guard(world.url)
    doubts = [world.names().get(e.id, e.id) for e in guard.effects.list(state="in_doubt")]
    found = {"effects": dict(world.effects()), "doubts": doubts, **more}
    return {**found, "problems": oracle.problems(guard, world)}


# Crowds.


def crowd(world: World, count: int = 16) -> dict[str, Any]:
    """So many processes make the same fifty calls, each beginning at another place."""
    Guard(world.url).close()
    start, tickets = Gate(), [f"T-{number}" for number in range(50)]

    def work(number: int) -> None:
        start.wait()
        pay, guard = payer(world), Guard(world.url)
        turn = number * 3
        with guard.run("crowd", run_id=f"r-{number % 4}"):
            ends = {attempt(pay, ticket, world) for ticket in tickets[turn:] + tickets[:turn]}
        assert ends == {"success"}, ends

    children = [fork(work, number) for number in range(count)]
    start.open(count)
    exits = [ended(child) for child in children]
    told = world.told()
    return report(world, exits=exits, told={name: len(results) for name, results in told.items()})


def shared_money(world: World) -> dict[str, Any]:
    """Four processes with four threads each spend from one run's 1.00 USD, 0.03 at a time."""

    def work(number: int) -> None:
        pay, guard = payer(world, budget(cost="0.03")), Guard(world.url)
        start.wait()
        with guard.run("shared", run_id="r", max_spend_usd="1.00") as run:
            in_threads(4, lambda t: [attempt(pay, f"T-{number}-{t}-{n}") for n in range(4)], run)

    start = Gate()
    children = [fork(work, number) for number in range(4)]
    start.open(4)
    exits = [ended(child) for child in children]
    spent = Guard(world.url).runs.show("r").spent_usd
    return report(world, exits=exits, paid=world.effects().total(), spent=str(spent))


def shared_steps(world: World) -> dict[str, Any]:
    """Four processes use up one run's 40 steps with writes."""

    def work(number: int) -> None:
        pay, guard = payer(world), Guard(world.url)
        start.wait()
        with guard.run("shared", run_id="r", max_steps=40):
            for n in range(20):
                attempt(pay, f"T-{number}-{n}")

    start = Gate()
    children = [fork(work, number) for number in range(4)]
    start.open(4)
    exits = [ended(child) for child in children]
    steps = Guard(world.url).runs.show("r").steps
    return report(world, exits=exits, paid=world.effects().total(), steps=steps)


def shared_reads(world: World) -> dict[str, Any]:
    """Four processes use up one run's 40 steps with reads."""

    def work() -> None:
        @tool_contract(effect="read")
        def look(ticket: str) -> str:
            world.look()
            return ticket

        guard = Guard(world.url)
        start.wait()
        with guard.run("shared", run_id="r", max_steps=40):
            for n in range(20):
                attempt(look, f"T-{n}")

    start = Gate()
    children = [fork(work) for _ in range(4)]
    start.open(4)
    exits = [ended(child) for child in children]
    return report(world, exits=exits, reads=world.looks())


def in_threads(count: int, work: Callable[[int], object], run: Any) -> None:
    """Run *work* in threads of one run, all of them let go at the same moment."""
    together = threading.Barrier(count)

    def one(number: int) -> None:
        from agentguard.run import enter

        together.wait()
        with enter(run):
            work(number)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(one, number) for number in range(count)]:
            future.result()


# Forks, and who is alive.


def forked_in_the_body(world: World) -> dict[str, Any]:
    """A body forks; the child makes a call of its own in the same run, and ends."""
    guard, exits = Guard(world.url), []

    def branch() -> None:
        exits.append(ended(fork(attempt, payer(world), "T-child", world)))

    with guard.run("forked", run_id="r"):
        end = attempt(payer(world, before=branch), "T-parent", world)
    owners = {effect.owner for effect in guard.effects.list()}
    return report(world, end=end, exits=exits, owners=len(owners))


def killed(world: World) -> dict[str, Any]:
    """A worker is killed inside its body, and nobody has looked yet."""

    def work() -> None:
        with Guard(world.url).run("killed", run_id="r"):
            payer(world, after=die)("T-1")

    return {"exits": [ended(fork(work))]}


def child_killed(world: World) -> dict[str, Any]:
    """A forked child is killed inside its body while its parent lives on."""
    guard = Guard(world.url)

    def child() -> None:
        with guard.run("forked", run_id="c"):
            payer(world, after=die)("T-1")

    exits = [ended(fork(child))]
    return report(world, exits=exits)


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def orphan(world: World) -> dict[str, Any]:
    """A parent is killed inside its body while a child that it forked there lives on."""
    entered, over = Gate(), Gate()

    def branch() -> None:
        fork(over.wait)
        entered.open()
        over.wait()

    def parent() -> None:
        with Guard(world.url).run("forked", run_id="r"):
            payer(world, after=branch)("T-1")

    child = fork(parent)
    entered.wait()
    os.kill(child, signal.SIGKILL)
    exits = [ended(child)]
    found = report(world, exits=exits)
    over.open()
    return found


def forked_amid_transactions(world: World) -> dict[str, Any]:
    """A process forks ten times while two of its threads commit without a pause."""
    guard, stop, pay = Guard(world.url), threading.Event(), payer(world)

    def busy(number: int) -> None:
        with guard.run("busy", run_id=f"t-{number}"):
            count = 0
            while not stop.is_set():
                attempt(pay, f"T-{number}-{count}", world)
                count += 1

    def child(number: int) -> None:
        signal.alarm(PATIENCE)  # a child that waits for a lock of its parent's waits for ever
        with guard.run("child", run_id=f"c-{number}"):
            assert attempt(pay, f"T-child-{number}", world) == "success"

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    exits = [ended(fork(child, number)) for number in range(10)]
    stop.set()
    for thread in threads:
        thread.join()
    return report(world, exits=exits)


class Address(BaseModel):
    """Where a parcel goes."""

    street: str


@dataclass
class Parcel:
    """An argument with arguments of its own."""

    address: Address
    price: Decimal


def first_calls(world: World) -> dict[str, Any]:
    """A process makes its first calls, with arguments of all kinds, and says which modules they load."""
    guard, pay = Guard(world.url), payer(world)

    @tool_contract(effect="read")
    async def look(
        parcel: Parcel, since: datetime, tags: list[str] | None = None
    ) -> dict[str, Any]:
        return {"price": parcel.price, "since": since, "tags": tags}

    @tool_contract(effect="write")
    @requires_approval()
    @idempotent(key="refund:{ticket}")
    async def refund(ticket: str) -> str:
        return ticket

    before, parcel = set(sys.modules), Parcel(Address(street="Elm"), Decimal(1))
    with guard.run("first", max_spend_usd=1):
        ends = [attempt(pay, "T-1", world), attempt(pay, cast("str", None))]
        asyncio.run(look(parcel, datetime.now(UTC)))
        with contextlib.suppress(ApprovalRequired):
            asyncio.run(refund("T-2"))
    return report(world, ends=ends, loaded=sorted(set(sys.modules) - before))


def interrupted_twice(world: World) -> dict[str, Any]:
    """Ctrl-C before the end of a call is written, and once more while that is made good."""
    guard, caught, raised = Guard(world.url), threading.Event(), list[str]()
    commit, abandon = _runtime.InlineRuntime.commit, settling.abandon

    async def interrupted(runtime: Any, store: Any, verb: Any, *args: Any) -> Any:
        if verb is settling.settle:
            raise KeyboardInterrupt("first")
        return await commit(runtime, store, verb, *args)

    def slow(tx: Any, start: Any) -> Any:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert caught.wait(PATIENCE)
        return abandon(tx, start)

    _runtime.InlineRuntime.commit = interrupted  # type: ignore[method-assign, assignment]
    settling.abandon = slow
    with guard.run("interrupted", run_id="r"):
        try:
            payer(world)("T-1")
        except KeyboardInterrupt as error:
            caught.set()
            raised = [str(error), str(error.__context__)]
    guard.close()
    return report(world, raised=raised)


def forked_while_binding(world: World) -> dict[str, Any]:
    """A process forks while one of its threads is looking at a tool for the first time."""
    guard, looking, go_on = Guard(world.url), threading.Event(), threading.Event()

    class Receipt(str):  # noqa: SLOT000 - a value with a validator of its own, nothing more
        @classmethod
        def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                looking.set()
                go_on.wait()
            return handler(str)

    def plain(ticket: str) -> str:
        world.look()
        return ticket

    plain.__annotations__["ticket"] = Receipt  # a class of this function's, which no text can name
    look = tool_contract(effect="read")(plain)

    def bind() -> None:
        with guard.run("binding"):
            look(Receipt("T-0"))

    def child() -> None:
        signal.alarm(10)
        with guard.run("child"):
            assert attempt(payer(world), "T-1", world) == "success"

    thread = threading.Thread(target=bind)
    thread.start()
    assert looking.wait(PATIENCE)
    exits = [ended(fork(child))]
    go_on.set()
    thread.join()
    return report(world, exits=exits)


def fork_outlives(world: World) -> dict[str, Any]:
    """A fork goes on writing after its parent and everybody else has closed the store."""
    guard, pay, closed, wrote = Guard(world.url), payer(world), Gate(), Gate()
    with guard.run("parent", run_id="p"):
        attempt(pay, "T-1", world)

    def child() -> None:
        with guard.run("child", run_id="c"):
            attempt(pay, "T-2", world)
            wrote.open()
            closed.wait()
            attempt(pay, "T-3", world)

    running = fork(child)
    wrote.wait()
    guard.close()
    exits = [elsewhere(world, "T-1")]
    closed.open()
    exits += [ended(running), elsewhere(world, "T-3")]
    return report(world, exits=exits)


def elsewhere(world: World, ticket: str) -> int:
    """Call the tool in a fork that opens the store for itself and closes it, as a worker would."""

    def work() -> None:
        guard = Guard(world.url)
        with guard.run("elsewhere"):
            attempt(payer(world), ticket, world)
        guard.close()

    return ended(fork(work))


def a_day_ahead(world: World) -> dict[str, Any]:
    """A process on another host, whose clock is a day ahead, calls while a body runs."""
    exits: list[int] = []

    def other() -> None:
        os.environ["AGENTGUARD_RUNTIME_DIR"] = str(world.folder / "another-host")
        now = time.time_ns
        time.time_ns = lambda: now() + 24 * 3600 * 10**9
        time.time = lambda: time.time_ns() / 10**9
        _durable._PATIENCE = 0.05  # nobody is there to be waited for
        with Guard(world.url).run("other"):
            append(world.folder / "ends", attempt(payer(world), "T-1"))

    pay = payer(world, before=lambda: exits.append(ended(fork(other))))
    with Guard(world.url).run("first"):
        end = attempt(pay, "T-1", world)
    return report(world, exits=exits, ends=[*lines(world.folder / "ends"), end])


def two_guards(world: World) -> dict[str, Any]:
    """One process opens a store twice while another process closes it."""
    start, done = Gate(), Gate()

    def other() -> None:
        start.wait()
        guard = Guard(world.url)
        guard.close()
        done.open()

    running = fork(other)
    first, pay = Guard(world.url), payer(world)
    with first.run("first", run_id="p"):
        attempt(pay, "T-1", world)
        Guard(world.url)
        start.open()
        done.wait()
        attempt(pay, "T-2", world)
        return report(world, exits=[ended(running), ask_again(world)])


def ask_again(world: World) -> int:
    """Call for T-2 from a process that shares no memory with this one."""
    answer: int = ask("scenes", "again", str(world.folder))["exit"]
    return answer


def again(world: World) -> dict[str, Any]:
    """Make the call once more, in a process of its own."""
    with Guard(world.url).run("again"):
        return {"exit": int(attempt(payer(world), "T-2", world) != "success")}


def closed_while_running(world: World) -> dict[str, Any]:
    """A guard is closed while a thread is in a body, and another process asks for the same effect."""
    guard, inside, go_on = Guard(world.url), threading.Event(), threading.Event()

    def before() -> None:
        inside.set()
        go_on.wait()

    def work() -> None:
        with guard.run("first", run_id="r"):
            attempt(payer(world, before=before), "T-1")

    def hide(_error: Any) -> None:
        """Ignore that the run cannot be left properly: its store is closed."""

    threading.excepthook = hide
    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    guard.close()
    other = ask("scenes", "impatient", str(world.folder))
    go_on.set()
    thread.join()
    return {"effects": dict(world.effects()), "other": other["end"]}


def impatient(world: World) -> dict[str, Any]:
    """Ask for the effect with a hook that looks, a clock far ahead and no patience."""
    _durable._PATIENCE = 0.05
    guard = Guard(world.url, clock=Later())
    with guard.run("second", run_id="r-2"):
        return {"end": attempt(payer(world, hook=True), "T-1", world)}


def closed_loop(world: World) -> dict[str, Any]:
    """An event loop is closed while a commit is under way; another loop comes after it."""
    signal.alarm(10)  # a writer that has died lets everybody wait for ever
    guard, gate = Guard("memory://"), threading.Event()

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    async def pay(ticket: str) -> str:
        return "paid"

    async def work(ticket: str) -> str:
        async with guard.run("work"):
            return await pay(ticket)

    guard.store.submit(lambda *_: None, lambda _tx: gate.wait())  # what comes later has to queue
    loop = asyncio.new_event_loop()
    task = loop.create_task(work("T-1"))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    gate.set()
    found = asyncio.run(work("T-2"))
    del task
    return {"next": found}


class Later:
    """A clock on which every lease has run out."""

    def now(self) -> int:
        """Return the time of tomorrow."""
        return time.time_ns() // 1000 + 86_400_000_000


def paused(world: World) -> dict[str, Any]:
    """A worker is stopped before its effect, tomorrow another one comes, then the first goes on."""
    inside, go_on = Gate(), Gate()

    def before() -> None:
        inside.open()
        go_on.wait()

    def work() -> None:
        with Guard(world.url).run("first", run_id="r"):
            attempt(payer(world, before=before), "T-1", world)

    first = fork(work)
    inside.wait()
    os.kill(first, signal.SIGSTOP)
    other = ask("scenes", "impatient", str(world.folder))
    os.kill(first, signal.SIGCONT)
    go_on.open()
    return report(world, exits=[ended(first)], other=other["end"])


def spawned(world: World) -> dict[str, Any]:
    """Spawned workers and a pool of threads make the same ten calls."""
    Guard(world.url).close()
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
        ends = [end for part in pool.map(ten_calls, [str(world.folder)] * 2) for end in part]
    return report(world, ends=sorted(set(ends)), told=[len(r) for r in world.told().values()])


def ten_calls(folder: str) -> list[str]:
    """Make ten calls in four threads; runs in a spawned process."""
    world = World(Path(folder))
    guard, pay = Guard(world.url), payer(world)
    ends: list[str] = []
    with guard.run("spawned", run_id=f"p-{os.getpid()}", loops="off") as run:
        in_threads(
            4, lambda _: ends.extend([attempt(pay, f"T-{n}", world) for n in range(10)]), run
        )
    return ends


# Races for one approval.


class Turns:
    """Lets processes go turn by turn, all of them at the same moment."""

    def __init__(self, count: int) -> None:
        self._ready, self._go = Gate(), [Gate() for _ in range(count)]

    def wait(self, number: int) -> None:
        """Wait for the next turn."""
        self._ready.open()
        self._go[number].wait()

    def give(self) -> None:
        """Wait until everybody waits, then let everybody go."""
        self._ready.wait(len(self._go))
        for gate in self._go:
            gate.open()


def race(count: int, rounds: int, work: Callable[[int, Turns], object]) -> list[int]:
    """Run *work* in so many forks, let them go so many times, and return how they ended."""
    turns = Turns(count)
    children = [fork(work, number, turns) for number in range(count)]
    for _ in range(rounds):
        turns.give()
    return [ended(child) for child in children]


def race_to_start(world: World) -> dict[str, Any]:
    """Eight processes call what was approved once, ten approvals one after the other."""
    guard, tickets = Guard(world.url), [f"T-{number}" for number in range(10)]
    asking = payer(world, requires_approval())
    with guard.run("race", run_id="r"):
        asked = {attempt(asking, ticket) for ticket in tickets}
    for approval in guard.approvals.list("pending"):
        guard.approvals.decide(approval.id, "approve", by="dana")

    def work(number: int, turn: Turns) -> None:
        own, pay = Guard(world.url), payer(world, requires_approval())
        with own.run("race", run_id="r"):
            for ticket in tickets:
                turn.wait(number)
                assert attempt(pay, ticket, world) == "success"

    exits = race(8, len(tickets), work)
    fences = [effect.fence for effect in guard.effects.list()]
    return report(world, asked=sorted(asked), exits=exits, fences=fences)


def race_to_decide(world: World) -> dict[str, Any]:
    """Four people approve and four reject at the same moment, ten approvals one after the other."""
    guard, tickets = Guard(world.url), [f"T-{number}" for number in range(10)]
    pay = payer(world, requires_approval())
    with guard.run("race", run_id="r"):
        for ticket in tickets:
            attempt(pay, ticket)
    ids = [approval.id for approval in guard.approvals.list("pending")]

    def work(number: int, turn: Turns) -> None:
        own, said = Guard(world.url), ("approve", "reject")[number % 2]
        for approval_id in ids:
            turn.wait(number)
            try:
                own.approvals.decide(approval_id, said, by=f"person-{number}", reason="so")
                append(world.folder / "said", f"{approval_id} {said}")
            except GuardError as error:
                assert error.kind == "decision_refused", error  # noqa: PT017 - of another process

    exits = race(8, len(ids), work)
    with guard.run("race", run_id="r"):
        ends = {ticket: attempt(pay, ticket) for ticket in tickets}
    said = [line.split(" ") for line in lines(world.folder / "said")]
    shown = {a.id: (a.status, a.arguments["ticket"]) for a in guard.approvals.list()}
    return report(world, exits=exits, said=said, shown=shown, ends=ends)


SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    scene.__name__: scene
    for scene in (
        crowd,
        shared_money,
        shared_steps,
        shared_reads,
        forked_in_the_body,
        killed,
        child_killed,
        orphan,
        fork_outlives,
        forked_amid_transactions,
        first_calls,
        interrupted_twice,
        forked_while_binding,
        a_day_ahead,
        two_guards,
        again,
        closed_loop,
        closed_while_running,
        impatient,
        paused,
        spawned,
        race_to_start,
        race_to_decide,
    )
}

if __name__ == "__main__":
    name, folder, *numbers = sys.argv[1:]
    print(json.dumps(SCENES[name](World(Path(folder)), *map(int, numbers))))  # noqa: T201 - the answer
