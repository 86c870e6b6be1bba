"""F18 on SQLite: a disk that syncs slowly, a writer who stalls, tools and hooks that take too long."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentguard import EffectRecordingFailed, Guard, StoreUnavailable
from agentguard.stores import sqlite as engine
from tests.faults.fleet import Fleet, Job, judged, work
from tests.faults.matrix import Count, Result
from tests.faults.processes import ended, fork
from tests.faults.rows.postgres_slowness import hanging_hook, late_tool
from tests.faults.scenes import attempt, payer
from tests.faults.strace import NoTrace, calls, traced
from tests.faults.world import World
from tests.postgres.home import MEMORY, until

BUSY_MS = 300
"""How long a call waits for other writers in the short form; in the long one as it really does."""


def sqlite(long: bool, seed: int) -> Result:
    """Let everything take longer than anybody waits for it."""
    count = Count("F18", "sqlite", seed)
    if not long:
        engine._BUSY_MS = BUSY_MS
    for scene in (hanging_hook, late_tool, stalled_before, stalled_after):
        with world_in_memory() as world:
            code = ended(fork(scene, world))
            count.add([f"{scene.__name__} ended with {code}"] if code else [])
            count.add(judged(world), 0, scene.__name__)
    syncs = slow_disk(count, 5.0 if long else 0.1, seed)
    return count.result(f"{syncs}; a writer who stalls, a hook and a tool that do not end")


@contextmanager
def world_in_memory() -> Iterator[World]:
    """Make a world in a folder that is gone afterwards."""
    home = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=home, prefix="agentguard-") as folder:
        yield World(Path(folder))


def slow_disk(count: Count, seconds: float, seed: int) -> str:
    """Let three workers share a store, one of them with a disk that takes so long for each sync."""
    with world_in_memory() as world:
        trace, job = world.folder / "trace", Job(str(world.folder), number=9, tickets=12)
        slow = f"inject=fdatasync,fsync:delay_enter={int(seconds * 1_000_000)}"
        with Fleet(world, 2, seed, tickets=12, body_ms=200) as fleet:
            try:
                code = traced(lambda: work(job), trace, "-e", "trace=fdatasync,fsync", "-e", slow)
            except NoTrace as reason:
                return f"no slow disk: {reason}"
            problems = fleet.finish()
        count.add([f"stuck: the slow worker ended with {code}"] if code else [])
        hit = sum("DELAYED" in call.more for call in calls(trace))
        count.add(problems, hit, "slow disk")
        return f"{hit} syncs of {seconds} s each"


def stalled_before(world: World) -> None:
    """While another writer holds the store for longer than a call waits, no body begins."""
    guard, pay, other = Guard(world.url), payer(world), another(world)
    with guard.run("work", run_id="r"):
        other.execute("BEGIN IMMEDIATE")
        assert attempt(pay, "T-1", world) == StoreUnavailable.kind
        assert not world.effects()
        other.execute("ROLLBACK")
        assert attempt(pay, "T-1", world) == "success"
    guard.close()


def stalled_after(world: World) -> None:
    """What cannot be written when the body has ended is written as soon as it can be."""
    guard, other = Guard(world.url), another(world)
    pay = payer(world, after=lambda: other.execute("BEGIN IMMEDIATE"))
    with guard.run("work", run_id="r"):
        assert attempt(pay, "T-1") == EffectRecordingFailed.kind
        other.execute("ROLLBACK")
        until(
            lambda: [effect.state for effect in guard.effects.list()] == ["succeeded"],
            "the end of the call to be written down",
        )
        assert attempt(payer(world), "T-1", world) == "success"
    guard.close()


def another(world: World) -> sqlite3.Connection:
    """Connect to the store as another program does, which leaves a transaction open."""
    return sqlite3.connect(world.store, check_same_thread=False, isolation_level=None)
