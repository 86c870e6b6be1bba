"""The store for many machines: one PostgreSQL, shared commits, leases by the database's clock."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from ..errors import StoreUnavailable
from ..ledger.approvals import expire_late
from . import _forks
from ._pg_link import Link, is_lost, passes
from ._pg_owner import DatabaseClock, LeasedOwner, awake
from ._pg_tx import Reading, Writing
from ._pg_url import parse
from ._pg_wire import CommitUnknown, CommitUnsafe, ConnectionLost, Wire
from ._writer import Item, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocols import Clock

T = TypeVar("T")

_PATIENCE = 15.0
"""Seconds for which a server may be away, as it is at a failover."""
_ALONE_MS, _CROWD_MS = 10_000, 500
"""So long a transaction waits for a lock; one with several verbs is soon cut into its parts."""
_TRIES = 10
_LOOK_EVERY_US = 10_000_000
"""So often, by the store's clock, it is written down which approvals' time is over."""


class _Final(Exception):
    """What holds for all verbs of a batch, and no second try mends."""

    def __init__(self, failure: StoreUnavailable) -> None:
        super().__init__(failure.message)
        self.failure = failure


class PostgresStore:
    """A store in a PostgreSQL database, for any number of processes on any number of machines.

    Args:
        url: `postgresql://user@host:5432/database`, with libpq's options and ours: `schema`
            (`agentguard`), `lease` (`30s`), `prepare` (`auto`, `always`, `never`).
        clock: the time, for tests; the database's own by default.
        migrate: bring an older schema up to date instead of refusing it.
        patience: seconds for which the server may be away before a call fails.

    Raises:
        ConfigurationError: the URL is none, or the schema is of another version.
        StoreUnavailable: there is no such server, or it loses what it confirms.
    """

    def __init__(
        self, url: str, *, clock: Clock | None = None, migrate: bool = False,
        patience: float = _PATIENCE,
    ) -> None:  # fmt: skip
        self._link = Link(parse(url), migrate=migrate, patience=patience)
        self.url = self._link.address.shown
        self._told = DatabaseClock() if clock is None else None
        self.clock: Clock = clock or self._told  # type: ignore[assignment]
        self._last = self._look_at = 0
        self._closed = False
        self._reset()
        with self._lock:
            self._writing()
        _forks.watch(self)

    def _reset(self) -> None:
        """Begin with nothing open: at first, and in a forked child."""
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._writer = Writer(self._run_batch)
        self._wire: Wire | None = None
        self._reader: Wire | None = None
        self._owner_: LeasedOwner | None = None

    @property
    def _owner(self) -> LeasedOwner:
        """This process as an owner, from its first use of the store on."""
        if self._owner_ is None:
            self._owner_ = LeasedOwner(self._link.address.lease)
        return self._owner_

    def _writing(self) -> Wire:
        """Return the connection for transactions, opening it if it is not; under the lock."""
        if self._wire is None:
            self._wire = self._link.open()
        return self._wire

    def _reading(self) -> Wire:
        """Return the connection for reads, opening it if it is not; under its lock."""
        if self._reader is None:
            self._reader = self._link.open()
        return self._reader

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb*(tx, *args) in one durable transaction.

        Raises:
            StoreUnavailable: nothing was written; with `uncertain`, it is not known whether it was.
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
        """Run *query*(tx, *args) over one snapshot of the committed state."""
        with self._read_lock:
            for last in (False, True):
                self._check_open()
                try:
                    return self._read(self._reading(), query, args)
                except psycopg.Error as error:
                    if last or not is_lost(error):
                        raise self._link.failure(error) from error
        raise StoreUnavailable(self.url)  # pragma: no cover - the second try has ended

    def _read(self, wire: Wire, query: Callable[..., T], args: Any) -> T:
        try:
            wire.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            result = query(Reading(wire, self._owner, self._injected(), self._last), *args)
            wire.finish()
            return result
        except BaseException as error:
            self._reader = self._after(wire, error)
            raise

    def _after(self, wire: Wire, error: BaseException) -> Wire | None:
        """Return the connection again if it can be used after *error*, else close it."""
        if isinstance(error, Exception) and not (
            isinstance(error, psycopg.Error) and is_lost(error)
        ):
            with contextlib.suppress(psycopg.Error):
                wire.rollback()
                return wire
        wire.close()  # whatever was open there is undone by the server
        return None

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self.url} is closed")

    def _injected(self) -> int | None:
        """Return the time of a clock that was given, never running backwards."""
        if self._told is not None:
            return None
        self._last = max(self._last, self.clock.now())
        return self._last

    # Batches.

    def _run_batch(self, batch: list[Item]) -> None:
        waiting = list(batch)
        with self._lock:
            try:
                self._expire_late()
                if len(batch) > 1 and self._in_one(batch):
                    return
                while waiting:
                    self._alone(waiting[0])
                    waiting.pop(0)
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                failure = error.failure if isinstance(error, _Final) else error
                for item in waiting:
                    item.result, item.error = None, failure

    def _expire_late(self) -> None:
        """Write down which approvals' time is over, in a transaction of its own."""
        now = self.clock.now()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_US
            with contextlib.suppress(psycopg.Error):  # who asks finds them expired all the same
                self._once([Item(None, expire_late, ())], _CROWD_MS)

    def _in_one(self, batch: list[Item]) -> bool:
        """Run all verbs in one transaction, or return that each needs one of its own.

        One of several broke then, or other processes got in its way, which is rare.
        """
        try:
            self._once(batch, _CROWD_MS)
        except _Final:
            raise
        except Exception:  # noqa: BLE001 - it comes again, to whom it belongs
            return False
        return True

    def _alone(self, item: Item) -> None:
        """Run one verb, again while others get in its way: nothing was written then."""
        for tries in itertools.count(1):
            try:
                self._once([item], _ALONE_MS)
                return
            except psycopg.Error as error:
                if not passes(error) or tries == _TRIES:
                    item.result, item.error = None, self._link.failure(error, tries)
                    return
            except _Final:
                raise
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                item.result, item.error = None, error
                return
            time.sleep(random.uniform(0, min(0.002 * 2**tries, 0.2)))  # noqa: S311 - spreads rivals

    def _once(self, batch: list[Item], lock_ms: int) -> None:
        """Run *batch* in one transaction.

        Raises:
            psycopg.Error: it was refused, or the connection lost; nothing was written.
            _Final: there is no server, or it is not known whether it was written.
        """
        wire, began, number = self._opened(), awake(), None
        interrupts: list[BaseException] = []
        tx = self._begin(wire, lock_ms)
        try:
            for item in batch:
                item.result = item.verb(tx, *item.args)
            number = tx.number
            wire.commit(interrupts)
        except CommitUnsafe as error:
            raise self._unsure(error) from error
        except CommitUnknown as error:
            self._wire = self._after(wire, ConnectionLost())
            if not self._was_committed(number or 0, error):
                raise ConnectionLost(str(error)) from error
        except BaseException as error:
            self._wire = self._after(wire, error)
            if isinstance(error, psycopg.Error):
                self._link.heard(error)
            elif not isinstance(error, Exception) and number is not None:
                self._settle(number, tx, began)
            raise
        self._committed(tx, began)
        if interrupts:
            raise interrupts[0]

    def _opened(self) -> Wire:
        try:
            self._check_open()  # once more, under the lock: the store may have been closed meanwhile
            return self._writing()
        except StoreUnavailable as failure:
            raise _Final(failure) from failure

    def _begin(self, wire: Wire, lock_ms: int, *, counts: bool = True) -> Writing:
        return Writing(wire, self._owner, self._injected(), self._last, lock_ms, counts=counts)

    def _committed(self, tx: Writing, began: float) -> None:
        """Take note of a durable transaction; a signal handler's exception takes nothing back."""
        self._owner.renewed(began)
        self._last = max(self._last, tx.now)
        if self._told is not None:
            self._told.told(tx.now)
        try:
            self._owner.committed(tx.afterwards)
        except BaseException:
            self._owner.committed(tx.afterwards)  # from the start: each can be done twice
            raise

    def _settle(self, number: int, tx: Writing, began: float) -> None:
        """After an interrupt: do what waits for the commit, if it came about."""
        with contextlib.suppress(_Final):
            if self._was_committed(number, ConnectionLost("interrupted")):
                self._committed(tx, began)

    def _was_committed(self, number: int, why: Exception) -> bool:
        """Return whether the owner's transaction *number* was committed.

        The answer is read in a transaction that writes: when its COMMIT is confirmed, so is
        everything before it, on the standby that has to confirm, too.

        Raises:
            _Final: the server does not say so in time.
        """
        until = time.monotonic() + self._link.patience
        while time.monotonic() < until:
            wire = None
            try:
                wire = self._opened()
                found = self._begin(wire, _ALONE_MS, counts=False).number
                wire.commit([])
            except _Final as error:
                raise self._unsure(error) from why
            except (psycopg.Error, CommitUnknown, CommitUnsafe):
                if wire is not None:
                    self._wire = self._after(wire, ConnectionLost())
                time.sleep(random.uniform(0, 0.2))  # noqa: S311 - spreads who comes back at once
            else:
                if found < number - 1:  # somebody took us for dead and removed our row
                    break
                return found >= number
        raise self._unsure(why) from why

    def _unsure(self, error: Exception) -> _Final:
        return _Final(self._link.unsure(error))

    # Ends.

    def check(self) -> str:
        """Return `ok`, or what the server says is wrong with its files and our indexes."""
        try:
            return self.read(_check, self._link.address.schema)
        except StoreUnavailable as error:
            return error.message

    def lifeline(self) -> tuple[int, ...]:
        """Return the descriptor of the owner's lock; who holds a copy of it keeps the owner alive."""
        return self._owner.lifeline()

    def may_begin(self) -> bool:
        """Return whether a body may begin now: nobody can have taken this process for lost yet.

        A process that was stopped, or whose machine slept, finds out so before it acts.
        """
        return self._owner.may_begin()

    def close(self) -> None:
        """Give up connections and the proof of life. Closing twice does nothing.

        While a body of this process is still running, its lock is kept until the process ends:
        nobody else may take it for dead and run the body again.
        """
        if self._closed:
            return
        self._writer.close()
        self._closed = True
        with self._lock, self._read_lock:
            if self._owner_ is not None and self._wire is not None:
                with contextlib.suppress(psycopg.Error, CommitUnknown, CommitUnsafe):
                    self._take_leave(self._wire, self._owner_)
            self._disconnect()

    def _take_leave(self, wire: Wire, owner: LeasedOwner) -> None:
        tx = self._begin(wire, _ALONE_MS, counts=False)
        if tx.row(_OPEN_EFFECTS, (owner.id,)) is None:
            tx.run("DELETE FROM owners WHERE owner = ?", (owner.id,))
            wire.commit([])
            owner.close()

    def _disconnect(self) -> None:
        for wire in (self._reader, self._wire):
            if wire is not None:
                wire.close()
        self._reader = self._wire = None

    def before_fork(self) -> None:
        """Wait until no transaction is under way."""
        self._lock.acquire()
        self._read_lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._read_lock.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: own connections, own lock, own identity, each at its first use."""
        for wire in (self._reader, self._wire):
            if wire is not None:
                wire.drop_in_child()
        if self._owner_ is not None:
            self._owner_.drop()
        self._reset()


_OPEN_EFFECTS = (
    "SELECT 1 FROM effects WHERE owner = ? AND (state = 'executing'"
    " OR (state = 'in_doubt' AND lease_until IS NOT NULL)) LIMIT 1"
)


def _check(tx: Reading, schema: str) -> str:
    damaged = tx.row("SELECT sum(checksum_failures) FROM pg_stat_database")
    if damaged and damaged[0]:
        return f"the server counted {damaged[0]} damaged pages: restore it from a backup"
    rows = tx.rows(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ? AND NOT (i.indisvalid AND i.indisready)",
        (schema,),
    )
    broken = ", ".join(name for (name,) in rows)
    return f"indexes are not valid: {broken}; REINDEX them" if broken else "ok"
