"""Transactions on PostgreSQL, as the ledger's verbs see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable
from ._pg_foresight import Foresight, locking, questions
from ._pg_owner import awake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._pg_owner import LeasedOwner
    from ._pg_wire import Reply, Wire

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_BUMP = (
    "INSERT INTO owners (owner, host, pid, lock_device, lock_inode, started_at, lease_until, commits)"  # noqa: S608 - fixed words
    f" VALUES (?, ?, ?, ?, ?, coalesce(?, {_CLOCK}), coalesce(?, {_CLOCK}) + ?, ?)"
    " ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until,"
    " commits = owners.commits + excluded.commits"
    " RETURNING lease_until, commits, set_config('lock_timeout', ?, true),"
    " set_config('idle_in_transaction_session_timeout', ?, true)"
)
"""The first statement of every transaction: it renews the lease, tells the time, and numbers it.

It locks the owner's row. Who loses the answer to a COMMIT counts nothing up in a second
transaction: that waits for the lock, and then reads whether the first one's number was reached.
The first must not have been still on its way then; it was not, since this statement was answered
before the COMMIT was sent.
"""
ALONE_MS = 10_000
"""So long a transaction waits for a lock."""
IDLE_MS = 5_000
"""A process that stops inside a transaction holds up others for no longer than this."""
_SILENT_US = 7 * 86_400_000_000
_PURGE = (
    "DELETE FROM owners WHERE lease_until < ? AND NOT EXISTS (SELECT 1 FROM effects e"
    " WHERE e.owner = owners.owner AND e.state IN ('executing', 'in_doubt', 'awaiting_approval'))"
)
_OPEN_EFFECTS = (
    "SELECT 1 FROM effects WHERE owner = ? AND (state = 'executing'"
    " OR (state = 'in_doubt' AND lease_until IS NOT NULL)) LIMIT 1"
)


class NeedsSnapshot(Exception):
    """A query asks a second question: both have to be answered from one snapshot."""


class Reading:
    """What a query may do.

    Args:
        wire: where it asks.
        owner: this process.
        time: the time that was injected, if one was.
        not_before: what the time was already.
        single: it is alone in its transaction, and may ask one question.
    """

    quarantine_us: int
    one_file = False

    def __init__(
        self, wire: Wire, owner: LeasedOwner, time: int | None, not_before: int, *, single: bool = False
    ) -> None:  # fmt: skip
        self._wire, self._owner = wire, owner
        self._single, self._asked = single, False
        self._time, self._not_before = time, not_before
        self.quarantine_us = owner.lease_us

    @property
    def now(self) -> int:
        """Microseconds since the epoch, by the database's clock; never running backwards."""
        if self._time is None:
            self._time = max(self._told(), self._not_before)
        return self._time

    def _told(self) -> int:
        found: int = self._ask(f"SELECT {_CLOCK}").rows[0][0]
        return found

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> Reply:
        if not self._single:
            return self._wire.wait(self._wire.send(sql, values))
        if self._asked:
            raise NeedsSnapshot
        self._asked = True
        return self._wire.ask(sql, values)

    @property
    def owner(self) -> str:
        """The process that runs this transaction."""
        return self._owner.id

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:  # noqa: ARG002 - a verb's
        """Refuse to write."""
        raise StoreUnavailable(f"a query may not write: {sql}")

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:  # noqa: ARG002 - a verb's
        """Refuse to write."""
        raise StoreUnavailable(f"a query may not write: {sql}")

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None."""
        rows = self._ask(sql, values).rows
        return rows[0] if rows else None

    lock = row  # what was read in one snapshot does not change

    def gate(self, name: str, *, alone: bool) -> None:
        """Nobody who only reads is in anybody's way."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Return all rows."""
        return self._ask(sql, values).rows

    def is_dead(self, owner: str) -> bool:
        """Return whether *owner* is proven to be gone."""
        return self._owner.is_dead(self, owner)

    def is_lost(self, owner: str) -> bool:
        """Return whether *owner* is dead, or has let its lease run out."""
        return self._owner.is_lost(self, owner)

    def is_alive(self, owner: str) -> bool:
        """Return whether *owner* is seen to live."""
        return self._owner.is_alive(self, owner)

    def forget(self, owner: str) -> None:
        """Refuse to write."""
        raise StoreUnavailable(f"a query may not write: {owner}")

    def owns_anything(self) -> bool:
        """Return whether this process executes something, or may still act on what is in doubt."""
        return self.row(_OPEN_EFFECTS, (self.owner,)) is not None

    def after_commit(self, done: Callable[[], object]) -> None:
        """Refuse to write."""
        raise StoreUnavailable(f"a query may not write: {done}")


