"""A record moves to another store: whole, once, checked row by row, and nothing starts meanwhile.

Theory of operation. Both stores get a kill switch over everything, so that nobody starts a call on
half a record. Pages of rows go over in the order of their keys, each with the place that was
reached, in one transaction: a copy that was killed goes on there. Then everything is compared,
what differs is copied again, and only a pass that finds no difference ends the copy and lifts the
switch of the destination. That of the source stays: its workers belong to the other store now.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, StoreUnavailable
from ..ledger import queries, settling, switches
from . import open_store
from ._tables import Digest, Table, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from ..protocols import Clock, Store, Tx
    from ._tables import Key, Row

    Told = Callable[[str, int, int], None]

BY = "store copy"
_MARK = "copy"
_PAGE = 500
_PASSES = 4
"""So often a source that changes meanwhile is compared again."""


class _Epoch:
    """A time at which nothing has expired: the destination only takes what the source says."""

    def now(self) -> int:
        """Return the beginning of time."""
        return 0


@dataclass(frozen=True, slots=True)
class Part:
    """One table that was compared: the digest of its rows is the same in both stores."""

    table: str
    rows: int
    digest: str


@dataclass(slots=True)
class Copied:
    """What a copy has come to.

    Attributes:
        parts: the tables, with how many rows they have.
        runs: how many runs' chains were checked in the destination.
        broken: what is wrong with chains, as it was in the source already.
        before: this copy was finished earlier; nothing was done now.
    """

    source: str
    target: str
    parts: list[Part] = field(default_factory=list)
    runs: int = 0
    broken: list[str] = field(default_factory=list)
    before: bool = False


def copy(
    source: str, target: str, told: Told = lambda *_: None,
    opener: Callable[[str, Clock | None], Store] | None = None,
) -> Copied:  # fmt: skip
    """Copy a record into an empty store, or go on with that where it stopped.

    Args:
        source: the URL of the store that has the record.
        target: the URL of the one that shall have it.
        told: is called with what is done now, how much of it is done, and how much there is.
        opener: opens stores that `open_store` does not know.

    Raises:
        ConfigurationError: the source is at work, or the destination holds something else.
        StoreUnavailable: one of them cannot be read or written, or the source does not stand still.
    """
    with _opened(opener or _open, (source, None), (target, None), (target, _Epoch())) as stores:
        return _Copy(told, *stores).run()


def look(source: str, target: str) -> None:
    """Raise what `copy` would refuse, and change nothing.

    Raises:
        ConfigurationError: the source is at work, or the destination holds something else.
    """
    is_new = not _may_exist(target)
    with _opened(_open, (source, None), *[] if is_new else [(target, None)]) as (first, *rest):
        for second in rest:
            _check_target(second, _known(first, second))
        _check_source(first)


def _may_exist(url: str) -> bool:
    """A file that is not there holds nothing; and it is not made by a look at it."""
    path = url.removeprefix("sqlite:///")
    return path == url or Path(path).is_file()


def _open(url: str, clock: Clock | None) -> Store:
    return open_store(url, clock=clock)


@contextlib.contextmanager
def _opened(
    opener: Callable[[str, Clock | None], Store], *wanted: tuple[str, Clock | None]
) -> Generator[list[Store]]:
    urls = [url for url, _ in wanted]
    if urls.count(urls[0]) > 1:
        raise ConfigurationError(f"{urls[0]} is both source and destination: name two stores")
    if "memory://" in urls:
        raise ConfigurationError("a store in memory is seen by nobody else: name two that last")
    if not _may_exist(urls[0]):
        raise ConfigurationError(f"there is no store at {urls[0]}: name the one with the record")
    with contextlib.ExitStack() as stack:
        stores: list[Store] = []
        for url, clock in wanted:
            stores.append(opener(url, clock))
            stack.callback(stores[-1].close)
        yield stores


class _Copy:
    def __init__(self, told: Told, source: Store, target: Store, writing: Store) -> None:
        self.source, self.target, self.writing, self.told = source, target, writing, told
        self.copied = Copied(source.url, target.url)

    def run(self) -> Copied:
        """Freeze, copy, compare, check, and open the destination."""
        place = self._begin()
        if place is None:
            self.copied.before = True
            return self.copied
        self._pass(place)
        for _ in range(_PASSES):
            if not self._pass(None):
                break
        else:
            raise StoreUnavailable(
                f"{self.source.url} changes while it is copied: stop whatever still writes to it, then"
                " run the same command again"
            )
        self._check_chains()
        self.target.transact(_finish)
        return self.copied

    def _begin(self) -> dict[str, Any] | None:
        """Check both stores and freeze them; return where to go on, or None if all is done."""
        source, target = self.source, self.target
        known = _known(source, target)
        mark = _check_target(target, known)
        if mark is not None and mark["state"] == "done":
            return None
        source.transact(settling.sweep)
        _check_source(source)
        name = known["id"] if known else secrets.token_hex(8)
        source.transact(_freeze, {"id": name, "to": target.url}, f"moves to {target.url}")
        try:
            _check_source(source)  # nothing starts there any more
        except ConfigurationError:
            source.transact(_thaw)
            raise
        if mark is None:
            mark = {"id": name, "from": source.url, "state": "copying", "table": "", "after": None}
            target.transact(
                _freeze, mark, f"is filled from {source.url}", source.read(_last_switch)
            )
        return mark

    def _pass(self, place: dict[str, Any] | None) -> int:
        """Make the destination what the source is, from *place* on; return how many rows differed."""
        self.copied.parts = []
        names = [table.name for table in tables()]
        first = names.index(place["table"]) if place and place["table"] else 0
        differed = 0
        for number, table in enumerate(tables()[first:]):
            after = tuple(place["after"]) if place and place["after"] and not number else None
            differed += self._table(table, after, compare=place is None)
        return differed

    def _table(self, table: Table, after: Key | None, *, compare: bool) -> int:
        what = f"comparing {table.name}" if compare else table.name
        total, done, differed, digest = self.source.read(table.count), 0, 0, Digest()
        for rows, found in self._pages(table, after):
            if compare:
                digest.add(found)
            wrong = _difference(table, rows, found)
            if wrong != ([], []):
                differed += len(wrong[0]) + len(wrong[1])
                reached = table.key_of(rows[-1]) if rows else None
                self._write(table, wrong, None if compare else (table.name, reached))
            done += len(rows)
            self.told(what, min(done, total), total)
        self.copied.parts.append(Part(table.name, digest.rows, digest.hexdigest()))
        return differed

    def _pages(self, table: Table, after: Key | None) -> Iterator[tuple[list[Row], list[Row]]]:
        """Give the rows of source and destination in the same stretches of the key."""
        while True:
            rows = self.source.read(table.page, after, None, _PAGE)
            until = table.key_of(rows[-1]) if len(rows) == _PAGE else None
            found = self.target.read(table.page, after, until, 1_000_000)
            yield rows, found
            if until is None:
                return
            after = until

    def _write(
        self, table: Table, wrong: tuple[list[Key], list[Row]], place: tuple[str, Key | None] | None
    ) -> None:
        try:
            self.writing.transact(_write_page, table, wrong, place)
        except StoreUnavailable as error:
            if not wrong[1]:
                raise
            first = ", ".join(map(str, table.key_of(wrong[1][0])))
            raise StoreUnavailable(
                f"{table.name} from {first} on could not be written: {error.message}; run the same"
                " command again once that is mended", uncertain=error.uncertain,
            ) from error  # fmt: skip

    def _check_chains(self) -> None:
        """Check every run's chain where it is now; what the source had broken is told."""
        runs = next(table for table in tables() if table.name == "runs")
        total, after = self.target.read(runs.count), None
        while page := self.target.read(runs.page, after, None, _PAGE):
            for tenant, run_id, *_ in page:
                said = self.target.read(queries.broken_link, tenant, run_id)
                if said is not None:
                    self.copied.broken.append(said)
                self.copied.runs += 1
            after = runs.key_of(page[-1])
            self.told("checking chains", self.copied.runs, total)


