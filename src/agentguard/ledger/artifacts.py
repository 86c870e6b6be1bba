"""Artifacts that were made once: kept under a hash of what they were made of, and counted.

Rows are sealed. One that is not as it was written is never believed: it counts as not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..canonical import seal
from ..model import moment
from .runs import hash_key

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from ..protocols import Tx

_VALUES = "value, cost, made_at, expires_at, run_id"
_ONE = "tenant = ? AND kind = ? AND version = ? AND digest = ?"
_SELECT = f"SELECT {_VALUES}, seal FROM artifacts WHERE {_ONE}"  # noqa: S608 - fixed names
_INSERT = (
    f"INSERT INTO artifacts (tenant, kind, version, digest, {_VALUES}, seal)"  # noqa: S608 - fixed
    " VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING"
)
_UPDATE = (
    "UPDATE artifacts SET value = ?, cost = ?, made_at = ?, expires_at = ?, run_id = ?, seal = ?"  # noqa: S608
    f" WHERE {_ONE}"
)
_COUNT = (
    "INSERT INTO artifact_counts (tenant, kind, version, hits, misses, saved) VALUES (?,?,?,?,?,?)"
    " ON CONFLICT (tenant, kind, version) DO UPDATE SET hits = artifact_counts.hits + excluded.hits,"
    " misses = artifact_counts.misses + excluded.misses,"
    " saved = artifact_counts.saved + excluded.saved"
)

Name = tuple[str, str, str, str]
"""Tenant, kind, version, and the hash of what it was made of."""
Group = tuple[str, str, str]
"""Tenant, kind and version: what is counted together."""
Counts = tuple[int, int, int]
"""Hits, misses, and nano-dollars saved."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An artifact as it is kept, or the fact that its row is damaged.

    Attributes:
        value: what `codec.encode` made of it; None of a damaged row.
        cost: nano-dollars that making it took, if that is known.
    """

    value: str | None
    cost: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that was made and shall be kept for *ttl_us*, or for ever."""

    name: Name
    value: str
    cost: int | None
    ttl_us: int | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is known of an artifact without its value.

    Attributes:
        size: of its value, in bytes.
        cost: nano-dollars that making it took, if that is known.
        run_id: the run that made it.
        intact: its row is as it was written.
    """

    tenant: str
    kind: str
    version: str
    digest: str
    size: int
    cost: int | None
    made_at: dt.datetime | None
    expires_at: dt.datetime | None
    run_id: str | None
    intact: bool


def look(tx: Tx, name: Name) -> Kept | None:
    """Return the artifact of that name, if it is there and has not expired."""
    return _believed(tx, name, tx.row(_SELECT, name))


def _believed(tx: Tx, name: Name, row: Any) -> Kept | None:
    if row is None:
        return None
    *values, sealed = row
    if not _is_intact(name, values, sealed):
        return Kept(None)
    value, cost, _made, expires, _run = values
    return None if expires is not None and expires <= tx.now else Kept(value, cost)


def _is_intact(name: Sequence[str], values: Sequence[Any], sealed: Any) -> bool:
    return isinstance(sealed, bytes | memoryview) and seal(*name, *values) == bytes(sealed)


def keep(tx: Tx, made: Made, counted: Mapping[Group, Counts]) -> Kept:
    """Keep an artifact unless somebody was faster; return what is kept, which everybody gets.

    What was counted meanwhile is written with it.
    """
    expires = None if made.ttl_us is None else tx.now + made.ttl_us
    values = (made.value, made.cost, tx.now, expires, made.run_id)
    sealed = seal(*made.name, *values)
    kept = Kept(made.value, made.cost)
    if not tx.changed(_INSERT, (*made.name, *values, sealed)):
        first = _believed(tx, made.name, tx.lock(_SELECT, made.name))
        if first is not None and first.value is not None:
            kept = first
        else:
            tx.run(_UPDATE, (*values, sealed, *made.name))
    count(tx, counted)
    return kept


def count(tx: Tx, counted: Mapping[Group, Counts]) -> None:
    """Add to the counts; always in the same order, so that nobody waits in a circle."""
    for group, counts in sorted(counted.items()):
        tx.run(_COUNT, (*group, *counts))


def key_of(tx: Tx, tenant: str) -> bytes:
    """Return the tenant's secret for hashes."""
    return hash_key(tx, tenant)


def rates(tx: Tx, tenant: str | None) -> list[tuple[Group, Counts]]:
    """Return what was counted, by tenant, kind and version."""
    where, values = _where(tenant=tenant)
    rows = tx.rows(
        f"SELECT tenant, kind, version, hits, misses, saved FROM artifact_counts{where}"  # noqa: S608
        " ORDER BY tenant, kind, version",
        values,
    )
    return [
        ((t, kind, version), (hits, misses, saved))
        for t, kind, version, hits, misses, saved in rows
    ]


def listed(tx: Tx, tenant: str | None, kind: str | None, limit: int) -> list[Artifact]:
    """Return artifacts, the newest first."""
    where, values = _where(tenant=tenant, kind=kind)
    rows = tx.rows(
        f"SELECT tenant, kind, version, digest, {_VALUES}, seal FROM artifacts{where}"  # noqa: S608
        " ORDER BY made_at DESC, digest LIMIT ?",
        (*values, limit),
    )
    return [_artifact(row) for row in rows]


def _artifact(row: Sequence[Any]) -> Artifact:
    *name, value, cost, made, expires, run_id, sealed = row
    intact = _is_intact(name, (value, cost, made, expires, run_id), sealed)
    tenant, kind, version, digest = name
    return Artifact(
        tenant, kind, version, digest, len(value.encode()), cost, moment(made), moment(expires),
        run_id, intact,
    )  # fmt: skip


def old(tx: Tx, wish: Wish) -> int:
    """Return how many artifacts `prune` would remove."""
    where, values = wish.where(tx)
    row = tx.row(f"SELECT count(*) FROM artifacts{where}", values)  # noqa: S608 - fixed names
    return int(row[0]) if row else 0


def prune(tx: Tx, wish: Wish) -> int:
    """Remove artifacts, and return how many; what was counted stays."""
    where, values = wish.where(tx)
    return tx.changed(f"DELETE FROM artifacts{where}", values)  # noqa: S608 - fixed names


@dataclass(frozen=True, slots=True)
class Wish:
    """Which artifacts shall go.

    Attributes:
        age_us: older ones than this.
        expired: only those whose time is over.
    """

    tenant: str | None = None
    kind: str | None = None
    version: str | None = None
    age_us: int | None = None
    expired: bool = False

    def where(self, tx: Tx) -> tuple[str, list[Any]]:
        """Return the condition and its values."""
        text, values = _where(tenant=self.tenant, kind=self.kind, version=self.version)
        parts = [text.removeprefix(" WHERE ")] if text else []
        if self.age_us is not None:
            parts.append("made_at < ?")
            values.append(tx.now - self.age_us)
        if self.expired:
            parts.append("expires_at <= ?")
            values.append(tx.now)
        return (f" WHERE {' AND '.join(parts)}" if parts else ""), values


def _where(**given: str | None) -> tuple[str, list[Any]]:
    found = {name: value for name, value in given.items() if value is not None}
    text = " AND ".join(f"{name} = ?" for name in found)
    return (f" WHERE {text}" if text else ""), list(found.values())