class Writing(Reading):
    """What a verb may do.

    Args:
        limits_ms: so long it waits for a lock, and so long it may do nothing.
        counts: whether it is counted as one of its owner's commits.
        slot: which of its owner's rows it counts in.

    Attributes:
        wire: the connection.
        began: when, by `awake`.
        afterwards: what is called once this is durable.
        sealed: its COMMIT may be on its way.
    """

    def __init__(
        self, wire: Wire, owner: LeasedOwner, time: int | None, not_before: int,
        *, limits_ms: tuple[int, int] = (ALONE_MS, IDLE_MS), counts: bool = True, slot: str = "",
    ) -> None:  # fmt: skip
        super().__init__(wire, owner, time, not_before)
        self.wire, self.began, self.sealed = wire, awake(), False
        self.afterwards: list[Callable[[], object]] = []
        self._passed: set[tuple[str, bool]] = set()
        self._foresight = Foresight(wire.send)
        name, *rest = owner.who()
        wire.send("BEGIN")
        self._bump: Reply = wire.send(
            _BUMP,
            (name + slot, *rest, time, time, owner.lease_us, int(counts),
             *(f"{limit}ms" for limit in limits_ms)),
        )  # fmt: skip

    def _told(self) -> int:
        found: int = self._wire.wait(self._bump).rows[0][0]
        return found - self._owner.lease_us

    @property
    def number(self) -> int:
        """How many transactions of its owner there were, with this one if it counts."""
        found: int = self._wire.wait(self._bump).rows[0][1]
        return found

    def seal(self) -> None:
        """Make sure of the number, before the COMMIT is sent."""
        self.sealed = bool(self.number)

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Queue one statement; its failure is told by the next that is answered, or the commit."""
        self._foresight.wrote(sql)
        self._wire.send(sql, values)

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        self._foresight.wrote(sql)
        return self._wire.wait(self._wire.send(sql, values)).changed

    def lock(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None; nobody else changes that row until this ends."""
        return self.row(locking(sql), values)

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> Reply:
        return self._wire.wait(self._foresight.take(sql, values) or self._wire.send(sql, values))

    def gate(self, name: str, *, alone: bool) -> None:
        """Wait until nobody is in the gate *name* alone, or for *alone* nobody at all."""
        if (name, alone) not in self._passed:
            self._passed.add((name, alone))
            shared = "" if alone else "_shared"
            number = self._wire.number_of(name)
            self._wire.send(f"SELECT pg_advisory_xact_lock{shared}(?)", (number,))

    def foresee(self, verbs: Iterable[tuple[Any, Sequence[Any]]]) -> None:
        """Take note of the verbs that are going to run, and of their arguments."""
        self._foresight.begin([questions(verb, args) for verb, args in verbs])

    def turn(self, number: int) -> None:
        """Ask ahead for the verb that comes next."""
        self._foresight.turn(number, lambda name: self.gate(name, alone=False))

    def forget(self, owner: str) -> None:
        """Remove what is kept about a dead owner."""
        self.after_commit(lambda: self._owner.forget(owner))
        self.run("DELETE FROM owners WHERE owner = ?", (owner,))

    def forget_the_silent(self) -> None:
        """Remove owners on other hosts that ended long ago and own nothing."""
        self.run(_PURGE, (self.now - _SILENT_US,))

    def after_commit(self, done: Callable[[], object]) -> None:
        """Call *done* once this transaction is durable."""
        self.afterwards.append(done)
