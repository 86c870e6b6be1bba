"""The mark: a file beside the store that says how many commits were acknowledged, so that lost ones show.

A store that holds fewer commits than its mark says has lost some: an old copy was put back, its log
was cut off, damaged or left behind, or the disk had not written what it said it had. Every key
that was used since then would count as free, so nothing is started.

The mark is written after the commit and before anybody is answered, and not synced: a power cut may
leave an older one, never one that says too much. Without a mark nothing is known and nothing refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from ..protocols import Tx

_COUNT = "UPDATE meta SET value = printf('%015d', value + 1) WHERE key = 'commits' RETURNING value"
_FIRST = "INSERT INTO meta (key, value) VALUES ('commits', printf('%015d', 1))"
_SIZE = 64
"""Less than a sector, so that no power cut tears it."""


class Mark:
    """How many commits of a store were acknowledged, as far as this machine remembers."""

    def __init__(self, store: Path) -> None:
        self._store, self._path = store, store.with_name(f"{store.name}.mark")
        self._keeps = str(store) != ":memory:"
        self._descriptor: int | None = None

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse a store that has lost commits.

        Raises:
            StoreUnavailable: it has.
        """
        acknowledged = self.read()  # first: another process may commit between the two
        there = commits(connection)
        if there < acknowledged:
            raise StoreUnavailable(
                f"the store {self._store} holds {there} commits, and {acknowledged} were"
                " acknowledged: an older copy was put back, or its log is lost or damaged, and"
                " what was done since then is not on record. Nothing was started; put the newest"
                " copy back, or accept this one: agentguard store accept"
            )

    def begin(self, connection: sqlite3.Connection, tx: Tx) -> None:
        """Number the transaction, and remember the number once it is durable."""
        if self._keeps:
            found = connection.execute(_COUNT).fetchone()
            if found is None:
                connection.execute(_FIRST)
            number = 1 if found is None else int(found[0])
            tx.after_commit(lambda: self.note(number))

    def note(self, number: int) -> None:
        """Remember that the commit with this number is durable."""
        with contextlib.suppress(OSError):  # an older mark says less, which is safe
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(self._descriptor, f"{number} {number}".ljust(_SIZE).encode(), 0)

    def close(self) -> None:
        """Close the file; the next note opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def read(self) -> int:
        """Return what the mark says; one that is not there, or not whole, says nothing."""
        try:
            number, again = self._path.read_text(encoding="ascii").split()
            return int(number) if number == again else 0
        except (OSError, ValueError):
            return 0


def commits(connection: sqlite3.Connection) -> int:
    """Return how many commits a store holds."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'commits'").fetchone()
    if found is None:
        return 0
    try:
        return int(found[0])
    except ValueError as error:
        raise sqlite3.DatabaseError(f"malformed number of commits: {found[0]!r}") from error
