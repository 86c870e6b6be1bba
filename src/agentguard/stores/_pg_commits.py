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
from ._pg_tx import ALONE_MS, IDLE_MS, Writing
from ._pg_wire import CommitUnknown, CommitUnsafe, ConnectionLost, QuietConnection, Wire
from ._writer import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._pg_link import Link
    from ._pg_owner import LeasedOwner, StoreTime

_CROWD_MS = 500
"""So long a transaction with several verbs waits for a lock; it is soon cut into its parts."""
_TRIES = 10
_TIDY_EVERY_US, _PURGE_EVERY_US = 10_000_000, 3_600_000_000
"""So often, by the store's clock, it is written down which approvals' time is over, and owners that
ended long ago are removed."""
_LOG = logging.getLogger("agentguard")


class Final(Exception):
    """What holds for all verbs of a batch, and no second try mends."""

    def __init__(self, failure: StoreUnavailable) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _tidy(tx: Writing, purges: bool) -> None:  # noqa: FBT001 - a verb's argument
    expire_late(tx)
    if purges:
        tx.forget_the_silent()


class Commits:
    """Commits what verbs write.

    Args:
        link: opens connections.
        owner: gives this process as an owner.
        time: the store's.
        refuse: raises `StoreUnavailable` once the store is closed.
        done: is called after each commit.
        slot: tells the connection's row from those of the process's other connections.
        kind: psycopg's class of the connection.

    Attributes:
        lock: is held while the connection is used.
    """

    def __init__(
        self, link: Link, owner: Callable[[], LeasedOwner], time: StoreTime,
        refuse: Callable[[], None], done: Callable[[], None], slot: str = "",
        kind: type[QuietConnection] = QuietConnection,
    ) -> None:  # fmt: skip
        self._link, self._owner, self._time = link, owner, time
        self._refuse, self._done, self._slot, self._kind = refuse, done, slot, kind
        self.lock = threading.RLock()
        self._wire: Wire | None = None
        self._tidy_at = self._purge_at = 0

    def wire(self) -> Wire:
        """Return the connection, opening it if it is not; under the lock."""
        if self._wire is None:
            self._wire = self._link.open(self._kind)
        return self._wire

    def run(self, batch: list[Item]) -> None:
        """Run a batch; what became of each item stands in it."""
        waiting = list(batch)
        with self.lock:
            try:
                self._tidy()
                if len(batch) > 1 and self._in_one(batch):
                    return
                while waiting:
                    self._alone(waiting[0])
                    waiting.pop(0)
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                failure = error.failure if isinstance(error, Final) else error
                for item in waiting:
                    item.result, item.error = None, failure

    def _tidy(self) -> None:
        """Write down, now and then, what time alone has changed; in a transaction of its own.

        Who asks finds it so all the same, so a failure here is nobody's.
        """
        now = self._time.clock.now()
        if now < self._tidy_at:
            return
        self._tidy_at = now + _TIDY_EVERY_US
        purges = now >= self._purge_at
        if purges:
            self._purge_at = now + _PURGE_EVERY_US
        try:
            self._once([Item(None, _tidy, (purges,))], _CROWD_MS)
        except Final as final:
            if not final.failure.uncertain:
                raise
        except Exception as error:  # noqa: BLE001 - told to operators, since no caller asked for it
            _LOG.warning("what time has changed was not written down: %s", self._link.plain(error))

    def _in_one(self, batch: list[Item]) -> bool:
        """Run all verbs in one transaction, or return that each needs one of its own.

        One of several broke then, or other processes got in its way, which is rare.
        """
        try:
            self._once(batch, _CROWD_MS)
        except Final:
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
            except Final:
                raise
            except BaseException as error:  # noqa: BLE001 - delivered to whoever asked for the verb
                item.result, item.error = None, error
                return
            time.sleep(random.uniform(0, min(0.002 * 2**tries, 0.2)))  # noqa: S311 - spreads rivals

    def _once(self, batch: list[Item], lock_ms: int) -> None:
        """Run *batch* in one transaction.

        Raises:
            psycopg.Error: it was refused, or the connection lost; nothing was written.
            Final: there is no server, or it is not known whether it was written.
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
        tx = self.begin(lock_ms)
        try:
            tx.foresee((item.verb, item.args) for item in batch)
            for number, item in enumerate(batch):
                tx.turn(number)
                item.result = item.verb(tx, *item.args)
        except BaseException as error:
            self.undo(error)
            raise
        self.commit(tx, interrupts)

    def begin(
        self, lock_ms: int = ALONE_MS, idle_ms: int = IDLE_MS, *, counts: bool = True
    ) -> Writing:
        """Begin a transaction; under the lock.

        Raises:
            psycopg.Error: the connection was lost.
            Final: there is no server.
        """
        try:
            self._refuse()  # once more, under the lock: the store may have been closed meanwhile
            wire = self.wire()
        except StoreUnavailable as failure:
            raise Final(failure) from failure
        given, last = self._time.given(), self._time.last
        try:
            return Writing(
                wire, self._owner(), given, last, limits_ms=(lock_ms, idle_ms), counts=counts,
                slot=self._slot,
            )  # fmt: skip
        except BaseException as error:
            self.undo(error)
            raise

    def undo(self, error: BaseException) -> None:
        """End what was begun without keeping anything; *error* tells whether the connection goes, too."""
        if isinstance(error, psycopg.Error):
            self._link.heard(error)
        if self._wire is not None:
            self._wire = after(self._wire, error)

    def commit(self, tx: Writing, interrupts: list[BaseException]) -> None:
        """Commit *tx*; what a signal handler raises meanwhile is left in *interrupts*.

        Raises:
            psycopg.Error: it was refused, or the connection lost; nothing was written.
            Final: it is not known whether it was written.
        """
        try:
            tx.seal()
            tx.wire.commit(interrupts)
            self._committed(tx)
        except CommitUnsafe as error:
            raise self._unsure(error) from error
        except CommitUnknown as error:
            self.undo(error)
            if not self._was_committed(tx.number, error):
                raise ConnectionLost(str(error)) from error
            self._committed(tx)
        except BaseException as error:
            self.undo(error)
            if tx.sealed and not isinstance(error, Exception):
                self._settle(tx)
            raise

    def _committed(self, tx: Writing) -> None:
        """Take note of a durable transaction; it may be done twice."""
        if not self._slot:
            self._owner().renewed(tx.began)
        self._time.told(tx.now, tx.began)
        self._owner().committed(tx.afterwards)
        self._done()

    def _settle(self, tx: Writing) -> None:
        """After an interrupt: do what waits for the commit, if it came about."""
        with contextlib.suppress(Final):
            if self._was_committed(tx.number, ConnectionLost("interrupted")):
                self._committed(tx)

    def _was_committed(self, number: int, why: Exception) -> bool:
        """Return whether the transaction *number* of this owner was committed.

        The answer is read in a transaction that writes: when its COMMIT is confirmed, so is
        everything before it, on the standby that has to confirm, too.

        Raises:
            Final: the server does not say so in time.
        """
        until = time.monotonic() + self._link.patience
        while time.monotonic() < until:
            try:
                tx = self.begin(counts=False)
                found = tx.number
                tx.wire.commit([])
            except Final as error:
                raise self._unsure(error) from why
            except (psycopg.Error, CommitUnknown, CommitUnsafe):
                self.undo(why)
                time.sleep(random.uniform(0, 0.2))  # noqa: S311 - spreads who comes back at once
            else:
                if found < number - 1:  # somebody took us for dead and removed our row
                    break
                return found >= number
        raise self._unsure(why) from why

    def _unsure(self, error: Exception) -> Final:
        return Final(self._link.unsure(error))

    def take_leave(self) -> None:
        """Remove this process's rows and lock, unless it still owns something; under the lock."""
        if self._wire is None:
            return
        with contextlib.suppress(psycopg.Error, CommitUnknown, CommitUnsafe):
            tx = Writing(
                self._wire, self._owner(), self._time.given(), self._time.last, counts=False
            )
            if not tx.owns_anything():
                tx.run(
                    "DELETE FROM owners WHERE owner = ? OR owner LIKE ?",
                    (tx.owner, f"{tx.owner}.%"),
                )
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
