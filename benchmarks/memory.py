"""Memory: how much a process has grown after a hundred thousand guarded calls."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .laps import MANY, AsyncWork, Caller, Place, Subject, SyncWork
from .subjects import (
    AMOUNT,
    as_read,
    as_write,
    guarded_read,
    guarded_write_async,
    needs_agentguard,
    new_guard,
)

PER_RUN = 100
"""Calls of a run: what a run remembers of its calls is gone when it ends."""


def resident() -> int:
    """Return the bytes that this process has in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@needs_agentguard
@contextmanager
def reads(place: Place) -> Iterator[SyncWork]:
    """Reads one after another, in runs of a hundred."""
    guard, tool = new_guard(place), as_read(guarded_read)

    def calls(caller: Caller, steps: int) -> None:
        for run in range(steps // PER_RUN):
            with guard.run("bench", run_id=f"{caller.name}-run{run}"):
                for ticket in caller.tickets(PER_RUN):
                    tool(ticket, AMOUNT)

    def work(caller: Caller, steps: int) -> list[float]:
        calls(Caller(0, f"{caller.name}-before"), steps // 5)  # caches fill, arenas find their size
        before = resident()
        calls(caller, steps)
        return [float(resident() - before)]

    yield work


@needs_agentguard
@contextmanager
def writes(place: Place) -> Iterator[AsyncWork]:
    """Writes of 32 tasks at once, in runs of a hundred."""
    import asyncio

    guard, tool = new_guard(place), as_write(guarded_write_async)

    async def runs_of(caller: Caller, task: int, runs: int) -> None:
        for run in range(runs):
            name = f"{caller.name}-task{task}-run{run}"
            async with guard.run("bench", run_id=name):
                for ticket in Caller(task, name).tickets(PER_RUN):
                    await tool(ticket, AMOUNT)

    async def calls(caller: Caller, steps: int) -> None:
        runs = max(1, round(steps / PER_RUN / MANY))
        await asyncio.gather(*(runs_of(caller, task, runs) for task in range(MANY)))

    async def work(caller: Caller, steps: int) -> list[float]:
        await calls(Caller(0, f"{caller.name}-before"), steps // 5)
        before = resident()
        await calls(caller, steps)
        return [float(resident() - before)]

    yield work


MEMORY = [
    Subject("guarded reads", "memory", "ours", reads, unit="bytes"),
    Subject("guarded writes, 32 tasks", "memory", "ours", writes, mode="tasks", unit="bytes"),
]
