"""What runs spent, for those who add it up: their rows and the facts of their events, no contents."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..model import Event
from .autonomy import OPERATIONS
from .sealed import reading

if TYPE_CHECKING:
    from ..protocols import Tx


@dataclass(frozen=True, slots=True)
class SpentRun:
    """A run with its events, which have no contents here; amounts in nano-dollars."""

    tenant: str
    run_id: str
    workflow: str
    status: str
    started_at: int
    spent: int
    held: int
    cost_complete: bool
    events: tuple[Event, ...]


def workflows(tx: Tx, tenant: str | None, since: int | None) -> list[tuple[str, str]]:
    """Return which workflows had runs, by tenant; operators' own records are none."""
    tenants = [tenant] if tenant else [t for (t,) in tx.rows("SELECT tenant FROM tenants")]
    found = [
        (owner, name)
        for owner in tenants
        for (name,) in tx.rows(
            "SELECT DISTINCT workflow FROM runs WHERE tenant = ? AND started_at >= ?"
            " AND run_id <> ?",
            (owner, since or 0, OPERATIONS),
        )
    ]
    return sorted(found)


def runs_of(tx: Tx, tenant: str, workflow: str, since: int | None, last: int | None) -> list[str]:
    """Return the ids of a workflow's runs, newest first."""
    rows = tx.rows(
        "SELECT run_id FROM runs WHERE tenant = ? AND workflow = ? AND started_at >= ?"
        " AND run_id <> ? ORDER BY started_at DESC LIMIT ?",
        (tenant, workflow, since or 0, OPERATIONS, last or 2**31),
    )
    return [run_id for (run_id,) in rows]


def spent_run(tx: Tx, tenant: str, run_id: str) -> SpentRun:
    """Return one run as it stands.

    Raises:
        ConfigurationError: there is no such run.
        StoreUnavailable: its record is not as it was written.
    """
    row = tx.row(
        "SELECT workflow, status, started_at, spent, held, cost_complete FROM runs"
        " WHERE tenant = ? AND run_id = ?",
        (tenant, run_id),
    )
    if row is None:
        raise ConfigurationError(f"run {run_id!r} is not in this store")
    workflow, status, started_at, spent, held, complete = row
    with reading(f"the record of run {run_id}"):
        events = tuple(_event(run_id, *found) for found in tx.rows(_EVENTS, (tenant, run_id)))
    return SpentRun(
        tenant, run_id, workflow, status, started_at, spent, held, bool(complete), events
    )


_EVENTS = (
    "SELECT seq, at, step, kind, actor, data FROM events"
    " WHERE tenant = ? AND run_id = ? ORDER BY seq"
)


def _event(
    run_id: str, seq: int, at: int, step: int | None, kind: str, actor: str, data: str
) -> Event:
    when = dt.datetime.fromtimestamp(at / 1_000_000, dt.UTC)
    return Event(run_id, seq, when, step, kind, actor, json.loads(data), None, "", "")
