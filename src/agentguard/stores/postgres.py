"""The store for many machines: one PostgreSQL, shared commits, leases by the database's clock."""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from ..errors import StoreUnavailable
from . import _forks
from ._pg_commits import Commits
from ._pg_held import HeldTransaction, LentConnection
from ._pg_link import Link, after, is_lost
from ._pg_owner import LeasedOwner, StoreTime, awake
from ._pg_pulse import Pulse
from ._pg_server import damage
from ._pg_tx import NeedsSnapshot, Reading, Writing
from ._pg_url import parse
from ._writer import Item, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocols import Clock
    from ._pg_wire import Wire

T = TypeVar("T")

_PATIENCE = 15.0
"""Seconds for which a server may be away, as it is at a failover."""


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

    travels = True
    """Its answers come over a network: an event loop does not wait for them."""

    def __init__(
        self, url: str, *, clock: Clock | None = None, migrate: bool = False,
        patience: float = _PATIENCE,
    ) -> None:  # fmt: skip
        self._link = Link(parse(url), migrate=migrate, patience=patience)
        self.url = self._link.address.shown
        self._time = StoreTime(clock)
        self.clock: Clock = self._time.clock
        self._closed = False
        self._several: weakref.WeakSet[Any] = weakref.WeakSet()
        self._reset()
        with self._commits.lock:
            self._commits.wire()
        _forks.watch(self)

    def _reset(self) -> None:
        """Begin with nothing open: at first, and in a forked child."""
        self._read_lock = threading.RLock()
        self._reader: Wire | None = None
        self._owner_: LeasedOwner | None = None
        self._pulse = Pulse(self._renew, self._link.address.lease / 4)
        self._commits = self._connected(self._pulse.want)
        self._slots = itertools.count(1)
        self._spare: list[Commits] = []
        self._held: weakref.WeakSet[Commits] = weakref.WeakSet()
        self._writer = Writer(self._commits.run)

    def _connected(self, done: Callable[[], None], **options: Any) -> Commits:
        def owner() -> LeasedOwner:
            return self._owner

        return Commits(self._link, owner, self._time, self._check_open, done, **options)

    @property
    def _owner(self) -> LeasedOwner:
        """This process as an owner, from its first use of the store on."""
        if self._owner_ is None:
            self._owner_ = LeasedOwner(self._link.address.lease)
        return self._owner_

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

    def open(self) -> HeldTransaction:
        """Begin a transaction that the caller's thread holds open and ends itself.

        Raises:
            StoreUnavailable: there is no server.
        """
        self._check_open()
        try:
            commits = self._spare.pop()
        except IndexError:
            slot = f".{next(self._slots)}"
            commits = self._connected(lambda: None, slot=slot, kind=LentConnection)
            self._held.add(commits)
        return HeldTransaction(self._link, commits, self._spare.append)

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
        given, last = self._time.given(), self._time.last
        kind = getattr(query, "__code__", query)
        single = kind not in self._several
        try:
            if not single:
                wire.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            result = query(Reading(wire, self._owner, given, last, single=single), *args)
            if not single:
                wire.finish()
            return result
        except NeedsSnapshot:
            self._several.add(kind)
            return self._read(wire, query, args)
        except BaseException as error:
            self._reader = after(wire, error)
            raise

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self.url} is closed")

    def check(self) -> str:
        """Return `ok`, or what the server says is wrong with its files and our indexes."""
        try:
            return self.read(damage, self._link.address.schema)
        except StoreUnavailable as error:
            return error.message

    def lifeline(self) -> tuple[int, ...]:
        """Return the descriptor of the owner's lock; who holds a copy of it keeps the owner alive."""
        return self._owner.lifeline()

    def awake(self) -> float:
        """Return seconds on a clock that goes on while this process, or its machine, stands still."""
        return awake()

    def may_begin(self, since: float) -> bool:
        """Return whether a body may begin whose start was asked for at *since*, by `awake`.

        A process that was stopped, or whose machine slept, finds out so before it acts.
        """
        return self._owner.may_begin(since)

    def _renew(self) -> bool:
        """Renew the lease if it is needed; return whether this process executes something."""
        busy = self.read(Reading.owns_anything)
        if busy and not self._owner.is_fresh():
            self.transact(_nothing)
        return busy

    def close(self) -> None:
        """Give up connections and the proof of life. Closing twice does nothing.

        While a body of this process is still running, its lock is kept until the process ends:
        nobody else may take it for dead and run the body again.
        """
        if self._closed:
            return
        self._pulse.close()
        self._writer.close()
        self._closed = True
        with self._commits.lock, self._read_lock:
            if self._owner_ is not None:
                self._commits.take_leave()
            for commits in (self._commits, *self._spare):
                commits.disconnect()
            if self._reader is not None:
                self._reader.close()
            self._reader = None

    def before_fork(self) -> None:
        """Wait until no transaction is under way."""
        self._commits.lock.acquire()
        self._read_lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._read_lock.release()
        self._commits.lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: own connections, own lock, own identity, each at its first use."""
        for commits in (self._commits, *self._held):
            commits.drop_in_child()
        if self._reader is not None:
            self._reader.drop_in_child()
        if self._owner_ is not None:
            self._owner_.drop()
        self._reset()


def _nothing(_tx: Writing) -> None:
    """Only renew the lease, as every transaction does."""
