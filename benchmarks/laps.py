"""A lap: a subject's callers each do the same number of steps, and every step is timed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias

Role = Literal["floor", "peer", "ours"]
Mode = Literal["threads", "tasks"]
Unit = Literal["seconds", "bytes"]

MANY = 32
"""How many callers "32 writers" are."""


class NotAvailable(Exception):
    """The subject cannot run here: a package is missing, or it is not built yet."""


def need(distribution: str, module: str) -> None:
    """Refuse to open a subject whose package is missing; *module* is looked for, not loaded."""
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing too
        found = False
    if not found:
        raise NotAvailable(f"{distribution} is not installed, so what needs it is left out")


@dataclass(frozen=True, slots=True)
class Caller:
    """One of the callers of a lap.

    Attributes:
        number: its place among the callers, the same in every lap.
        name: unlike any other in the process, so that no step of a lap repeats an earlier step.
    """

    number: int
    name: str

    def tickets(self, steps: int) -> list[str]:
        """Name *steps* tickets that no other caller or lap uses."""
        return [f"{self.name}-{step}" for step in range(steps)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subject lives for the whole run.

    Attributes:
        folder: its own directory, on the filesystem that is measured.
        runner: the one event loop of its process.
        shared: a directory that all subjects of this run see.
        postgres: the address of the server of this run, or why there is none.
    """

    folder: Path
    runner: asyncio.Runner
    shared: Path
    postgres: str


@dataclass(frozen=True, slots=True)
class Lap:
    """What one lap took.

    Attributes:
        wall: seconds from the start of the first caller to the return of the last, opening and
            closing of its run or workflow included: what is not durable before that is waited for.
        steps: each step as its caller saw it, in the subject's unit.
    """

    wall: float
    steps: list[float]


SyncWork: TypeAlias = Callable[[Caller, int], list[float]]
AsyncWork: TypeAlias = Callable[[Caller, int], Awaitable[list[float]]]
Opener: TypeAlias = Callable[[Place], AbstractContextManager[SyncWork | AsyncWork]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is measured.

    Attributes:
        name: what the table calls it, unique within its group.
        group: the subjects it alternates with.
        role: a floor, a peer or our own.
        open: makes it ready in its place and yields the work of one caller.
        library: whose column it fills, for peers.
        callers: how many at once.
        mode: how they run at once.
        beside: the subject of its group that its ratio is taken to; if empty, the group's floor.
        unit: what its steps are measured in.
        kind: peers are compared only with what is of the same kind.
        full: it takes too long for a quick run.
        caveat: what has to be said beside its figures.
    """

    name: str
    group: str
    role: Role
    open: Opener
    library: str = ""
    callers: int = 1
    mode: Mode = "threads"
    beside: str = ""
    unit: Unit = "seconds"
    kind: str = ""
    full: bool = False
    caveat: str = ""


def timed(step: Callable[[str], object], tickets: Sequence[str]) -> list[float]:
    """Time *step* on each ticket."""
    taken: list[float] = []
    for ticket in tickets:
        start = perf_counter()
        step(ticket)
        taken.append(perf_counter() - start)
    return taken


def timed_for(seconds: float, step: Callable[[str], object], tickets: Sequence[str]) -> list[float]:
    """Time *step* on as many tickets as there is time for, one at least."""
    taken: list[float] = []
    for ticket in tickets:
        taken += timed(step, [ticket])
        if sum(taken) > seconds:
            break
    return taken


async def timed_async(
    step: Callable[[str], Awaitable[object]], tickets: Sequence[str]
) -> list[float]:
    """Time *step* on each ticket, awaited."""
    taken: list[float] = []
    for ticket in tickets:
        start = perf_counter()
        await step(ticket)
        taken.append(perf_counter() - start)
    return taken


def timed_in_batches(
    step: Callable[[str], object], tickets: Sequence[str], batch: int = 1000
) -> list[float]:
    """Time *step* over batches, for steps that are shorter than reading the clock."""
    taken: list[float] = []
    for ticket in tickets:
        start = perf_counter()
        for _ in range(batch):
            step(ticket)
        taken.append((perf_counter() - start) / batch)
    return taken


def in_threads(work: SyncWork, callers: Sequence[Caller], steps: int) -> Lap:
    """Run every caller in a thread of its own; all start together."""
    gate = threading.Barrier(len(callers) + 1)

    def call(caller: Caller) -> list[float]:
        gate.wait()
        return work(caller, steps)

    with ThreadPoolExecutor(len(callers)) as pool:
        pending = [pool.submit(call, caller) for caller in callers]
        gate.wait()
        start = perf_counter()
        taken = [future.result() for future in pending]
        return Lap(perf_counter() - start, list(itertools.chain(*taken)))


async def in_tasks(work: AsyncWork, callers: Sequence[Caller], steps: int) -> Lap:
    """Run every caller in an asyncio task of its own."""
    start = perf_counter()
    taken = await asyncio.gather(*(work(caller, steps) for caller in callers))
    return Lap(perf_counter() - start, list(itertools.chain(*taken)))


def alone(work: SyncWork, caller: Caller, steps: int) -> Lap:
    """Run the one caller in the main thread, where no other thread competes with it."""
    start = perf_counter()
    taken = work(caller, steps)
    return Lap(perf_counter() - start, taken)


def named_callers(many: int) -> Iterator[list[Caller]]:
    """Give each lap its callers, under names that never come again."""
    for lap in itertools.count():
        yield [Caller(number, f"lap{lap}-caller{number}") for number in range(many)]