def _difference(table: Table, rows: list[Row], found: list[Row]) -> tuple[list[Key], list[Row]]:
    """Return the keys to remove from the destination, then the rows to write there."""
    there = {table.key_of(row): row for row in found}
    wanted = {table.key_of(row): row for row in rows}
    gone = [key for key, row in there.items() if wanted.get(key) != row]
    return gone, [row for key, row in wanted.items() if there.get(key) != row]


def _write_page(
    tx: Tx, table: Table, wrong: tuple[list[Key], list[Row]], place: tuple[str, Key | None] | None
) -> None:
    """Write one page, and that it is written; two copies at once get into each other's way here."""
    row = tx.lock("SELECT value FROM meta WHERE key = ?", (_MARK,))
    mark = json.loads(row[0]) if row else {"state": "gone"}
    if mark["state"] != "copying":
        raise ConfigurationError(
            "another copy into the same store has ended: look at it, then begin anew"
        )
    gone, new = wrong
    for key in gone:
        table.delete(tx, key)
    for each in new:
        table.insert(tx, each)
    if place is not None:
        _set_mark(tx, {**mark, "table": place[0], "after": place[1]})


def _mark(store: Store) -> dict[str, Any] | None:
    row = store.read(lambda tx: tx.row("SELECT value FROM meta WHERE key = ?", (_MARK,)))
    return None if row is None else json.loads(row[0])


