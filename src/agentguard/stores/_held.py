"""A SQLite transaction that stays open while a tool's own statements run in it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ..protocols import Tx

T = TypeVar("T")

_OURS = frozenset({
    "meta", "tenants", "owners", "runs", "events", "leaves", "effects", "approvals", "votes",
    "budgets", "rates", "switches", "autonomy", "circuits", "artifacts", "artifact_counts",
    "slos", "outcomes",
})  # fmt: skip
_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_NEVER = frozenset({sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})


def _only_theirs(action: int, first: str | None, *_: str | None) -> int:
    """Let a tool write into its own tables, and neither into the record nor end the transaction."""
    ours = action in _WRITES and first in _OURS
    return sqlite3.SQLITE_DENY if ours or action in _NEVER else sqlite3.SQLITE_OK


class Holder(Protocol):
    """What a SQLite store lets a transaction of this kind do."""

    lock: threading.RLock

    def begin(self) -> tuple[sqlite3.Connection, Any]:
        """Begin a transaction; under the lock."""
        ...

    def end(self, connection: sqlite3.Connection, tx: Any, /) -> None:
        """Commit it."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...

    def unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        """Return the sentence for what SQLite says."""
        ...


class HeldTransaction:
    """Holds the store's lock and one transaction, from its making to its end, in one thread.

    Raises:
        StoreUnavailable: the file could not be written.
    """

    def __init__(self, store: Holder) -> None:
        self._store, self._ended = store, False
        store.lock.acquire()
        try:
            self.connection, self._tx = self._begun()
        except BaseException:
            store.lock.release()
            raise

    def _begun(self) -> tuple[sqlite3.Connection, Tx]:
        try:
            return self._store.begin()
        except sqlite3.Error as error:
            raise self._store.unavailable(error) from error

    def apply(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in it; nothing is durable yet."""
        self.connection.set_authorizer(None)
        try:
            return verb(self._tx, *args)
        except sqlite3.Error as error:
            raise self._store.unavailable(error) from error

    def keep(self) -> None:
        """Remember this point; from here on the connection is the tool's."""
        self.connection.execute("SAVEPOINT body")
        self.connection.set_authorizer(_only_theirs)

    def undo(self) -> None:
        """Undo what the tool's statements have done."""
        self.connection.set_authorizer(None)
        self.connection.execute("ROLLBACK TO body")

    def commit(self) -> None:
        """Make all of it durable, and end.

        Raises:
            StoreUnavailable: nothing of it is.
        """
        self.connection.set_authorizer(None)
        if not self.connection.in_transaction:  # SQLite itself gives up when the disk is full
            raise StoreUnavailable(
                "the transaction that the tool wrote in is gone; nothing was kept"
            )
        try:
            self._store.end(self.connection, self._tx)
        except sqlite3.Error as error:
            raise self._store.unavailable(error) from error
        self._release()

    def rollback(self) -> None:
        """Make nothing of it durable, and end. Ended already, nothing happens."""
        if not self._ended:
            self.connection.set_authorizer(None)
            self._store.rollback()
            self._release()

    def _release(self) -> None:
        self._ended = True
        self._store.lock.release()
