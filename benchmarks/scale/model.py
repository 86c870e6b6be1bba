"""Workers, processes, locks, cores and a disk, event by event: where it stops going faster.

A worker runs tasks without end: it enters a run, lets a model think, starts an effect, waits for
its body, settles it, and so on, then leaves the run. Each of these four verbs goes to the queue of
its process, which commits what has gathered as one batch (group commit, as the stores do it). A
batch takes its locks, then its process's CPU, then round trips, then a core of the server, then the
next flush of the log, which is shared by all batches that are ready; its locks are free after that.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

MAX_BATCH = 256
ENTER, START, SETTLE, LEAVE = "enter", "start", "settle", "leave"


@dataclass(frozen=True)
class Costs:
    """What a commit costs: CPU of the process and of the server, round trips, waiting for the disk."""

    cpu_fixed: float
    cpu_each: float
    server_each: float
    trips_fixed: float
    trips_each: float
    waits: tuple[float, ...]


@dataclass(frozen=True)
class Scene:
    """Who works where, and what they share.

    Attributes:
        think, body: mean seconds of a model's turn and of a tool's body.
        calls: guarded writes of a task.
        trip: seconds of a round trip to the server.
        cores: of one server.
        servers: over which tenants are spread.
        one_file: the whole store is locked by a commit, as a SQLite file is, and flushed by itself.
        positions_inside: the leaf of a run gets its place in the transaction that adds it.
        budget: "" for none, "row" for one row that every call of a tenant locks, "lease" for shares
            of it that a process takes for many calls.
        share: calls for which a share is taken.
        pinned: a process serves one tenant; otherwise each serves all.
    """

    workers: int = 10_000
    processes: int = 100
    tenants: int = 1
    think: float = 8.0
    body: float = 0.5
    calls: int = 10
    trip: float = 0.0003
    cores: int = 8
    servers: int = 1
    one_file: bool = False
    positions_inside: bool = False
    budget: str = ""
    share: int = 100
    pinned: bool = False


@dataclass
class Found:
    """What came of it: rates a second, and seconds from asking for a start to its durability."""

    offered: float = 0.0
    writes: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    batch: float = 0.0
    cores: float = 0.0
    flush: float = 0.0


class Simulation:
    """One scene, for a while.

    Args:
        seed: makes the same run again.
    """

    def __init__(self, scene: Scene, costs: Costs, seed: int = 1) -> None:
        self.scene, self.costs, self.random = scene, costs, random.Random(seed)
        self.now, self._order = 0.0, itertools.count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.locks: dict[Hashable, Lock] = {}
        self.machines = [Machine(self) for _ in range(scene.servers)]
        self.processes = [Process(self, number) for number in range(scene.processes)]
        self.latencies: list[float] = []
        self.writes, self.batches, self.since = 0, list[int](), 0.0

    def at(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), call, arguments))

    def run(self, warm: float, seconds: float) -> Found:
        """Let everybody work; what happens while it warms up is not counted."""
        for number in range(self.scene.workers):
            worker = Worker(self, number)
            self.at(self.random.uniform(0, self.scene.think), worker.next)
        self._until(warm)
        self.latencies, self.writes, self.batches, self.since = [], 0, [], self.now
        for machine in self.machines:
            machine.used = machine.flushing = 0.0
        self._until(warm + seconds)
        return self._found(seconds)

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        self.now = end

    def _found(self, seconds: float) -> Found:
        scene, sorted_ = self.scene, sorted(self.latencies) or [float("inf")]
        turn = scene.think * (1 + 1 / scene.calls) + scene.body
        return Found(
            offered=scene.workers / turn if turn else 0.0,
            writes=self.writes / seconds,
            p50=sorted_[len(sorted_) // 2],
            p99=sorted_[len(sorted_) * 99 // 100],
            batch=fmean(self.batches or [0]),
            cores=sum(m.used for m in self.machines) / seconds / scene.cores / scene.servers,
            flush=sum(m.flushing for m in self.machines) / seconds / scene.servers,
        )

    def some(self, mean: float) -> float:
        """Draw a time as memoryless things take it."""
        return self.random.expovariate(1 / mean) if mean else 0.0

    def wait(self) -> float:
        """Draw how long the disk takes, from what was measured."""
        place = self.random.random() * (len(self.costs.waits) - 1)
        below = int(place)
        low, high = self.costs.waits[below], self.costs.waits[below + 1]
        return low + (high - low) * (place - below)


class Worker:
    """Runs one task after the other."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.of, self.left = simulation, 0
        scene, process = simulation.scene, number % len(simulation.processes)
        self.tenant = (process if scene.pinned else number // scene.processes) % scene.tenants
        self.process = simulation.processes[process]

    def next(self) -> None:
        """Enter a run, start a call, or leave."""
        if self.left == 0:
            self.left = self.of.scene.calls
            self._ask(ENTER, self._think)
        else:
            self._ask(START, self._body)

    def _ask(self, verb: str, then: Callable[[], None]) -> None:
        self.process.put(Verb(verb, self.tenant, self.of.now, then))

    def _think(self) -> None:
        self.of.at(self.of.some(self.of.scene.think), self.next)

    def _body(self) -> None:
        self.of.at(self.of.some(self.of.scene.body), self._settle)

    def _settle(self) -> None:
        self._ask(SETTLE, self._settled)

    def _settled(self) -> None:
        self.of.writes += 1
        self.left -= 1
        if self.left:
            self._think()
        else:
            self._ask(LEAVE, self._think)


@dataclass
class Verb:
    """What waits for a commit."""

    name: str
    tenant: int
    asked: float
    then: Callable[[], None]


class Process:
    """Commits what has gathered, one batch after the other."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.of, self.number, self.busy = simulation, number, False
        self.queue: deque[Verb] = deque()
        self.shares: dict[int, int] = {}

    def put(self, verb: Verb) -> None:
        """Take a verb, and begin if nothing is under way."""
        self.queue.append(verb)
        if not self.busy:
            self.busy = True
            self.of.at(0.0, self._begin)  # after whatever else comes at this moment

    def _begin(self) -> None:
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), MAX_BATCH))]
        self._lock(batch, sorted({lock for verb in batch for lock in self._locks(verb)}), 0)

    def _locks(self, verb: Verb) -> list[tuple[str, int]]:
        scene, locks = self.of.scene, list[tuple[str, int]]()
        if scene.one_file:
            locks.append(("file", verb.tenant % scene.servers))
        if scene.positions_inside and verb.name in (ENTER, LEAVE):
            locks.append(("log", verb.tenant))
        if scene.budget == "row" and verb.name in (START, SETTLE):
            locks.append(("budget", verb.tenant))
        if scene.budget == "lease" and verb.name == START and self._share_is_used_up(verb.tenant):
            locks.append(("budget", verb.tenant))
        return locks

    def _share_is_used_up(self, tenant: int) -> bool:
        left = self.shares.get(tenant, 0)
        self.shares[tenant] = (left or self.of.scene.share) - 1
        return not left

    def _lock(self, batch: list[Verb], locks: list[tuple[str, int]], place: int) -> None:
        if place < len(locks):
            lock = self.of.locks.setdefault(locks[place], Lock())
            lock.take(lambda: self._lock(batch, locks, place + 1))
            return
        costs, count = self.of.costs, len(batch)
        own = costs.cpu_fixed + costs.cpu_each * count
        trips = costs.trips_fixed + costs.trips_each * count
        machine = self.of.machines[batch[0].tenant % len(self.of.machines)]
        self.of.at(
            own + trips * self.of.scene.trip, machine.work, costs.server_each * count,
            lambda: self._done(batch, locks),
        )  # fmt: skip

    def _done(self, batch: list[Verb], locks: list[tuple[str, int]]) -> None:
        """Everything is durable: let go, and tell everybody."""
        for name in locks:
            self.of.locks[name].free()
        self.of.batches.append(len(batch))
        for verb in batch:
            if verb.name == START:
                self.of.latencies.append(self.of.now - verb.asked)
            verb.then()
        self.busy = bool(self.queue)
        if self.busy:
            self._begin()


class Lock:
    """Held by one, given to whoever came first."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: deque[Callable[[], None]] = deque()

    def take(self, then: Callable[[], None]) -> None:
        """Go on once it is free."""
        if self.held:
            self.waiting.append(then)
        else:
            self.held = True
            then()

    def free(self) -> None:
        """Give it to the next one."""
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.held = False


@dataclass
class Machine:
    """A server: cores that serve whoever comes first, and a disk whose flushes are shared."""

    of: Simulation
    ready: list[float] = field(default_factory=list)
    unflushed: list[Callable[[], None]] = field(default_factory=list)
    is_flushing: bool = False
    used: float = 0.0
    flushing: float = 0.0

    def work(self, seconds: float, then: Callable[[], None]) -> None:
        """Take a core for a while, then wait for the disk."""
        if not self.ready:
            self.ready = [0.0] * self.of.scene.cores
        begin = max(self.of.now, self.ready.pop(0))
        insort(self.ready, begin + seconds)
        self.used += seconds
        self.of.at(begin + seconds - self.of.now, self._flush, then)

    def _flush(self, then: Callable[[], None]) -> None:
        if (
            self.of.scene.one_file
        ):  # its lock lets nobody else come, and every file has a flush of its own
            self._wait([then])
            return
        self.unflushed.append(then)
        if not self.is_flushing:
            self._next()

    def _next(self) -> None:
        self.is_flushing = bool(self.unflushed)
        if self.is_flushing:
            waiting, self.unflushed = self.unflushed, []
            self._wait([*waiting, self._next])

    def _wait(self, then: list[Callable[[], None]]) -> None:
        seconds = self.of.wait()
        self.flushing += seconds
        self.of.at(seconds, self._flushed, then)

    @staticmethod
    def _flushed(then: list[Callable[[], None]]) -> None:
        for call in then:
            call()
