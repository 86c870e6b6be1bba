"""A PostgreSQL transaction that stays open while a tool's own statements run in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from ..errors import StoreUnavailable
from ._pg_commits import Final
from ._pg_wire import ConnectionLost, QuietConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._pg_commits import Commits
    from ._pg_link import Link

T = TypeVar("T")

_BODY_MS = 600_000
"""So long a tool's body may do nothing in its transaction; who wants the same rows waits for it."""
_ENDS = re.compile(
    r"\s*(?:BEGIN|START|COMMIT|END|ABORT|PREPARE\s+TRANSACTION"
    r"|ROLLBACK(?!(?:\s+(?:WORK|TRANSACTION))?\s+TO\b))\b",
    re.IGNORECASE,
)


def _refusal() -> psycopg.ProgrammingError:
    return psycopg.ProgrammingError(
        "this transaction is agentguard's: it ends it after the tool has returned"
    )


class LentCursor(psycopg.Cursor[Any]):
    """A cursor that does not end the transaction it works in."""

    def execute(self, query: Any, *args: Any, **options: Any) -> LentCursor:
        """Execute a statement, unless it begins or ends a transaction."""
        text = query.decode() if isinstance(query, bytes) else query
        if _ENDS.match(text if isinstance(text, str) else text.as_string(self)):
            raise _refusal()
        return super().execute(query, *args, **options)


class LentConnection(QuietConnection):
    """A connection whose transaction somebody else ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = LentCursor

    def commit(self) -> None:
        """Refuse."""
        raise _refusal()

    def rollback(self) -> None:
        """Refuse."""
        raise _refusal()


class HeldTransaction:
    """One transaction over a connection of its own, from its making to its end, in one thread.

    Args:
        link: opens connections.
        commits: the connection, and how its commits are looked up.
        done: is called at the end, with the connection if it can be used again.

    Raises:
        StoreUnavailable: there is no server.
    """

    def __init__(self, link: Link, commits: Commits, done: Callable[[Commits], None]) -> None:
        self._link, self._commits, self._done = link, commits, done
        self._ended, self._lent = False, False
        try:
            self._tx = commits.begin(idle_ms=_BODY_MS)
        except (psycopg.Error, Final) as error:
            self._end()
            raise self._failure(error) from error

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection, for the tool's own statements."""
        return self._tx.wire.connection

    def apply(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in it; nothing is durable yet."""
        try:
            self._take_back()
            self._tx.foresee([(verb, args)])
            self._tx.turn(0)
            return verb(self._tx, *args)
        except psycopg.Error as error:
            raise self._failure(error) from error

    def keep(self) -> None:
        """Remember this point; from here on the connection is the tool's."""
        try:
            self._tx.run("SAVEPOINT agentguard_body")
            self._tx.wire.lend()
        except psycopg.Error as error:
            raise self._failure(error) from error
        self._lent = True

    def undo(self) -> None:
        """Undo what the tool's statements have done."""
        try:
            self._take_back()
            self._tx.run("ROLLBACK TO SAVEPOINT agentguard_body")
        except psycopg.Error as error:
            raise self._failure(error) from error

    def _take_back(self) -> None:
        if self._lent:
            self._lent = False
            self._tx.wire.take_back()

    def commit(self) -> None:
        """Make all of it durable, and end.

        Raises:
            StoreUnavailable: nothing of it is; with `uncertain`, all of it is or nothing.
        """
        interrupts: list[BaseException] = []
        try:
            self._take_back()
            self._commits.commit(self._tx, interrupts)
        except (psycopg.Error, Final) as error:
            self._end()
            raise self._failure(error) from error
        self._end()
        if interrupts:
            raise interrupts[0]

    def rollback(self) -> None:
        """Make nothing of it durable, and end. Ended already, nothing happens."""
        if not self._ended:
            self._commits.undo(ConnectionLost() if self._lent else StoreUnavailable("undone"))
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._done(self._commits)

    def _failure(self, error: Exception) -> StoreUnavailable:
        return error.failure if isinstance(error, Final) else self._link.failure(error)
