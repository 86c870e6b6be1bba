"""The least that SQLite can do for a guarded write: two durable commits, the tool between them."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

CLAIM = "INSERT INTO effects (key, state) VALUES (?, 'executing')"
SETTLE = "UPDATE effects SET state = 'succeeded', result = ? WHERE key = ?"
LOOK_UP = "SELECT state, result FROM effects WHERE key = ?"

# A WAL of this size is never extended again by these laps, so fdatasync has no file size to write.
EXTENDED_WAL = 4 * 1024 * 1024


def no_op_tool(ticket: str) -> str:
    """Do what every subject's tool does: nothing."""
    return ticket


def connect(path: Path) -> sqlite3.Connection:
    """Open a file as the goals name it: WAL, synchronous=FULL, each statement its own commit."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS effects"
        " (key TEXT PRIMARY KEY, state TEXT NOT NULL, result TEXT) WITHOUT ROWID"
    )
    return connection


def extend_wal(connection: sqlite3.Connection) -> None:
    """Grow the WAL once, then let the next writer start over at its beginning."""
    connection.execute(f"CREATE TABLE filler AS SELECT zeroblob({EXTENDED_WAL}) AS filler")
    connection.execute("DROP TABLE filler")
    connection.execute("PRAGMA wal_checkpoint(RESTART)")


def two_commits(connection: sqlite3.Connection, ticket: str) -> None:
    """Claim, commit, run the tool, record, commit."""
    connection.execute(CLAIM, (ticket,))
    connection.execute(SETTLE, (no_op_tool(ticket), ticket))


@dataclass(slots=True)
class Waiting:
    """A statement that waits for its commit."""

    statement: str
    values: tuple[str, ...]
    woken: threading.Lock
    durable: bool = False


class GroupCommit:
    """Callers share commits: one leads, commits all that waits, then wakes the next leader.

    Not asked of any peer. It shows what a few lines reach under 32 callers, so that a ratio to the
    floors that queue for fsync is not mistaken for a feat.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._guard = threading.Lock()
        self._queue: list[Waiting] = []
        self._led = False

    def write(self, statement: str, values: tuple[str, ...]) -> None:
        """Return once the statement is durable."""
        mine = Waiting(statement, values, threading.Lock())
        mine.woken.acquire()
        with self._guard:
            self._queue.append(mine)
            leads, self._led = not self._led, True
        if not leads:
            mine.woken.acquire()
        if not mine.durable:
            self._lead()

    def _lead(self) -> None:
        with self._guard:
            batch, self._queue = self._queue, []
        self._commit(batch)
        with self._guard:
            successor = self._queue[:1]
            self._led = bool(successor)
        # Only after a successor was named: a woken caller is back with its next write at once.
        for waiting in [*batch, *successor]:
            waiting.woken.release()

    def _commit(self, batch: list[Waiting]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for waiting in batch:
            self._connection.execute(waiting.statement, waiting.values)
        self._connection.execute("COMMIT")
        for waiting in batch:
            waiting.durable = True
