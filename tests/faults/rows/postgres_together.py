"""F9 on PostgreSQL: threads, tasks that are cancelled, and forks, all over one open store."""

from __future__ import annotations

import asyncio

from agentguard import Guard, _meter
from tests.faults.fleet import judged, world_on
from tests.faults.matrix import Count, Result
from tests.faults.processes import ended, fork
from tests.faults.rows.postgres_kills import cases
from tests.faults.scenes import attempt, in_threads, payer
from tests.faults.test_cancellation import (
    Moment,
    as_it_wakes,
    assert_one_effect_or_a_doubt,
    cancel,
    while_waiting,
    work,
)
from tests.faults.test_cancellation import payer as async_payer
from tests.faults.test_interrupts import EVERY as EVERY_INTERRUPT
from tests.faults.test_interrupts import in_doubt_in_a_commit
from tests.faults.test_kills import Variant, is_as_promised
from tests.faults.world import World
from tests.postgres.server import Server

INTERRUPTS = [
    Variant("plain", interrupted=True),
    Variant("retried", is_async=True, interrupted=True),
    Variant("approved", interrupted=True),
]


def together(long: bool, seed: int) -> Result:
    """Let threads share a store, cancel a task at each of its awaits, and fork under an open store."""
    count = Count("F9", "postgres", seed)
    with Server() as server:
        threads(count, server, 100 if long else 10)
        forks(count, server, 50 if long else 6)
        for moment in (while_waiting, as_it_wakes):
            asyncio.run(cancellations(count, server, moment))
        for number, variant in enumerate(EVERY_INTERRUPT if long else INTERRUPTS):
            interrupts(count, server, variant, 1 if long else 12, seed + number)
    return count.result(
        "32 threads; forks under an open store; a task cancelled at each await; a KeyboardInterrupt at"
        " named places"
    )


def interrupts(count: Count, server: Server, variant: Variant, step: int, first: int) -> None:
    """Interrupt a worker at one place after the other; its process lives on and makes good."""
    for case in cases(server, variant, step=step, first=first):
        found = list(case["problems"])
        if not is_as_promised(variant, case):
            found.append(f"wrong: it ended as {case}")
        if variant.story != "doubted" and in_doubt_in_a_commit(case):
            found.append("wrong: a doubt where it is known what happened")
        count.add(found, place=f"{variant}, {case['point']}")


def threads(count: Count, server: Server, tickets: int) -> None:
    """Let 32 threads of one process ask for the same effects."""
    with world_on(server) as world:
        guard, pay = Guard(world.url), payer(world)
        names = [f"T-{number}" for number in range(tickets)]
        with guard.run("threads") as run:
            in_threads(32, lambda n: [attempt(pay, name, world) for name in names[n % 7 :]], run)
        guard.close()
        count.add(judged(world), points=32)


def forks(count: Count, server: Server, times: int) -> None:
    """Fork between the calls of an open store; parent and child go on with it."""
    with world_on(server) as world:
        guard, pay = Guard(world.url), payer(world)

        def child(name: str) -> None:
            with guard.run("child"):
                assert attempt(pay, name, world) == "success"
                assert attempt(pay, f"{name}-child", world) == "success"

        codes = []
        with guard.run("parent"):
            for number in range(times):
                born = fork(child, f"T-{number}")
                attempt(pay, f"T-{number}", world)
                codes.append(ended(born))
        guard.close()
        count.add([f"wrong: a child ended with {code}" for code in codes if code], points=times)
        count.add(judged(world), points=0)


async def cancellations(count: Count, server: Server, moment: Moment) -> None:
    """Cancel a task at one await after the other; each in a store of its own."""
    _meter.FLUSH_AFTER = 1  # so that a read has a commit to be cancelled in
    number, cancelled = 0, True
    with world_on(server) as all_:
        while cancelled:
            number += 1
            schema = f"s{number}"
            (all_.folder / schema).mkdir()
            world = World(all_.folder / schema, f"{all_.url}?schema={schema}")
            guard = Guard(world.url)
            job = work(world, guard, async_payer(world, hook=False), "T-1")
            cancelled = await cancel(number, moment, job)
            try:
                await assert_one_effect_or_a_doubt(guard, world)
            except AssertionError as wrong:
                count.add([f"wrong: cancelled at await {number}: {wrong}"], points=0)
            guard.close()
            count.add([])
