"""A tenant's log: the ends of its runs in one tree, whose root, kept elsewhere, binds all of them.

Leaves get their places in a pass of its own, so that no run waits for another one's commit.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from . import tree
from .queries import broken_link
from .runs import hash_key, leaf_of
from .sealed import reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..protocols import Tx

_PLACED = "SELECT hash FROM leaves WHERE tenant = ? AND position IS NOT NULL ORDER BY position"


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What stands for a tenant's log at one moment; keep it where the store's host cannot write.

    Attributes:
        size: how many leaves had their places.
        root: the Merkle tree hash of these (RFC 9162).
    """

    tenant: str
    size: int
    root: bytes


def place(tx: Tx, tenant: str, limit: int = 1_000) -> int:
    """Give up to *limit* leaves of a tenant their places, the next ones; return how many."""
    hash_key(tx, tenant)  # makes the row that is locked
    tx.lock("SELECT tenant FROM tenants WHERE tenant = ?", (tenant,))
    last = tx.row("SELECT max(position) FROM leaves WHERE tenant = ?", (tenant,))
    first = 0 if last is None or last[0] is None else last[0] + 1
    waiting = list(
        tx.rows(
            "SELECT run_id, seq FROM leaves WHERE tenant = ? AND position IS NULL"
            " ORDER BY run_id, seq LIMIT ?",
            (tenant, limit),
        )
    )
    for position, (run_id, seq) in enumerate(waiting, first):
        tx.run(
            "UPDATE leaves SET position = ? WHERE tenant = ? AND run_id = ? AND seq = ?",
            (position, tenant, run_id, seq),
        )
    return len(waiting)


def head(tx: Tx, tenant: str, size: int | None = None) -> TreeHead:
    """Return the head of a tenant's log, as it is or as it was with *size* leaves."""
    leaves = _leaves(tx, tenant, size)
    return TreeHead(tenant, len(leaves), tree.root(leaves))


def inclusion(tx: Tx, tenant: str, run_id: str, seq: int, size: int) -> tuple[int, list[bytes]]:
    """Return the place of a run's leaf, and the proof that it is in the log of *size* leaves.

    Raises:
        LookupError: the run has no such leaf, or it got its place later.
    """
    found = tx.row(
        "SELECT position FROM leaves WHERE tenant = ? AND run_id = ? AND seq = ?",
        (tenant, run_id, seq),
    )
    if found is None or found[0] is None or found[0] >= size:
        raise LookupError(f"event {seq} of run {run_id} is not among the first {size} of the log")
    return found[0], tree.inclusion(_leaves(tx, tenant, size), found[0])


def consistency(tx: Tx, tenant: str, size: int, grown: int) -> list[bytes]:
    """Return the proof that the log of *grown* leaves continues the one of *size*."""
    return tree.consistency(_leaves(tx, tenant, grown), size)


def _leaves(tx: Tx, tenant: str, size: int | None) -> list[bytes]:
    return [bytes(row[0]) for row in islice(tx.rows(_PLACED, (tenant,)), size)]


def contradictions(tx: Tx, tenant: str, anchor: TreeHead | None = None) -> Iterator[str]:
    """Say, one sentence each, what in a tenant's record does not fit; nothing if all of it does.

    *anchor* is a head of this tenant's log that was kept elsewhere. Without one, whoever can write
    to the store can make the whole record anew, and nobody sees it.

    Raises:
        StoreUnavailable: a row of the log cannot be read.
    """
    with reading(f"the log of {tenant}"):
        yield from _runs(tx, tenant)
        yield from _ends(tx, tenant)
        yield from _effects(tx, tenant)
    if anchor is not None:
        now = head(tx, tenant, anchor.size)
        if now.size < anchor.size:
            yield f"the log of {tenant} has {now.size} places; it had {anchor.size} before"
        elif now.root != anchor.root:
            yield f"the first {anchor.size} places of the log of {tenant} are not what they were"


def all_contradictions(tx: Tx) -> list[str]:
    """Say what does not fit in the record of any tenant."""
    tenants = [row[0] for row in tx.rows("SELECT tenant FROM tenants ORDER BY tenant")]
    return [said for tenant in tenants for said in contradictions(tx, tenant)]


def _runs(tx: Tx, tenant: str) -> Iterator[str]:
    """Check every run's chain, and that no run is without its row or without a leaf."""
    rows = {row[0] for row in tx.rows("SELECT run_id FROM runs WHERE tenant = ?", (tenant,))}
    told = _runs_in(tx, tenant, "events")
    logged = _runs_in(tx, tenant, "leaves")
    for run_id in sorted(rows | told | logged, key=str):  # a damaged one is of any type
        if broken := broken_link(tx, tenant, run_id):
            yield broken
        for kept, what in ((rows, "row"), (told, "events"), (logged, "leaf in the log")):
            if run_id not in kept:
                yield f"run {run_id} has no {what}"


def _runs_in(tx: Tx, tenant: str, table: str) -> set[str]:
    found = tx.rows(f"SELECT DISTINCT run_id FROM {table} WHERE tenant = ?", (tenant,))  # noqa: S608 - a fixed name
    return {row[0] for row in found}


def _ends(tx: Tx, tenant: str) -> Iterator[str]:
    """Hold every leaf against the event that it stands for; count the places and the ends."""
    rows = tx.rows(
        "SELECT l.run_id, l.seq, l.hash, l.position, e.hash FROM leaves l LEFT JOIN events e"
        " ON e.tenant = l.tenant AND e.run_id = l.run_id AND e.seq = l.seq"
        " WHERE l.tenant = ? ORDER BY l.position",
        (tenant,),
    )
    places = 0
    for run_id, seq, digest, position, link in rows:
        if link is None or leaf_of(run_id, seq, bytes(link)) != bytes(digest):
            yield f"event {seq} of run {run_id} is not the one in the log of {tenant}"
        if position is not None:
            if position != places:
                yield f"place {places} of the log of {tenant} is empty"
            places = position + 1
    for run_id, seq in tx.rows(
        "SELECT e.run_id, e.seq FROM events e LEFT JOIN leaves l"
        " ON l.tenant = e.tenant AND l.run_id = e.run_id AND l.seq = e.seq"
        " WHERE e.tenant = ? AND e.kind IN ('run.started', 'run.finished') AND l.seq IS NULL",
        (tenant,),
    ):
        yield f"event {seq} of run {run_id} begins or ends it and is not in the log of {tenant}"


def _effects(tx: Tx, tenant: str) -> Iterator[str]:
    """Say which effects the record tells of that have no row."""
    there = {row[0] for row in tx.rows("SELECT key FROM effects WHERE tenant = ?", (tenant,))}
    told = tx.rows(
        "SELECT run_id, data FROM events WHERE tenant = ? AND kind = 'step.started'", (tenant,)
    )
    for run_id, data in told:
        key = None
        with contextlib.suppress(TypeError, ValueError, AttributeError):  # its chain tells of that
            key = json.loads(data).get("key")
        if key is not None and key not in there:
            yield f"effect {key}, which run {run_id} started, is missing"
