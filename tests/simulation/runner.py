"""Runs schedules one after another over one database, and tells the story of one of them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

from agentguard.errors import GuardError
from agentguard.ledger.lifecycle import open_run
from agentguard.ledger.values import Opening
from agentguard.model import Approval, Effect, Limits
from tests.simulation.calls import Calls
from tests.simulation.disk import SECOND, Disk, Machines, SimulatedStore, Time
from tests.simulation.faults import happen
from tests.simulation.recovery import recover
from tests.simulation.schedule import RUNS, Deliver, Schedule
from tests.simulation.verbs import Verbs, ref

STEPS = 45
"""So many things happen before the faults end."""


class Installed(Deliver, Protocol):
    """How calls are delivered, and what has to be in place for it."""

    def installed(self) -> AbstractContextManager[None]:
        """Put it into place for a while."""
        ...


DELIVERED: dict[str, Callable[[Disk], Installed]] = {"verbs": Verbs, "calls": Calls}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is simulated, under how many seeds in the short form and in the long one.

    Attributes:
        first: the first seed: the rarest of the seeded bugs has to show itself in the short form.
    """

    delivered: str
    jumps: bool
    short: int
    long: int
    first: int = 0

    def seeds(self, *, long: bool, seed: int = 1) -> range:
        """Return the seeds of a trial; trials with other numbers have other ones."""
        first = (seed - 1) * 1_000_000 + self.first
        return range(first, first + (self.long if long else self.short))


KINDS = {
    "verbs": Kind("verbs", jumps=False, short=15_000, long=600_000),
    "verbs, clock": Kind("verbs", jumps=True, short=5_000, long=300_000),
    "calls": Kind("calls", jumps=False, short=1_500, long=70_000, first=5_000),
    "calls, clock": Kind("calls", jumps=True, short=500, long=30_000),
}
CHUNK = 5_000
"""So many schedules at a time are given to a process."""


@dataclass
class Total:
    """What many schedules have found.

    Attributes:
        words: what was wrong, each with its seed.
        excused: acts that were repeated where nobody can promise that they are not.
        seen: how often commits had which answer.
    """

    schedules: int = 0
    words: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, other: Total) -> Total:
        """Take over what others have found."""
        self.schedules += other.schedules
        self.words += other.words
        self.excused += other.excused
        self.seen += other.seen
        return self

    def excuses(self) -> str:
        """Tell of the acts that are excused."""
        return ", ".join(f"{count} {why}" for why, count in sorted(self.excused.items()))


def prepared() -> Disk:
    """Make the database that schedules begin with: its runs are open."""
    disk = Disk()
    machines = Machines(disk, Time(), leases=False)
    store = SimulatedStore(machines, machines.start("a"))
    for run in RUNS:
        store.transact(open_run, Opening(ref(run), "w", "bot", None, Limits(), "1", None, {}))
    disk.rows("DELETE FROM owners")
    return disk


def try_all(
    seeds: Iterable[int], delivered: str = "verbs", *, jumps: bool = False, most: int = 20
) -> Total:
    """Run a schedule for each seed, until *most* things are wrong."""
    disk, total = prepared(), Total()
    how = DELIVERED[delivered](disk)
    with how.installed():
        for seed in seeds:
            schedule = Schedule(disk, seed, how, jumps=jumps)
            found = play(schedule)
            total.schedules += 1
            total.words += [f"{problem} (seed {seed})" for problem in found]
            total.excused += schedule.world.excused
            total.seen += schedule.world.seen
            if len(total.words) >= most:
                break
    return total


def try_on_all_cores(kind: Kind, seeds: range) -> Total:
    """Run a schedule for each seed, in as many processes as there are cores."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    total = Total()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        tried = functools.partial(try_all, delivered=kind.delivered, jumps=kind.jumps)
        for found in pool.map(tried, chunks):
            total.add(found)
    return total


def play(schedule: Schedule) -> list[str]:
    """Let everything happen, let everybody recover, and return what is wrong."""
    disk = schedule.world.disk
    disk.begin()
    try:
        schedule.begin()
        for _ in range(STEPS):
            if schedule.tasks:
                happen(schedule)
        recover(schedule)
        return schedule.world.problems()
    finally:
        disk.undo()


def story_of(seed: int, delivered: str = "verbs", *, jumps: bool = False) -> list[str]:
    """Tell what happens under one seed, step by step, and what is wrong at the end."""
    disk = prepared()
    how = DELIVERED[delivered](disk)
    schedule = Schedule(disk, seed, how, jumps=jumps)
    schedule.story, began = [], schedule.time.true
    with how.installed():
        found = play(schedule)
    told = [line(began, *words) for words in schedule.story]
    return [*told, "", *(found or ["nothing is wrong"])]


def line(began: int, true: int, ahead: int, *words: Any) -> str:
    """Return one line of a story: what time it is, whose clock is wrong by how much, and what."""
    off = f" (clock {ahead / SECOND:+.0f} s)" if ahead else ""
    return f"{(true - began) / SECOND:10.3f} s{off}  " + " ".join(map(short, words))


def short(word: Any) -> str:
    """Return how a story tells of a thing."""
    if isinstance(word, Effect):
        return str(word.state)
    if isinstance(word, Approval):
        return word.status
    return word.kind if isinstance(word, GuardError) else str(word)
