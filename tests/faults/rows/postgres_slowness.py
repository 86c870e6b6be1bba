"""F18 on PostgreSQL: a server that hangs, a network that hangs, hooks and tools that take too long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from agentguard import (
    EffectInDoubt,
    Guard,
    Happened,
    ToolTimeout,
    _doubts,
    idempotent,
    tool_contract,
)
from agentguard.run import current_run
from agentguard.stores import _pg_wire
from tests.faults.fleet import Fleet, judged, world_on
from tests.faults.matrix import Count, Result
from tests.faults.processes import ended, fork
from tests.faults.world import World
from tests.postgres.proxy import Proxy
from tests.postgres.server import Server


def slow(long: bool, seed: int) -> Result:
    """Let everything take longer than anybody waits for it."""
    count = Count("F18", "postgres", seed)
    seconds = 40.0 if long else 2.0
    _pg_wire.ANSWER_SECONDS = _pg_wire.ANSWER_SECONDS if long else 1.0
    with Server() as server, Proxy(server) as proxy:
        for stall, go_on in ((server.pause, server.go_on), (proxy.stall, proxy.go_on)):
            count.add(stalled(server, proxy, seed, seconds, stall, go_on))
        with world_on(server) as world:
            for scene in (hanging_hook, late_tool):
                code = ended(fork(scene, world))
                count.add([f"wrong: {scene.__name__} ended with {code}"] if code else [])
            count.add(judged(world), points=0)
    with Server() as primary:
        standby = primary.standby(synchronous=True)
        held: list[Callable[[], None]] = []

        def hold() -> None:
            held.append(standby.stall_receiver())

        def let_go() -> None:
            held[0]()

        count.add(stalled(primary, None, seed, seconds, hold, let_go))
        standby.remove()
    return count.result(
        f"{seconds:.0f} s without an answer of server, network and standby; a hook and a tool that"
        " do not end"
    )


def stalled(
    server: Server, via: Proxy | None, seed: int, seconds: float,
    stall: Callable[[], object], go_on: Callable[[], object],
) -> list[str]:  # fmt: skip
    """Let something hang for so long under workers, and return what the oracle says."""
    with world_on(server, via=via) as world, Fleet(world, 4, seed, tickets=60) as fleet:

        def hang() -> None:
            stall()
            threading.Event().wait(seconds)
            go_on()

        fleet.at_progress([hang])
        return fleet.finish()


def hanging_hook(world: World) -> None:
    """A hook that does not answer finds out nothing; the next one does."""
    _doubts._HOOK_SECONDS = 0.3
    asks = 0

    async def look(_call: object) -> Happened:
        nonlocal asks
        asks += 1
        if asks < 3:
            await asyncio.Event().wait()
        return Happened("found")

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", reconcile=look)
    async def pay(ticket: str) -> str:
        world.act(ticket, current_run().call.idempotency_key)
        raise ConnectionResetError("the answer was lost")

    async def work() -> str:
        guard = Guard(world.url)
        for _ in range(2):  # asked at once after the doubt, and when it is called again
            try:
                async with guard.run("hook"):
                    await pay("T-hook")
            except EffectInDoubt:
                continue
        async with guard.run("hook"):
            return str(await pay("T-hook"))

    assert asyncio.run(work()) == "found"


def late_tool(world: World) -> None:
    """A tool that does not end in time is in doubt, and its late answer settles it."""
    go_on = threading.Event()
    bodies: list[threading.Thread] = []

    @tool_contract(effect="write", timeout=0.3, isolation="thread")
    @idempotent(key="late:{ticket}")
    def pay(ticket: str) -> str:
        bodies.append(threading.current_thread())
        go_on.wait()
        world.act(ticket, current_run().call.idempotency_key)
        return "late"

    guard = Guard(world.url)
    try:
        with guard.run("late"):
            pay("T-late")
    except ToolTimeout:
        go_on.set()
    bodies[0].join()
    with guard.run("late"):
        assert pay("T-late") == "late"
    assert len(bodies) == 1