def _set_mark(tx: Tx, mark: dict[str, Any]) -> None:
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_MARK, json.dumps(mark)),
    )


def _freeze(tx: Tx, mark: dict[str, Any], reason: str, room: int = 0) -> None:
    """Let nothing start in this store, from this commit on, and write down why.

    The switch has a number that no other one has, so that it is not copied. *room* lets the
    engine's own numbers go on after those of the switches that will be copied.
    """
    tx.run("DELETE FROM switches WHERE id = -1")
    switches.throw(tx, "all", "", BY, f"this store {reason}")
    for _ in range(room):
        switches.throw(tx, "all", "", BY, "")
    tx.run("DELETE FROM switches WHERE by = ? AND reason = '' AND id > 0", (BY,))
    tx.run("UPDATE switches SET id = -1 WHERE by = ? AND id > 0 AND lifted_at IS NULL", (BY,))
    _set_mark(tx, mark)


def _thaw(tx: Tx) -> None:
    tx.run("DELETE FROM switches WHERE id = -1")
    tx.run("DELETE FROM meta WHERE key = ?", (_MARK,))


def _last_switch(tx: Tx) -> int:
    row = tx.row("SELECT max(id) FROM switches")
    return max(0, row[0] or 0) if row else 0


def _finish(tx: Tx) -> None:
    """Let calls start in the destination: it has everything."""
    row = tx.lock("SELECT value FROM meta WHERE key = ?", (_MARK,))
    mark = json.loads(row[0]) if row else {}
    tx.run("DELETE FROM switches WHERE id = -1")
    _set_mark(tx, {**mark, "state": "done", "at": tx.now, "table": "", "after": None})


def _known(source: Store, target: Store) -> dict[str, Any] | None:
    """Return what an earlier copy has left in the source; it has one record, which moves once.

    Raises:
        ConfigurationError: the record has moved to another store.
    """
    mark = _mark(source)
    if mark is None or "to" not in mark:
        return None
    stands = source.read(lambda tx: tx.row("SELECT 1 FROM switches WHERE id = -1"
                                           " AND lifted_at IS NULL"))  # fmt: skip
    if stands is None:
        return mark if mark["to"] == target.url else None
    if mark["to"] != target.url:
        raise ConfigurationError(
            f"{source.url} moves to {mark['to']}, or has: go on there; if that copy is gone for good,"
            f" first say `agentguard kill --all --lift --store {source.url}`"
        )
    return mark


def _check_target(store: Store, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return how far an earlier copy of the same source came.

    Raises:
        ConfigurationError: there is something else.
    """
    mark = _mark(store)
    if mark is not None and "from" in mark:
        if known is None or known["id"] != mark["id"]:
            raise ConfigurationError(
                f"{store.url} holds a copy of {mark['from']}, another record: name an empty store"
            )
        return mark
    full = [table.name for table in tables() if store.read(table.count)]
    if full:
        raise ConfigurationError(
            f"{store.url} holds something already ({', '.join(full)}): name an empty store"
        )
    return None


def _check_source(store: Store) -> None:
    """Refuse while somebody works there.

    Raises:
        ConfigurationError: naming who.
    """
    alive, executing = store.read(_at_work)
    if alive:
        raise ConfigurationError(
            f"{store.url} is in use by {', '.join(alive)}: stop these workers, then run the same"
            " command again"
        )
    if executing:
        raise ConfigurationError(
            f"in {store.url} the effect {executing[0]} is executing, and nothing proves its process"
            f" dead: rule with `agentguard effects resolve {executing[0]}`, then run the same command"
            " again"
        )


def _at_work(tx: Tx) -> tuple[list[str], list[str]]:
    """Return which other processes live, and what is executing."""
    owners = tx.rows("SELECT owner, host, pid FROM owners")
    alive = [f"process {pid} on {host}" for owner, host, pid in owners
             if owner != tx.owner and tx.is_alive(owner)]  # fmt: skip
    keys = tx.rows("SELECT key FROM effects WHERE state = 'executing' ORDER BY key LIMIT 1")
    return alive, [key for (key,) in keys]
