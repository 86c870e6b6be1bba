"""One schedule: which process goes on when, and what breaks meanwhile; its seed names it.

Everything that happens is drawn from one random generator, so that a seed tells the same story
every time. What processes do are generators or coroutines that stop at every place where another
one could go on, or where they could die.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from agentguard.errors import GuardError, StoreUnavailable
from tests.simulation.disk import (
    LEASE,
    Crashed,
    Disk,
    Fate,
    Machines,
    Process,
    SimulatedStore,
    Time,
)
from tests.simulation.places import Nap
from tests.simulation.world import POOLED, World

RUNS = ("r", "s")
TOOLS = ("plain", "hooked", "hooked", "deduped", "asked", POOLED, "threaded", "threaded")
_FATES = (
    *(Fate.HEARD,) * 86, *(Fate.RUN_TWICE,) * 3, *(Fate.REFUSED,) * 3, *(Fate.LOST,) * 3,
    *(Fate.UNHEARD,) * 4, Fate.LAST_WORD,
)  # fmt: skip
_LOCAL = {Fate.LOST: Fate.REFUSED, Fate.UNHEARD: Fate.HEARD}
"""Where the store is a file of this host, its answers are not lost."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a model asks for: one intent, which may be delivered more than once."""

    key: str
    tool: str
    quorum: int = 1

    @property
    def dedupes(self) -> bool:
        """Whether the backend drops repeats of the key."""
        return self.tool == "deduped"

    @property
    def hooked(self) -> bool:
        """Whether the tool can be asked what it did."""
        return self.tool not in ("plain", "deduped")


@dataclass(eq=False, slots=True)
class Task:
    """Something a process does for a call, step by step.

    Attributes:
        run: in which run it delivers the call; empty for what is done beside a delivery.
        place: where it stopped last.
        until: true time before which it sleeps.
    """

    process: Process
    steps: Generator[Any, Any, Any]
    order: Order
    run: str = ""
    place: Any = ""
    until: int = 0


class Deliver(Protocol):
    """How a call is delivered: by the ledger's verbs, or by the whole guarded call."""

    can_be_cancelled: bool

    def row(self, order: Order, /) -> str:
        """Return the key of an order's effect in the store."""
        ...

    def kept(self, order: Order, /) -> str:
        """Return the result of an order as the store keeps it."""
        ...

    def __call__(self, schedule: Schedule, process: Process, order: Order, run: str, /) -> Any:
        """Return the steps of one delivery."""
        ...


