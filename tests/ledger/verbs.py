"""The contract's ledger over a real store file, with workers that can die without a process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agentguard.stores.sqlite import SqliteStore
from agentguard.testing import FakeClock
from agentguard.testing.stores import ledger

TENANT = "acme"


def folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder in memory where there is one: the machine's syncs are no part of the table."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


class Ledger(ledger.Ledger):
    """A store file, and two workers in this process that share it."""

    def __init__(self, path: Path, clock: FakeClock, runs: tuple[str, ...] = ("r",)) -> None:
        self.path, self.clock = path, clock
        self.files = [self.open(), self.open()]
        super().__init__(self.files, clock, TENANT, runs)

    def open(self) -> SqliteStore:
        """Start one more worker, which has looked at the clock."""
        worker = SqliteStore(self.path, clock=self.clock)
        worker.read(lambda tx: tx.now)
        return worker

    def close(self) -> None:
        """Let all workers end."""
        for worker in self.files:
            worker.close()

    def die(self, worker: int) -> None:
        """Let a worker end like a killed process: its lock is free, its rows stand as they are."""
        self.files[worker]._owner.drop()
        self.files[worker].close()
        self.files[worker] = self.workers[worker] = self.open()
