"""The embedded store: one SQLite file, WAL, `synchronous=FULL`, shared commits."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StoreUnavailable
from ..ledger.approvals import expire_late
from . import _files, _forks
from ._clock import SystemClock
from ._held import HeldTransaction
from ._mark import Mark
from ._owner import Owner
from ._sqlite_tx import SqliteRead, SqliteTx
from ._writer import Item, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocols import Clock, OpenTransaction

T = TypeVar("T")

_BUSY_MS = 30_000
_WAL_PAGES = 8192
"""The log is copied into the file at this size (32 MB); more often would cost every crowd an fsync."""
_BUSY_FROM = 16
"""At this commit of a process its log file is made large: it writes more than a command does."""
_OF_THE_VERB = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
_LOOK_EVERY_US = 1_000_000
"""So often, by the store's clock, commits write down which approvals' time is over."""


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
        self._migrate, self._closed = migrate, False
        self._last = self._look_at = self._commits = self._changes = 0
        self._file: tuple[int, int] | None = None
        self._mark = Mark(self.path)
        self._reset()
        if not self.memory:
            _files.prepare(self.path)
        try:
            with self.lock:
                self._writing()
        except (sqlite3.Error, OSError) as error:
            raise self.unavailable(error) from error
        _forks.watch(self)

    def _reset(self) -> None:
        """Begin with nothing open: at first, and in a forked child."""
        self.lock, self._read_lock = threading.RLock(), threading.RLock()
        self._writer = Writer(self._run_batch)
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._owner_: Owner | None = None

    @property
    def _owner(self) -> Owner:
        """This process as an owner, from its first use of the store on."""
        if self._owner_ is None:
            try:
                self._owner_ = Owner(None if self.memory else Path(f"{self.path}.owners"))
            except OSError as error:
                raise self.unavailable(error) from error
        return self._owner_

    def _writing(self) -> sqlite3.Connection:
        """Return the connection for transactions, opening it if it is not; under the lock."""
        if self._connection is None:
            self._connection = self._connect()
            try:
                _files.check_schema(self._connection, str(self.path), migrate=self._migrate)
                self._file = None if self.memory else _files.identity(self.path)
                self._mark.check(self._connection)
                _files.check_pages(self._connection, str(self.path))
            except BaseException:
                self._connection.close()
                self._connection = None
                raise
        return self._connection

    def _reading(self) -> sqlite3.Connection:
        """Return the connection for reads, opening it if it is not; under its lock."""
        if self.memory:
            return self._writing()
        if self._reader is None:
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
        return self._reader

    def _connect(self) -> sqlite3.Connection:
        name = ":memory:" if self.memory else str(self.path)
        connection = sqlite3.connect(
            name, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            _files.check_kind(connection, str(self.path))  # before anything is written to it
            _files.log_ahead(connection, _BUSY_MS / 1000)
            for pragma in ("synchronous = FULL", "trusted_schema = OFF",
                           "cell_size_check = ON", "temp_store = MEMORY",
                           f"wal_autocheckpoint = {_WAL_PAGES}"):  # fmt: skip
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
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

    def open(self) -> OpenTransaction:
        """Begin a transaction that the caller's thread holds open and ends itself.

        Raises:
            StoreUnavailable: the file could not be written.
        """
        return HeldTransaction(self)

    def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run *query*(tx, *args) over the committed state."""
        with self.lock if self.memory else self._read_lock:
            self._check_open()
            try:
                return query(SqliteRead(self._reading(), self._owner, self._now()), *args)
            except sqlite3.Error as error:
                raise self.unavailable(error) from error

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self.url} is closed")

    def _now(self) -> int:
        """The clock, never running backwards within this process."""
        self._last = max(self._last, self.clock.now())
        return self._last

    def _run_batch(self, batch: list[Item]) -> None:
        with self.lock:
            try:
                self._commit(batch)
            except sqlite3.Error as error:
                self.rollback()
                if len(batch) > 1 and isinstance(error, _OF_THE_VERB):
                    self._run_again_apart(batch)
                    return
                failure = self.unavailable(error)
                for item in batch:
                    item.result, item.error = None, failure
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                self.rollback()
                if len(batch) > 1 and isinstance(error, Exception):
                    self._run_again_apart(batch)
                    return
                for item in batch:
                    item.result, item.error = None, error

    def _run_again_apart(self, batch: list[Item]) -> None:
        """One verb of several broke, which is rare: let each stand alone in a second try."""
        try:
            self._commit(batch, apart=True)
        except Exception as error:  # noqa: BLE001 - delivered to whoever asked for the verbs
            self.rollback()
            failure = self.unavailable(error) if isinstance(error, sqlite3.Error) else error
            for item in batch:
                item.result, item.error = None, failure

    def begin(self) -> tuple[sqlite3.Connection, SqliteTx]:
        """Begin a transaction; under the lock."""
        self._check_open()  # once more, under the lock: the store may have been closed meanwhile
        connection = self._writing()
        if self._file is not None:
            _files.check_same(self.path, self._file)
        connection.execute("BEGIN IMMEDIATE")
        self._commits, self._changes = self._commits + 1, connection.total_changes
        if self._commits == _BUSY_FROM and not self.memory:
            _files.extend_wal(self.path)
        tx = SqliteTx(connection, self._owner, self._now())
        self._owner.register(tx)
        return connection, tx

    def _commit(self, batch: list[Item], *, apart: bool = False) -> None:
        connection, tx = self.begin()
        late = tx.now >= self._look_at
        if late:
            expire_late(tx)
        if apart:
            for item in batch:
                self._run_apart(connection, tx, item)
        else:
            for item in batch:
                item.result = item.verb(tx, *item.args)
        if late:
            tx.after_commit(lambda: self._looked(tx.now))
        self.end(connection, tx)

    def _looked(self, now: int) -> None:
        self._look_at = now + _LOOK_EVERY_US

    def end(self, connection: sqlite3.Connection, tx: SqliteTx) -> None:
        """Commit; an exception that a signal handler raises meanwhile takes nothing back."""
        try:
            if connection.total_changes != self._changes:  # or else nobody waits for the disk
                self._mark.begin(connection, tx)
            connection.execute("COMMIT")
            self._owner.committed(tx.afterwards)
        except sqlite3.Error:
            raise
        except BaseException:
            if not connection.in_transaction:
                self._owner.committed(tx.afterwards)  # from the start: each can be done twice
            raise

    def _run_apart(self, connection: sqlite3.Connection, tx: SqliteTx, item: Item) -> None:
        """Run one verb of several, so that its failure undoes nothing of the others."""
        connection.execute("SAVEPOINT verb")
        before = len(tx.afterwards)
        try:
            item.result = item.verb(tx, *item.args)
        except BaseException as error:
            broken = isinstance(error, sqlite3.Error)
            if broken and not isinstance(error, _OF_THE_VERB):
                raise  # the disk is full or the file damaged: nobody's verb can be kept
            item.error = self.unavailable(error) if isinstance(error, _OF_THE_VERB) else error
            connection.execute("ROLLBACK TO verb")
            del tx.afterwards[before:]
        connection.execute("RELEASE verb")

    def rollback(self) -> None:
        """Undo the transaction that is open, if one is; under the lock."""
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                self._connection.execute("ROLLBACK")

    def unavailable(self, error: sqlite3.Error | OSError) -> StoreUnavailable:
        """Return the sentence for what SQLite or the system says."""
        text = str(error)
        if "malformed" in text or "not a database" in text:
            text += "; restore it from a backup, and see `agentguard doctor`"
        return StoreUnavailable(f"the store {self.path} failed: {text}")

    def check(self) -> str:
        """Return `ok` or what SQLite's own check finds wrong in the file."""
        with self.lock if self.memory else self._read_lock:
            try:
                return str(self._reading().execute("PRAGMA integrity_check(1)").fetchone()[0])
            except sqlite3.Error as error:
                return str(error)

    def awake(self) -> float:
        """Return 0: nobody has to hurry here."""
        return 0.0

    def may_begin(self, since: float) -> bool:  # noqa: ARG002 - the port's
        """Return True: here nobody is lost but the dead."""
        return True

    def lifeline(self) -> tuple[int, ...]:
        """Return the descriptor of the owner's lock; who holds a copy of it keeps the owner alive."""
        return self._owner.lifeline()

    def close(self) -> None:
        """Give up connections and the lock. Closing twice does nothing.

        While a body of this process is still running, its lock is kept until the process ends:
        nobody else may take it for dead and run the body again.
        """
        if self._closed:
            return
        self._writer.close()
        self._closed = True
        with self.lock, self._read_lock:
            with contextlib.suppress(sqlite3.Error):  # then the lock stays, which is safe
                if not self._has_open_effects():
                    self._owner.leave(self._writing())
            self._mark.close()
            self._disconnect()

    def _has_open_effects(self) -> bool:
        found = self._writing().execute(
            "SELECT 1 FROM effects WHERE owner = ? AND (state = 'executing'"
            " OR (state = 'in_doubt' AND lease_until IS NOT NULL))",
            (self._owner.id,),
        )
        return found.fetchone() is not None

    def _disconnect(self) -> None:
        for connection in (self._reader, self._connection):
            if connection is not None:
                connection.close()
        self._reader = self._connection = None

    def before_fork(self) -> None:
        """Close what a child must not inherit, and hold the locks while the fork happens.

        SQLite keeps its locks in the process's memory: a child that inherits them believes to
        hold locks that the kernel gave to its parent, and writes past everybody.
        """
        self.lock.acquire()
        self._read_lock.acquire()
        if not self.memory:
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; connections open again at their next use."""
        self._read_lock.release()
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: own connections, own lock, own identity, each at its first use."""
        connection = self._connection
        if self._owner_ is not None:
            self._owner_.drop()
        self._reset()
        self._connection = connection if self.memory else None
