"""A service's own SQLite file: its tables, and the journal of every effect that ever happened."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

JOURNAL = """
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL,
  effect TEXT NOT NULL,
  ticket_id TEXT NOT NULL,
  idempotency_key TEXT,
  details TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS journal_is_never_changed BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'The journal is append-only.'); END;
CREATE TRIGGER IF NOT EXISTS journal_is_never_cut BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'The journal is append-only.'); END;
"""


class Ledger:
    """One SQLite file, used by one process: what it has acknowledged survives a power cut."""

    def __init__(self, path: Path, schema: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(JOURNAL + schema)
        self._grown = threading.Condition()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lend the connection for one look at what is committed."""
        with self._grown:
            yield self._db

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lend the connection for one transaction: all of it happens, or nothing."""
        with self._grown:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
            self._grown.notify_all()

    def journal(self, at_least: int = 0, within: float = 0) -> list[dict[str, object]]:
        """List every effect in order; wait up to *within* seconds until there are *at_least*."""
        with self._grown:
            self._grown.wait_for(lambda: self._length() >= at_least, within)
            return [_shown(row) for row in self._db.execute("SELECT * FROM journal ORDER BY seq")]

    def _length(self) -> int:
        (length,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()
        return int(length)

    def close(self) -> None:
        """Close the file, once nobody uses it."""
        with self._grown:
            self._db.close()


def record(
    db: sqlite3.Connection, effect: str, ticket_id: str, key: str | None, **details: object
) -> None:
    """Add an effect to the journal, in the transaction in which it happens."""
    db.execute(
        "INSERT INTO journal (at, effect, ticket_id, idempotency_key, details) VALUES (?,?,?,?,?)",
        (now(), effect, ticket_id, key, json.dumps(details, ensure_ascii=False)),
    )


def now() -> str:
    """Return the time as services write it: UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(row: sqlite3.Row) -> dict[str, object]:
    return {**{name: row[name] for name in row.keys()[:-1]}, **json.loads(row["details"])}
