"""Transactions on SQLite, as the ledger's verbs see them."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._owner import Owner


class SqliteTx:
    """A transaction on one connection."""

    __slots__ = ("_connection", "_owner", "afterwards", "now")

    quarantine_us = 0
    """Nobody is lost here but the dead."""
    one_file = True

    def __init__(self, connection: sqlite3.Connection, owner: Owner, now: int) -> None:
        self._connection, self._owner, self.now = connection, owner, now
        self.afterwards: list[Callable[[], object]] = []

    @property
    def owner(self) -> str:
        """The process that runs this transaction."""
        return self._owner.id

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Execute one statement."""
        self.changed(sql, values)

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        try:
            return self._connection.execute(sql, values).rowcount
        except UnicodeDecodeError as error:  # what SQLite says is wrong is no text itself
            raise sqlite3.DatabaseError("malformed database schema") from error

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None."""
        return self._connection.execute(sql, values).fetchone()

    lock = row  # nobody else writes while this transaction does

    def gate(self, name: str, *, alone: bool) -> None:
        """Nobody else is in any gate while this transaction writes."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        """Return all rows."""
        return self._connection.execute(sql, values).fetchall()

    def is_dead(self, owner: str) -> bool:
        """Return whether *owner* is proven to be gone."""
        return self._owner.is_dead(self, owner)

    is_lost = is_dead  # on one machine a lock tells for sure

    def is_alive(self, owner: str) -> bool:
        """Return whether *owner* is seen to live."""
        return self._owner.is_alive(self, owner)

    def forget(self, owner: str) -> None:
        """Remove what is kept about a dead owner."""
        self.after_commit(lambda: self._owner.forget(owner))
        self.run("DELETE FROM owners WHERE owner = ?", (owner,))

    def after_commit(self, done: Callable[[], object]) -> None:
        """Call *done* once this transaction is durable."""
        self.afterwards.append(done)


class SqliteRead(SqliteTx):
    """A look at what is committed: it refuses to write, also where reads share the connection."""

    __slots__ = ()

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Refuse."""
        del values
        raise StoreUnavailable(f"a read of the store cannot write: {sql}")

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Refuse."""
        self.run(sql, values)
        return 0
