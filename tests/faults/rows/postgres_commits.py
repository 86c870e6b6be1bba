"""F15: the answer to COMMIT is lost on its way, or says less than it seems to say."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from functools import partial

from agentguard import Guard, GuardError, _durable
from tests.faults.fleet import Fleet, database_of_world, judged, make, world_on
from tests.faults.matrix import Count, Result
from tests.faults.processes import ended, fork
from tests.faults.scenes import attempt, payer
from tests.faults.world import World, append, lines
from tests.postgres.home import alive, until
from tests.postgres.proxy import Loss, Proxy
from tests.postgres.server import Server

_END = """
    SELECT statement_timestamp() AS at, count({}(pid)) FROM pg_stat_activity
    WHERE datname = %s AND wait_event = 'SyncRep'
"""
_WAITS_AGAIN = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = %s AND wait_event = 'SyncRep' AND xact_start > %s
"""

KINDS = (Loss.ANSWER, Loss.LAST_WORD, Loss.REQUEST, Loss.BOTH)
"""The short form loses each COMMIT in the first or second way, and in the third or fourth."""


def ambiguous(long: bool, seed: int) -> Result:
    """Lose each COMMIT of a worker, one way and the other; then many at random; then cancel them."""
    count = Count("F15", "postgres", seed)
    make({
        "each": lambda: each_commit_lost(count, every=long),
        "random": lambda: lost_at_random(count, tickets=2000 if long else 40),
        "operator": lambda: cancelled(count, by_operator),
        "termination": lambda: cancelled(count, by_termination),
        "signal": lambda: cancelled(count, by_signal),
    })  # fmt: skip
    return count.result(
        "each COMMIT of a call; one in ten of a crowd; cancelled before a standby has it"
    )


def one_call(world: World, ticket: str) -> None:
    """Be a worker with one call to make, and leave behind how it ended."""
    signal.signal(signal.SIGINT, lambda *_: noticed(world, ticket))
    _durable._PATIENCE = 1.0  # nobody is there to be waited for
    try:
        guard = Guard(world.url)
        with guard.run("one"):
            end = attempt(payer(world), ticket, world)
        guard.close()
    except GuardError as error:
        end = error.kind
    except KeyboardInterrupt:
        end = "interrupted"
    append(world.folder / "ends", f"{ticket} {end}")


def noticed(world: World, ticket: str) -> None:
    """Do what Ctrl-C does, and leave behind that it was done."""
    append(world.folder / "interrupts", ticket)
    raise KeyboardInterrupt


def called(world: World, ticket: str) -> str:
    """Have a worker make one call; return how it ended."""
    ended(fork(one_call, world, ticket))
    return lines(world.folder / "ends")[-1].partition(" ")[2]


def make_tables(world: World) -> None:
    """Open the store once, before anything is lost."""
    Guard(world.url).close()


def each_commit_lost(count: Count, *, every: bool) -> None:
    """Lose one COMMIT after the other; the next worker must find what is true, without a doubt."""
    with Server() as server, Proxy(server) as proxy, world_on(server, via=proxy) as world:
        make_tables(world)
        for number in itertools.count():
            kinds = list(Loss) if every else [KINDS[(number + count.seed + n) % 4] for n in (0, 2)]
            lost = [loss for loss in kinds if is_lost(proxy, world, loss, number)]
            for loss in lost:
                end = called(world, f"T-{loss.name}-{number}")
                words = [] if end == "success" else [f"wrong: after {loss} at {number}: {end}"]
                count.add(words)
            if not lost:
                break
        count.add(judged(world), points=0)


def is_lost(proxy: Proxy, world: World, loss: Loss, number: int) -> bool:
    """Have a worker make a call whose COMMIT of this number is lost; False if it has fewer."""
    proxy.losses, proxy.at_commit = 0, at(number, partial(Loss, loss))
    called(world, f"T-{loss.name}-{number}")
    proxy.lose_nothing()
    return proxy.losses > 0


def at(number: int, act: Callable[[], Loss | None]) -> Callable[[], Loss | None]:
    """Do something at the COMMIT of this number, counted from now."""
    counted = itertools.count()
    return lambda: act() if next(counted) == number else None