class Schedule:
    """A world of processes under one seed.

    Args:
        jumps: whether somebody sets the clock.

    Attributes:
        quiet: nothing breaks any more.
        story: what happened, where somebody listens.
    """

    def __init__(self, disk: Disk, seed: int, deliver: Deliver, *, jumps: bool) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.time = Time()
        self.world = World(disk, self.time)
        self.machines = Machines(disk, self.time, leases=self.random.random() < 0.6)
        self.machines.watch, self.machines.fate = self.world.committed, self._fate
        self.deliver, self.jumps, self.quiet, self.crashes = deliver, jumps, False, 3
        self.tasks: list[Task] = []
        self.story: list[tuple[Any, ...]] | None = None
        self.hosts = ("a", "b") if self.machines.leases else ("a",)
        self.orders = [self._order(number) for number in range(self.random.choice((1, 2, 2)))]

    def _order(self, number: int) -> Order:
        chance = self.random
        return Order(f"k{number + 1}", chance.choice(TOOLS), chance.choice((1, 1, 2)))

    def begin(self) -> None:
        """Start two processes and have them deliver the orders, once or twice each."""
        chance = self.random
        hosts = (self.hosts[0], chance.choice(self.hosts))
        processes = [self.machines.start(host) for host in hosts]
        for order in self.orders:
            run = chance.choice(RUNS)
            for _ in range(chance.choice((1, 2))):
                other = chance.choice(RUNS) if chance.random() < 0.2 else run
                self.start(chance.choice(processes), order, other)

    def _fate(self, process: Process) -> Fate:
        if self.quiet:
            return Fate.HEARD
        fate = self.random.choice(_FATES)
        if not self.machines.leases:
            fate = _LOCAL.get(fate, fate)
        if fate is not Fate.HEARD:
            self.tell(process.name, "the next commit:", fate.value)
        return fate

    def tell(self, *words: Any) -> None:
        """Add a line to the story, if somebody listens."""
        if self.story is not None:
            self.story.append((self.time.true, self.time.ahead, *words))

    # What processes do.

    def store(self, process: Process) -> SimulatedStore:
        """Return the store as *process* sees it."""
        return SimulatedStore(self.machines, process)

    def start(self, process: Process, order: Order, run: str) -> None:
        """Have *process* deliver a call."""
        steps = self.deliver(self, process, order, run)
        self.spawn(process, steps, order, f"delivers it in {run}", run)

    def spawn(self, process: Process, steps: Any, order: Order, name: str, run: str = "") -> None:
        """Give *process* something more to do for a call."""
        self.tell(process.name, order.key, order.tool, name)
        self.tasks.append(Task(process, steps, order, run))

    def go_on(self) -> None:
        """Let somebody who can go on do one step; if nobody can, time passes until somebody can."""
        now = self.time.true
        ready = [t for t in self.tasks if t.until <= now and t.process.wakes <= now]
        if ready:
            self.step(self.random.choice(ready))
        else:
            self.pass_time(min(max(t.until, t.process.wakes) for t in self.tasks))

    def step(self, task: Task, interrupt: BaseException | None = None) -> None:
        """Let a task go on to its next place; where it stood still, its heartbeat may come first."""
        self.time.true += 1000
        if self.time.true - task.process.renewed > LEASE and self.random.random() < 0.5:
            self.machines.beat(task.process)
        try:
            place = task.steps.throw(interrupt) if interrupt else task.steps.send(None)
        except (StopIteration, asyncio.CancelledError, KeyboardInterrupt):
            if task in self.tasks:
                self.tasks.remove(task)
        except Crashed:
            self.kill(task.process)
        else:
            task.place = place
            if type(place) is Nap:
                task.until = self.time.true + place
            self.tell(task.process.name, task.order.key, "…", place)

    def kill(self, process: Process) -> None:
        """End a process in the middle of whatever it does; another one takes up its deliveries."""
        self.tell(process.name, "dies")
        process.alive = False
        mine = [task for task in self.tasks if task.process is process]
        self.tasks = [task for task in self.tasks if task.process is not process]
        for task in mine:
            cut_off(task.steps)
        heir = self.machines.start(process.host)
        for task in mine:
            if task.run:
                self.start(heir, task.order, task.run)

    def pass_time(self, until: int) -> None:
        """Let time pass; who does not stand still renews its lease meanwhile."""
        awake = [p for p in self.machines.processes.values() if p.wakes <= self.time.true]
        self.time.true = until
        for process in awake:
            if process.alive:
                self.machines.beat(process)

    def ask(self, words: str, verb: Callable[..., Any], *args: Any) -> None:
        """Have somebody run a verb that nobody waits for; the story tells it in *words*."""
        now = self.time.true
        awake = [p for p in self.machines.processes.values() if p.alive and p.wakes <= now]
        process = self.random.choice(awake) if awake else self.machines.start("a")
        try:
            answer = self.store(process).transact(verb, *args)
        except StoreUnavailable as error:
            self.tell(process.name, words, "->", error)
        except Crashed:
            self.kill(process)
        else:
            self.tell(process.name, words, "->", answer)


def cut_off(steps: Any) -> None:
    """Close what a dead process was doing; it can do nothing more, whatever it tries."""
    try:
        steps.close()
    except (Crashed, GuardError):
        return
