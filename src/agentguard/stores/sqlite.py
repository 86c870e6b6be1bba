"""The embedded store: one SQLite file, WAL, `synchronous=FULL`, shared commits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StoreUnavailable
from . import _files
from ._owner import Owner
from ._writer import Item, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..protocols import Clock

T = TypeVar("T")

_BUSY_MS = 30_000
_STORES: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_LEAKED: list[Any] = []
"""Connections that a forked child inherited: closing one there could remove the parent's WAL."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return time.time_ns() // 1000


class SqliteTx:
    """A transaction on one connection."""

    __slots__ = ("_connection", "_owner", "now")

    def __init__(self, connection: sqlite3.Connection, owner: Owner, now: int) -> None:
        self._connection, self._owner, self.now = connection, owner, now

    @property
    def owner(self) -> str:
        """The process that runs this transaction."""
        return self._owner.id

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        return self._connection.execute(sql, values).rowcount

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None."""
        return self._connection.execute(sql, values).fetchone()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        """Return all rows."""
        return self._connection.execute(sql, values).fetchall()

    def is_dead(self, owner: str) -> bool:
        """Return whether *owner* is proven to be gone."""
        return self._owner.is_dead(self, owner)

    def forget(self, owner: str) -> None:
        """Remove what is kept about a dead owner."""
        self._owner.forget(owner)
        self.run("DELETE FROM owners WHERE owner = ?", (owner,))


class SqliteStore:
    """A store in one file, for any number of threads, tasks and processes of one machine.

    Args:
        path: the file, or `:memory:` for a store that lives as long as this object.
        clock: the time; the machine's own by default.
        migrate: bring an older schema up to date instead of refusing it.

    Raises:
        ConfigurationError: the file belongs to something else or to a newer agentguard.
        StoreUnavailable: it cannot be opened or written.
    """

    def __init__(
        self, path: str | Path, *, clock: Clock | None = None, migrate: bool = False
    ) -> None:
        self.memory = str(path) == ":memory:"
        self.path = Path(path)
        self.url = "memory://" if self.memory else f"sqlite:///{path}"
        self.clock: Clock = clock or SystemClock()
        self._migrate = migrate
        self._last = 0
        self._closed = False
        self._open()
        _STORES.add(self)

    def _open(self) -> None:
        """Open connections and take the owner's lock; again after a fork."""
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._writer = Writer(self._run_batch)
        if not self.memory:
            _files.prepare(self.path)
        try:
            self._connection = self._connect()
            _files.check_schema(self._connection, str(self.path), migrate=self._migrate)
            self._reader = self._connection if self.memory else self._connect()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._owner = Owner(None if self.memory else Path(f"{self.path}.owners"))

    def _connect(self) -> sqlite3.Connection:
        name = ":memory:" if self.memory else str(self.path)
        connection = sqlite3.connect(
            name, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF",
                       "cell_size_check = ON", "temp_store = MEMORY"):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in one durable transaction.

        Raises:
            StoreUnavailable: the file could not be written; nothing was.
        """
        self._check_open()
        result: T = self._writer.call(verb, args)
        return result

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Queue *verb*; *done*(result, error) is called from the writer's thread."""
        self._check_open()
        self._writer.put(Item(done, verb, args))

    def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run *query*(tx, *args) over the committed state."""
        self._check_open()
        with self._lock if self.memory else self._read_lock:
            try:
                return query(SqliteTx(self._reader, self._owner, self._now()), *args)
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self.url} is closed")

    def _now(self) -> int:
        """The clock, never running backwards within this process."""
        self._last = max(self._last, self.clock.now())
        return self._last

    def _run_batch(self, batch: list[Item]) -> None:
        with self._lock:
            try:
                self._commit(batch)
            except sqlite3.Error as error:
                self._rollback()
                failure = self._unavailable(error)
                for item in batch:
                    item.result, item.error = None, failure
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                self._rollback()
                for item in batch:
                    item.result, item.error = None, error

    def _commit(self, batch: list[Item]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        tx = SqliteTx(connection, self._owner, self._now())
        self._owner.register(tx)
        if len(batch) == 1:
            item = batch[0]
            item.result = item.verb(tx, *item.args)
        else:
            for item in batch:
                _run_apart(connection, tx, item)
        connection.execute("COMMIT")
        self._owner.registered()

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                self._connection.execute("ROLLBACK")

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        text = str(error)
        if "malformed" in text or "not a database" in text:
            text += "; restore it from a backup, and see `agentguard doctor`"
        return StoreUnavailable(f"the store {self.path} failed: {text}")

    def check(self) -> str:
        """Return `ok` or what SQLite's own check finds wrong in the file."""
        with self._lock if self.memory else self._read_lock:
            try:
                return str(self._reader.execute("PRAGMA integrity_check(1)").fetchone()[0])
            except sqlite3.Error as error:
                return str(error)

    def close(self) -> None:
        """Give up connections and the lock. Closing twice does nothing."""
        if self._closed:
            return
        self._writer.close()
        self._closed = True
        with self._lock, self._read_lock:
            self._reader.close()
            self._connection.close()
        self._owner.drop()

    def after_fork(self) -> None:
        """A child starts afresh: own connections, own lock, own identity."""
        if self._closed or self.memory:
            return
        _LEAKED.append((self._connection, self._reader, self._writer))
        self._owner.drop()
        self._open()


def _run_apart(connection: sqlite3.Connection, tx: SqliteTx, item: Item) -> None:
    """Run one verb of several, so that its failure undoes nothing of the others."""
    connection.execute("SAVEPOINT verb")
    try:
        item.result = item.verb(tx, *item.args)
    except sqlite3.Error:
        raise
    except BaseException as error:  # noqa: BLE001 - delivered to the caller of this verb
        item.error = error
        connection.execute("ROLLBACK TO verb")
    connection.execute("RELEASE verb")


def _reopen_after_fork() -> None:
    for store in list(_STORES):
        store.after_fork()


os.register_at_fork(after_in_child=_reopen_after_fork)
