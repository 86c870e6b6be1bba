"""The tables of a store as a copy sees them: pages in the order of the key, digests of rows."""

from __future__ import annotations

import functools
import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..protocols import Tx

Row = tuple[Any, ...]
Key = tuple[Any, ...]

_OWN = frozenset({"meta", "owners"})
"""What a store says of itself and of its processes stays with it."""
_MODULUS = 2**256


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its key comes first among its columns."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]

    def key_of(self, row: Row) -> Key:
        """Return what names *row*."""
        return row[: len(self.key)]

    def count(self, tx: Tx) -> int:
        """Return how many rows there are."""
        found = tx.row(f"SELECT count(*) FROM {self.name} WHERE {self._own()}")  # noqa: S608 - fixed names
        return int(found[0]) if found else 0

    def page(self, tx: Tx, after: Key | None, until: Key | None, most: int) -> list[Row]:
        """Return the rows after one key and up to another, in the order of the keys."""
        marks = ", ".join("?" * len(self.key))
        where, values = [self._own()], list[Any]()
        for sign, bound in ((">", after), ("<=", until)):
            if bound is not None:
                where.append(f"({', '.join(self.key)}) {sign} ({marks})")
                values += bound
        rows = tx.rows(
            f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {' AND '.join(where)}"  # noqa: S608
            f" ORDER BY {', '.join(self.key)} LIMIT ?",
            (*values, most),
        )
        return [tuple(row) for row in rows]

    def insert(self, tx: Tx, row: Row) -> None:
        """Write a row that is not there."""
        marks = ", ".join("?" * len(self.columns))
        tx.run(f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})", row)  # noqa: S608

    def delete(self, tx: Tx, key: Key) -> None:
        """Remove a row."""
        where = " AND ".join(f"{name} = ?" for name in self.key)
        tx.run(f"DELETE FROM {self.name} WHERE {where}", key)  # noqa: S608 - fixed names

    def _own(self) -> str:
        """Leave out the switches that a copy has thrown itself."""
        return "id > 0" if self.name == "switches" else "1 = 1"


@functools.cache
def tables() -> tuple[Table, ...]:
    """Return all tables that a copy copies, runs before what belongs to them."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in TABLES:
            connection.execute(statement)
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        found = [(name, connection.execute(f"PRAGMA table_info({name})").fetchall())
                 for (name,) in names.fetchall() if name not in _OWN]  # fmt: skip
    return tuple(_table(name, columns) for name, columns in found)


def _table(name: str, columns: Sequence[Any]) -> Table:
    places = {column: place for _, column, _, _, _, place in columns}
    key = sorted((c for c in places if places[c]), key=places.__getitem__)
    return Table(name, tuple(key), (*key, *(c for c in places if not places[c])))


class Digest:
    """A sum of the hashes of rows: the same for the same rows, in whatever order they come."""

    def __init__(self) -> None:
        self.rows = self._sum = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows in."""
        for row in rows:
            self.rows += 1
            self._sum = (self._sum + int.from_bytes(_hash(row))) % _MODULUS

    def hexdigest(self) -> str:
        """Return the sum."""
        return f"{self._sum:064x}"


def _hash(row: Row) -> bytes:
    hasher = hashlib.sha256()
    for value in row:
        raw = value if isinstance(value, bytes) else str(value).encode()
        kind = type(value).__name__
        hasher.update(f"{kind}:{len(raw)}:".encode() + raw)
    return hasher.digest()
