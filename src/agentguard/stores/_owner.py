"""Proof of life: a process holds an OS lock for as long as it lives, and nobody else can fake it.

A lease that ran out does not mean that its owner is dead; a free lock does. The lock is `flock`
on a file of the owner's own. It is inherited by `fork`, so a child closes its copy at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from ..protocols import Tx


_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str | None:
    """Return what tells this start of the machine from others, where the kernel says so."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return None


class Owner:
    """This process as the owner of the effects it executes."""

    def __init__(self, directory: Path | None) -> None:
        self.id = f"own_{os.urandom(10).hex()}"
        self._directory = directory
        self._descriptor: int | None = None
        self._registered = False
        self._boot = None if directory is None else boot()
        if directory is not None:
            directory.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path(self.id), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _path(self, owner: str) -> Path:
        return (self._directory or Path()) / f"{owner}.lock"

    def who(self) -> tuple[str, str, int, int | None, int | None]:
        """Return id, host and process, and the lock that proves its life: its device and inode."""
        found = None if self._descriptor is None else os.fstat(self._descriptor)
        device, inode = (found.st_dev, found.st_ino) if found else (None, None)
        return self.id, socket.gethostname(), os.getpid(), device, inode

    def register(self, tx: Tx) -> None:
        """Write down, once, which lock proves that this process lives."""
        if self._registered:
            return
        tx.run(
            "INSERT INTO owners (owner, host, pid, lock_device, lock_inode, started_at, boot)"
            " VALUES (?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
            (*self.who(), tx.now, self._boot),
        )

    def committed(self, afterwards: Iterable[Callable[[], object]]) -> None:
        """Remember that the transaction with `register` was committed, and do what waits for that."""
        self._registered = True
        for done in afterwards:
            done()

    def is_dead(self, tx: Tx, owner: str) -> bool:
        """Return whether *owner* is proven gone: its lock file is the one it took, and free."""
        return owner != self.id and self._probe(tx, owner) is True

    def is_alive(self, tx: Tx, owner: str) -> bool:
        """Return whether *owner* holds its lock."""
        return owner == self.id or self._probe(tx, owner) is False

    def _probe(self, tx: Tx, owner: str) -> bool | None:
        """Return whether the lock of *owner* is free, or None if nothing can be told from it."""
        if self._directory is None:
            return None
        try:
            descriptor = os.open(self._path(owner), os.O_RDWR)
        except OSError:
            return self._is_of_an_earlier_boot(tx, owner)  # no file, no other proof
        try:
            stat = os.fstat(descriptor)
            row = tx.row("SELECT lock_device, lock_inode FROM owners WHERE owner = ?", (owner,))
            same = row is not None and (stat.st_dev, stat.st_ino) == tuple(row)
            return _is_free(descriptor) if same else self._is_of_an_earlier_boot(tx, owner)
        finally:
            os.close(descriptor)

    def _is_of_an_earlier_boot(self, tx: Tx, owner: str) -> bool | None:
        """Return True if the machine was started anew since, or None if that is not known.

        A power cut can take the lock's file with it, and a disk can have another number afterwards.
        """
        row = self._boot and tx.row("SELECT boot FROM owners WHERE owner = ?", (owner,))
        return True if row and row[0] not in (None, self._boot) else None

    def lifeline(self) -> tuple[int, ...]:
        """Return the lock's descriptor; the lock is free only when all its copies are closed."""
        return () if self._descriptor is None else (self._descriptor,)

    def forget(self, owner: str) -> None:
        """Remove the lock file of an owner that is dead and owns nothing any more."""
        if self._directory is not None:
            with contextlib.suppress(OSError):  # it stays, and nobody asks for it any more
                self._path(owner).unlink()

    def leave(self, connection: sqlite3.Connection) -> None:
        """Leave nothing behind: who comes later asks about every owner that is on record."""
        if self._registered:
            connection.execute("DELETE FROM owners WHERE owner = ?", (self.id,))
        self.close()

    def close(self) -> None:
        """Give up the lock and its file."""
        if self._descriptor is not None:
            self.forget(self.id)
            self.drop()

    def drop(self) -> None:
        """Close this process's copy of the lock; in a forked child the parent keeps its own."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def living(directory: Path) -> int:
    """Count the processes that have written to the store whose locks lie there, and are alive."""
    count = 0
    for path in directory.glob("*.lock"):
        with contextlib.suppress(OSError):  # its owner has just left
            descriptor = os.open(path, os.O_RDWR)
            try:
                count += not _is_free(descriptor)
            finally:
                os.close(descriptor)
    return count


def _is_free(descriptor: int) -> bool:
    try:
        # Shared, because a fork at this moment inherits the lock: it must shut out no other prober.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
