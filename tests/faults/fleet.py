"""Workers that share one store and one list of things to do, each until it has seen all of it done.

    python -m tests.faults.fleet '{"folder": …, "number": 3}'

is one of them, as another host would start it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from agentguard import Guard, StoreUnavailable, _durable, current_run, idempotent, tool_contract
from tests.faults import oracle
from tests.faults.mutants import PLACES
from tests.faults.processes import PATIENCE, ended, fork
from tests.faults.scenes import attempt, payer
from tests.faults.world import World
from tests.postgres.home import MEMORY, prefer_memory
from tests.postgres.server import Server

prefer_memory()

_PAUSE = 0.02
"""Seconds after which a worker asks again for what it did not get."""


@dataclass(frozen=True)
class Job:
    """What a worker has to do.

    Attributes:
        number: which worker it is; each begins at another place of the list.
        tickets: how long the list is.
        body_ms: how long the tool takes, half of it before and half after its effect.
        stops_in: the body, counted from 1, in which it stops itself before the effect; 0 for none.
        early: it stops before that body instead, when its start is on record.
        ahead: seconds by which the clock of its host is fast.
        beside: its tool writes into the store's own database, in the transaction of its record.
        apart: it finds no locks of the others, as on a host of its own.
        patience: seconds without a success after which it gives up what is still not done.
    """

    folder: str
    number: int = 0
    tickets: int = 50
    hook: bool = True
    body_ms: float = 0
    stops_in: int = 0
    early: bool = False
    ahead: int = 0
    beside: bool = False
    apart: bool = False
    patience: float = PATIENCE


def work(job: Job) -> None:
    """Be a worker: call for every ticket until it is done, as often as that takes."""
    world, left = World(Path(job.folder)), turned(job)
    guard: Guard | None = None
    pause, deadline = threading.Event(), time.monotonic() + job.patience
    stop = on_a_strange_host(job)

    def before() -> None:
        pause.wait(job.body_ms / 2000)
        stop()

    def after() -> None:
        pause.wait(job.body_ms / 2000)

    pay = beside(before, after) if job.beside else payer(
        world, hook=job.hook, before=before, after=after
    )  # fmt: skip
    while left and time.monotonic() < deadline:
        try:
            guard = guard or Guard(world.url)
            with guard.run("fleet"):
                for ticket in list(left):
                    if attempt(pay, ticket, world) == "success":
                        left.remove(ticket)
                        deadline = time.monotonic() + job.patience
        except StoreUnavailable:
            """It is asked again, like everything else that was not done."""
        if left:
            pause.wait(_PAUSE)
    if left:
        sys.exit(f"worker {job.number} has not seen done: {left}")


def beside(before: Callable[[], object], after: Callable[[], object]) -> Callable[[str], str]:
    """Make a tool that writes into the database in which its record is."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", same_database=True)
    def pay(ticket: str) -> str:
        call = current_run().call
        before()
        values = (ticket, call.idempotency_key)
        call.connection.execute("INSERT INTO payments VALUES (%s, %s)", values)
        after()
        return f"paid-{secrets.token_hex(4)}"

    tool: Callable[[str], str] = pay
    return tool


def on_a_strange_host(job: Job) -> Callable[[], None]:
    """Make this process's host what the job says; return what to call in each body."""
    if job.apart:
        os.environ["AGENTGUARD_RUNTIME_DIR"] = f"{job.folder}/host-{job.number}"
    real_time, real_ns = time.time, time.time_ns
    time.time = lambda: real_time() + job.ahead
    time.time_ns = lambda: real_ns() + job.ahead * 10**9
    bodies = itertools.count(1)

    def stop() -> None:
        if next(bodies) == job.stops_in:
            os.kill(os.getpid(), signal.SIGSTOP)

    if not job.early:
        return stop
    check = _durable.DurableCall._check_may_begin

    def check_late(call: _durable.DurableCall) -> None:
        stop()
        check(call)

    _durable.DurableCall._check_may_begin = check_late  # type: ignore[method-assign, assignment]
    return lambda: None


def turned(job: Job) -> list[str]:
    """Return the list, from this worker's place on."""
    tickets = [f"T-{number}" for number in range(job.tickets)]
    turn = job.number * 7 % job.tickets
    return tickets[turn:] + tickets[:turn]


class Door(Protocol):
    """Something that leads to a server."""

    def url(self, database: str) -> str:
        """Return the address of a database behind it."""
        ...


@contextlib.contextmanager
def world_on(server: Server, *, via: Door | None = None, options: str = "") -> Iterator[World]:
    """Make a world whose store is a new database of *server*.

    Args:
        server: has the database.
        via: through what its workers reach it.
        options: what the URL says further.
    """
    home = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=home, prefix="agentguard-") as folder:
        yield World(Path(folder), f"{(via or server).url(server.new_database())}{options}")


def database_of_world(world: World) -> str:
    """Return the name of the database that is the store of *world*."""
    return urlsplit(world.url).path.removeprefix("/")


class Fleet:
    """Workers in forks of this process, who are started again when they are killed.

    As a context it ends those that are left, however the context ends.
    """

    def __init__(self, world: World, size: int, seed: int, **job: object) -> None:
        self.world, self.random = world, random.Random(seed)
        self._job = Job(str(world.folder), **job)  # type: ignore[arg-type]
        self._numbers = iter(range(10**6))
        self.workers = [self._start() for _ in range(size)]

    def _start(self, **job: object) -> int:
        number = next(self._numbers)
        return fork(work, dataclasses.replace(self._job, number=number, **job))  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(worker, signal.SIGKILL)
                ended(worker)

    def start(self, **job: object) -> int:
        """Start one more worker, with another job, and return its process id."""
        worker = self._start(**job)
        self.workers.append(worker)
        return worker

    def at_progress(self, acts: Sequence[Callable[[], object]]) -> int:
        """Do things while the work goes on, spread over all of it; return how many were done."""
        total = self._job.tickets
        for count, act in enumerate(acts):
            target = (count + self.random.random()) / len(acts) * total * 0.95
            if not self._wait(lambda least=target: self._progress() >= least):  # type: ignore[misc]
                return count
            act()
        return len(acts)

    def _progress(self) -> int:
        return max(self.world.effects().total(), len(self.world.told()))

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                return False
            pause.wait(0.002)
        return True

    def kill_one(self) -> None:
        """Kill a worker wherever it is, and let another take its place."""
        index = self.random.randrange(len(self.workers))
        os.kill(self.workers[index], signal.SIGKILL)
        ended(self.workers[index])
        self.workers[index] = self._start()

    def finish(self, then: Callable[[], object] = lambda: None) -> list[str]:
        """Wait until the last worker has ended; return what the oracle says, and who gave up.

        Args:
            then: done before the oracle is asked.
        """
        exits = [ended(worker) for worker in self.workers]
        self.workers = []
        then()
        return [*gave_up(exits), *judged(self.world)]


def make(parts: Mapping[str, Callable[[], object]]) -> None:
    """Make the parts of a trial, or of a mutant's trial only those that can tell."""
    word = os.environ.get(PLACES, "")
    for name, part in parts.items():
        if word in name:
            part()


def gave_up(exits: list[int]) -> list[str]:
    """Say which workers did not see everything done."""
    return [f"stuck: worker {n} ended with {code}" for n, code in enumerate(exits) if code]


def judged(world: World) -> list[str]:
    """Ask the oracle, with a guard opened afresh."""
    guard = Guard(world.url)
    found = oracle.problems(guard, world)
    guard.close()
    return found


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])))
