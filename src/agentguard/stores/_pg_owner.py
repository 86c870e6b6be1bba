"""Proof of life across hosts: a lock where one can look, a lease by the store's clock elsewhere.

A lease that ran out does not mean that its owner is dead; it means that nobody knows. So there are
two words: *dead* is proven by the lock of a process on this host, *lost* is also whoever has not
renewed its lease. What a lost owner was doing is in doubt, and nothing is done again for it.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import NETWORK, file_system
from ._owner import Owner

if TYPE_CHECKING:
    from ..protocols import Clock, Tx

_FOLDER = "AGENTGUARD_RUNTIME_DIR"


def runtime_folder() -> Path | None:
    """Return a folder of this host and user for lock files, or None if there is no safe one.

    Others must not be able to put files there, and its locks must be this machine's own.
    """
    named = os.environ.get(_FOLDER)
    default = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - looked at below
    folder = Path(named) if named else Path(default) / f"agentguard-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private_ = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    closed = not found.st_mode & 0o022
    return folder if private_ and closed and file_system(folder) not in NETWORK else None


class LeasedOwner(Owner):
    """This process as an owner whom other hosts know by its lease.

    Args:
        lease: seconds for which it is taken for alive after its last word.
    """

    def __init__(self, lease: float) -> None:
        try:
            super().__init__(runtime_folder())
        except OSError:  # no lock, no proof: this process is known by its lease alone
            super().__init__(None)
        self._boot = None  # other machines boot, too: here a lease tells
        self.lease_us = int(lease * 1_000_000)
        self._me = super().who()
        self._until = self._unbroken = 0.0

    def who(self) -> tuple[str, str, int, int | None, int | None]:
        """Return what `Owner.who` does, looked up once."""
        return self._me

    def renewed(self, at: float) -> None:
        """Remember that the lease was renewed by what was said at *at*, by `awake`."""
        if at >= self._until:
            self._unbroken = at  # it was over before that, and others may have seen so
        self._until = max(self._until, at + self.lease_us / 1_000_000)

    def is_fresh(self) -> bool:
        """Return whether most of the lease is left."""
        return self._until - awake() > self.lease_us / 1_500_000

    def may_begin(self, since: float) -> bool:
        """Return whether nobody can have taken this process for lost after *since*.

        Either the lease of a commit asked for at *since* still runs, or no lease has run out
        since then. That one runs now is not enough: a heartbeat renews it whenever it wakes up.
        """
        now = awake()
        unbroken = self._unbroken <= since and now < self._until
        return unbroken or now - since < self.lease_us / 1_000_000

    def is_lost(self, tx: Tx, owner: str) -> bool:
        """Return whether *owner* is dead or has let its lease run out."""
        if owner == self.id:
            return False
        row = tx.row("SELECT lease_until FROM owners WHERE owner = ?", (owner,))
        over = row is None or (row[0] is not None and tx.now >= row[0])
        return over or self.is_dead(tx, owner)

    def is_alive(self, tx: Tx, owner: str) -> bool:
        """Return whether *owner* holds its lock or its lease."""
        return super().is_alive(tx, owner) or not self.is_lost(tx, owner)


def awake() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(_BOOT)


_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class DatabaseClock:
    """The database's time, carried on by this machine's own clock since it was last told."""

    def __init__(self) -> None:
        self._ahead: float | None = None

    def told(self, now: int, at: float) -> None:
        """Take *now*, in microseconds, for what the database's clock said at *at*, by `awake`."""
        self._ahead = now / 1_000_000 - at

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return int(time.time() * 1e6 if self._ahead is None else (awake() + self._ahead) * 1e6)


class StoreTime:
    """The store's time: that of a clock that was given, or else of the database.

    Attributes:
        last: what it was at least.
    """

    def __init__(self, clock: Clock | None) -> None:
        self._told = DatabaseClock()
        self._given = clock is not None
        self.clock: Clock = clock or self._told
        self.last = 0

    def given(self) -> int | None:
        """Return the time of a clock that was given, never running backwards."""
        if not self._given:
            return None
        self.last = max(self.last, self.clock.now())
        return self.last

    def told(self, now: int, at: float) -> None:
        """Take note of the time of a transaction that began at *at*, by `awake`."""
        self.last = max(self.last, now)
        self._told.told(now, at)
