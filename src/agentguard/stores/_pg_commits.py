"""The transactions of one process over one connection: in batches, numbered, looked up when unsure."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from ..errors import StoreUnavailable
from ..ledger.approvals import expire_late
from ._pg_link import after, passes
from ._pg_owner import awake
from ._pg_tx import Writing
from ._pg_wire import CommitUnknown, CommitUnsafe, ConnectionLost, Wire
from ._writer import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._pg_link import Link
    from ._pg_owner import LeasedOwner, StoreTime

ALONE_MS, _CROWD_MS = 10_000, 500
"""So long a transaction waits for a lock; one with several verbs is soon cut into its parts."""
_TRIES = 10
_LOOK_EVERY_US = 10_000_000
"""So often, by the store's clock, it is written down which approvals' time is over."""
_LOG = logging.getLogger("agentguard")


class _Final(Exception):
    """What holds for all verbs of a batch, and no second try mends."""

    def __init__(self, failure: StoreUnavailable) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Commits:
    """Commits what verbs write.

    Args:
        link: opens connections.
        owner: gives this process as an owner.
        time: the store's.
        refuse: raises `StoreUnavailable` once the store is closed.
        done: is called after each commit.

    Attributes:
        lock: is held while the connection is used.
    """

    def __init__(
        self, link: Link, owner: Callable[[], LeasedOwner], time: StoreTime,
        refuse: Callable[[], None], done: Callable[[], None],
    ) -> None:  # fmt: skip
        self._link, self._owner, self._time = link, owner, time
        self._refuse, self._done = refuse, done
        self.lock = threading.RLock()
        self._wire: Wire | None = None
        self._look_at = 0

    def wire(self) -> Wire:
        """Return the connection, opening it if it is not; under the lock."""
        if self._wire is None:
            self._wire = self._link.open()
        return self._wire

    def run(self, batch: list[Item]) -> None:
        """Run a batch; what became of each item stands in it."""
        waiting = list(batch)
        with self.lock:
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
        """Write down which approvals' time is over, in a transaction of its own.

        Who asks for one of them finds it expired all the same, so a failure here is nobody's.
        """
        now = self._time.clock.now()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_US
        try:
            self._once([Item(None, expire_late, ())], _CROWD_MS)
        except _Final as final:
            if not final.failure.uncertain:
                raise
        except Exception as error:  # noqa: BLE001 - told to operators, since no caller asked for it
            _LOG.warning("approvals that ran out were not marked: %s", self._link.plain(error))

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
                self._once([item], ALONE_MS)
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
        interrupts: list[BaseException] = []
        try:
            self._transaction(batch, lock_ms, interrupts)
        finally:
            if interrupts:  # what became of the commit is known, or a claim will find out
                raise interrupts[0]

    def _transaction(
        self, batch: list[Item], lock_ms: int, interrupts: list[BaseException]
    ) -> None:
        wire, began, tx = self._opened(), awake(), None
        try:
            tx = self._begin(wire, lock_ms)
            for item in batch:
                item.result = item.verb(tx, *item.args)
            tx.seal()
            wire.commit(interrupts)
            self._committed(tx, began)
        except CommitUnsafe as error:
            raise self._unsure(error) from error
        except CommitUnknown as error:
            self._wire = after(wire, error)
            if tx is None or not self._was_committed(tx.number, error):
                raise ConnectionLost(str(error)) from error
            self._committed(tx, began)
        except BaseException as error:
            self._wire = after(wire, error)
            if isinstance(error, psycopg.Error):
                self._link.heard(error)
            elif not isinstance(error, Exception) and tx is not None and tx.sealed:
                self._settle(tx, began)
            raise

    def _opened(self) -> Wire:
        try:
            self._refuse()  # once more, under the lock: the store may have been closed meanwhile
            return self.wire()
        except StoreUnavailable as failure:
            raise _Final(failure) from failure

    def _begin(self, wire: Wire, lock_ms: int, *, counts: bool = True) -> Writing:
        given, last = self._time.given(), self._time.last
        return Writing(wire, self._owner(), given, last, lock_ms, counts=counts)

    def _committed(self, tx: Writing, began: float) -> None:
        """Take note of a durable transaction; it may be done twice."""
        self._owner().renewed(began)
        self._time.told(tx.now)
        self._owner().committed(tx.afterwards)
        self._done()

    def _settle(self, tx: Writing, began: float) -> None:
        """After an interrupt: do what waits for the commit, if it came about."""
        with contextlib.suppress(_Final):
            if self._was_committed(tx.number, ConnectionLost("interrupted")):
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
                found = self._begin(wire, ALONE_MS, counts=False).number
                wire.commit([])
            except _Final as error:
                raise self._unsure(error) from why
            except (psycopg.Error, CommitUnknown, CommitUnsafe):
                if wire is not None:
                    self._wire = after(wire, why)
                time.sleep(random.uniform(0, 0.2))  # noqa: S311 - spreads who comes back at once
            else:
                if found < number - 1:  # somebody took us for dead and removed our row
                    break
                return found >= number
        raise self._unsure(why) from why

    def _unsure(self, error: Exception) -> _Final:
        return _Final(self._link.unsure(error))

    def take_leave(self) -> None:
        """Remove this process's row and lock, unless it still owns something; under the lock."""
        if self._wire is None:
            return
        with contextlib.suppress(psycopg.Error, CommitUnknown, CommitUnsafe):
            tx = self._begin(self._wire, ALONE_MS, counts=False)
            if not tx.owns_anything():
                tx.run("DELETE FROM owners WHERE owner = ?", (tx.owner,))
                self._wire.commit([])
                self._owner().close()

    def disconnect(self) -> None:
        """Give up the connection; under the lock."""
        if self._wire is not None:
            self._wire.close()
        self._wire = None

    def drop_in_child(self) -> None:
        """Let go of the parent's connection."""
        if self._wire is not None:
            self._wire.drop_in_child()
