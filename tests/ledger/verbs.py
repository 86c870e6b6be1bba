"""The contract's ledger over a store of any kind, with workers that can die without a process."""

from __future__ import annotations

import itertools
import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from agentguard.stores.postgres import PostgresStore
from agentguard.stores.sqlite import SqliteStore
from agentguard.testing import FakeClock
from agentguard.testing.stores import ledger

_TENANTS = itertools.count()


class Place(ABC):
    """Where a store lies, and how two workers share it.

    Attributes:
        workers_die: whether one of them can die while the other lives on.
    """

    workers_die = True

    @abstractmethod
    def open(self, clock: FakeClock) -> Any:
        """Start one more worker."""

    def close(self) -> None:
        """Remove the store, once its workers have ended."""
        return


class Memory(Place):
    """A store that lives in the one object by which everybody uses it."""

    workers_die = False

    def __init__(self) -> None:
        self._store: SqliteStore | None = None

    def open(self, clock: FakeClock) -> SqliteStore:
        """Return the one store."""
        if self._store is None:
            self._store = SqliteStore(":memory:", clock=clock)
        return self._store


class File(Place):
    """A file, in memory where there is a place: the machine's syncs are no part of the model."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(
            dir=memory if os.access(memory, os.W_OK) else None
        )

    def open(self, clock: FakeClock) -> SqliteStore:
        """Open the file once more."""
        return SqliteStore(Path(self._folder.name) / "a.db", clock=clock)

    def close(self) -> None:
        """Remove the file."""
        self._folder.cleanup()


class Postgres(Place):
    """A schema of a server, which all examples share: each has a tenant of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def open(self, clock: FakeClock) -> PostgresStore:
        """Connect once more."""
        return PostgresStore(self._url, clock=clock)


class Ledger(ledger.Ledger):
    """A tenant of its own, and two workers in this process that share a store."""

    def __init__(self, place: Place, clock: FakeClock, runs: tuple[str, ...] = ("r",)) -> None:
        self.place, self.clock = place, clock
        workers = [self.open(), self.open()]
        super().__init__(workers, clock, f"acme{next(_TENANTS)}", runs)

    def open(self) -> Any:
        """Start one more worker, which has looked at the clock."""
        worker = self.place.open(self.clock)
        worker.read(lambda tx: tx.now)
        return worker

    def close(self) -> None:
        """Let all workers end."""
        for worker in self.workers:
            worker.close()
        self.place.close()

    def die(self, worker: int) -> None:
        """Let a worker end like a killed process: its lock is free, its rows stand as they are."""
        dead: Any = self.workers[worker]
        dead._owner.drop()
        dead.close()
        self.workers[worker] = self.open()