def lost_at_random(count: Count, tickets: int) -> None:
    """Lose one COMMIT in ten of a crowd."""
    with (
        Server() as server,
        Proxy(server) as proxy,
        world_on(server, via=proxy) as world,
        Fleet(world, 4, count.seed, tickets=tickets) as fleet,
    ):
        kinds = [*Loss] + [None] * (9 * len(Loss))
        proxy.at_commit = lambda: fleet.random.choice(kinds)
        count.add(fleet.finish(proxy.lose_nothing), points=0)
        count.points += proxy.losses


def cancelled(count: Count, how: Callable[[World, str, int, Server], None]) -> None:
    """Cancel each COMMIT of a worker while it waits until the standby has it.

    PostgreSQL answers that it is done, with a warning. Nobody may act on such a word.
    """
    with Server() as primary, Proxy(primary) as proxy, world_on(primary, via=proxy) as world:
        make_tables(world)
        standby, name = primary.standby(synchronous=True), database_of_world(world)
        for number in itertools.count():
            stalled: list[Callable[[], None]] = []
            proxy.at_commit = at(number, stall(standby, stalled))
            worker = fork(one_call, world, f"T-{number}")
            if not comes_to(worker, partial(bool, stalled)):
                proxy.lose_nothing()
                break
            until(lambda: primary.waiting_for_standby(name), "the commit to wait for the standby")
            how(world, f"T-{number}", worker, primary)
            count.add(ahead(world, standby), place=f"{how.__name__} at {number}")
            stalled[0]()
            ended(worker)
            called(world, f"T-{number}")
        ended(worker)
        count.add(judged(world), points=0)
        standby.remove()


def stall(standby: Server, stalled: list[Callable[[], None]]) -> Callable[[], None]:
    """Return what stops the standby's receiver and notes how it goes on."""
    return lambda: stalled.append(standby.stall_receiver())


def comes_to(worker: int, event: Callable[[], bool]) -> bool:
    """Wait until something happens or a worker ends; return whether it happened."""
    until(lambda: event() or not alive(worker), "a worker to go on or to end")
    return event()


def by_operator(world: World, _ticket: str, worker: int, primary: Server) -> None:
    """Cancel what the worker waits for, as pg_cancel_backend does; wait for what it does then."""
    _ended_by("pg_cancel_backend", world, worker, primary)


def by_termination(world: World, _ticket: str, worker: int, primary: Server) -> None:
    """Cut the worker off while it waits: the server's last word is a failure, and it has committed."""
    _ended_by("pg_terminate_backend", world, worker, primary)


def _ended_by(function: str, world: World, worker: int, primary: Server) -> None:
    name, before = database_of_world(world), seen(world)
    (row,) = primary.query(_END.format(function), name)
    comes_to(
        worker,
        lambda: seen(world) != before or bool(primary.query(_WAITS_AGAIN, name, row["at"])),
    )


def by_signal(world: World, ticket: str, worker: int, _primary: Server) -> None:
    """Interrupt the worker, as Ctrl-C does."""
    os.kill(worker, signal.SIGINT)
    comes_to(worker, lambda: ticket in lines(world.folder / "interrupts"))


def seen(world: World) -> tuple[int, int]:
    """Count what happened and what callers were told."""
    return world.effects().total(), len(world.told())


def ahead(world: World, standby: Server) -> list[str]:
    """List what the world knows and the standby does not: a failover now would forget it."""
    try:
        until(lambda: not unknown(world, standby), "the standby to replay what it has", 5)
    except TimeoutError:
        return unknown(world, standby)
    return []


def unknown(world: World, standby: Server) -> list[str]:
    """List what the standby does not say now."""
    name, sql = database_of_world(world), "SELECT key, state FROM agentguard.effects"
    states = {row["key"]: row["state"] for row in standby.query(sql, database=name)}
    told, names = world.told(), world.names()
    return [
        *(
            f"unreported: {name} began on one server only"
            for key, name in names.items()
            if key not in states
        ),
        *(
            f"lost: {name} is told and the standby says {states.get(key)}"
            for key, name in names.items()
            if name in told and states.get(key) != "succeeded"
        ),
    ]
