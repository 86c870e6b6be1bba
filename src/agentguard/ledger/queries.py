"""Readers of the ledger: lists and single values for people and programs. Nothing is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..model import Approval, Effect, Event, Limits, RunInfo, dollars, moment
from . import approvals
from .rows import SELECT_EFFECT, effect_of
from .runs import commitment, limit_of, link
from .values import RunRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..protocols import Tx

_RUN = (
    "run_id", "tenant", "workflow", "status", "part", "agent", "subject", "started_at",
    "updated_at", "finished_at", "steps", "model_calls", "tool_calls", "spent", "held",
    "input_tokens", "output_tokens", "limits", "policy_version", "error", "cost_complete",
)  # fmt: skip
_SELECT_RUN = f"SELECT {', '.join(_RUN)} FROM runs"  # noqa: S608 - fixed names


def runs(tx: Tx, tenant: str | None, limit: int, status: str | None = None) -> list[RunInfo]:
    """Return the newest runs first."""
    where, values = _where(("tenant", tenant), ("status", status))
    rows = tx.rows(f"{_SELECT_RUN}{where} ORDER BY started_at DESC LIMIT ?", (*values, limit))
    return [_run_of(row) for row in rows]


def run(tx: Tx, tenant: str | None, run_id: str) -> list[RunInfo]:
    """Return the runs whose id is *run_id* or, if there is none, begins with it."""
    return [_run_of(row) for row in _named(tx, _SELECT_RUN, "run_id", tenant, run_id)]


def _where(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    chosen = [(name, value) for name, value in conditions if value is not None]
    clause = " AND ".join(f"{name} = ?" for name, _ in chosen)
    return (f" WHERE {clause}" if clause else ""), [value for _, value in chosen]


def _named(tx: Tx, select: str, column: str, tenant: str | None, name: str) -> Sequence[Any]:
    """Rows named exactly, else those whose name begins so: people type beginnings."""
    where, values = _where(("tenant", tenant), (column, name))
    exact = list(tx.rows(select + where, values))
    if exact or not name:
        return exact
    where, values = _where(("tenant", tenant))
    escaped = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    clause = f"{where} AND" if where else " WHERE"
    return list(tx.rows(f"{select}{clause} {column} LIKE ? ESCAPE '\\' LIMIT 10",
                        (*values, escaped + "%")))  # fmt: skip


def _run_of(row: Any) -> RunInfo:
    found = dict(zip(_RUN, row, strict=True))
    kept = json.loads(found["limits"])
    limits = Limits(**{name: limit_of(kept, name) for name in Limits.__dataclass_fields__})
    return RunInfo(
        id=found["run_id"],
        tenant=found["tenant"],
        workflow=found["workflow"],
        status=found["status"],
        part=found["part"],
        agent=found["agent"],
        on_behalf_of=found["subject"],
        started_at=_time(found["started_at"]),
        updated_at=_time(found["updated_at"]),
        finished_at=moment(found["finished_at"]),
        steps=found["steps"],
        model_calls=found["model_calls"],
        tool_calls=found["tool_calls"],
        spent_usd=dollars(found["spent"]),
        held_usd=dollars(found["held"]),
        input_tokens=found["input_tokens"],
        output_tokens=found["output_tokens"],
        limits=limits,
        policy_version=found["policy_version"],
        error=found["error"],
        cost_complete=bool(found["cost_complete"]),
    )


def _time(micros: int) -> Any:
    return moment(micros)


def events(tx: Tx, tenant: str, run_id: str, after: int = 0) -> list[Event]:
    """Return a run's chain in order, with the contents that are still kept."""
    return list(_events(tx, RunRef(tenant, run_id, ""), after))


def _events(tx: Tx, ref: RunRef, after: int) -> Iterator[Event]:
    rows = tx.rows(
        "SELECT e.seq, e.at, e.step, e.kind, e.actor, e.data, e.hash, c.body FROM events e"
        " LEFT JOIN contents c ON c.tenant = e.tenant AND c.run_id = e.run_id AND c.seq = e.seq"
        " WHERE e.tenant = ? AND e.run_id = ? AND e.seq >= ? ORDER BY e.seq",
        (ref.tenant, ref.run_id, after),
    )
    prev = bytes(32).hex()
    for seq, at, step, kind, actor, data, digest, body in rows:
        if seq > after:
            yield Event(
                run_id=ref.run_id, seq=seq, at=_time(at), step=step, kind=kind, actor=actor,
                data=json.loads(data), content=None if body is None else json.loads(body),
                prev=prev, hash=digest.hex(),
            )  # fmt: skip
        prev = digest.hex()


def broken_link(tx: Tx, tenant: str, run_id: str) -> str | None:
    """Return one sentence on the first event that does not fit the chain, or None."""
    ref, prev, count = RunRef(tenant, run_id, ""), bytes(32), 0
    rows = tx.rows(
        "SELECT e.seq, e.at, e.step, e.kind, e.actor, e.data, e.hash, c.salt, c.body FROM events e"
        " LEFT JOIN contents c ON c.tenant = e.tenant AND c.run_id = e.run_id AND c.seq = e.seq"
        " WHERE e.tenant = ? AND e.run_id = ? ORDER BY e.seq",
        (tenant, run_id),
    )
    for seq, at, step, kind, actor, data, digest, salt, body in rows:
        count += 1
        if seq != count:
            return f"event {count} of run {run_id} is missing"
        if link(ref, seq, at, step, kind, actor, data, prev) != digest:
            return f"event {seq} of run {run_id} was changed after it was written"
        if body is not None and commitment(salt, body) != json.loads(data).get("content"):
            return f"the content of event {seq} of run {run_id} was changed after it was written"
        prev = digest
    head = tx.row("SELECT head_seq, head_hash FROM runs WHERE tenant = ? AND run_id = ?",
                  (tenant, run_id))  # fmt: skip
    if head is not None and (head[0], head[1]) != (count, prev):
        return f"run {run_id} has {head[0]} events on record but {count} are there"
    return None


def waiting(tx: Tx, tenant: str | None, status: str | None, limit: int) -> list[Approval]:
    """Return approvals, oldest first; those whose time is over count as expired."""
    stored = None if status == "expired" else status
    where, values = _where(("tenant", tenant), ("status", stored))
    rows = list(tx.rows(f"{approvals.SELECT}{where} ORDER BY created_at LIMIT ?",
                        (*values, limit if status is None else 100_000)))  # fmt: skip
    found = [approvals.from_row(tx, row) for row in rows]
    return [a for a in found if status in (None, a.status)][:limit]


def approval(tx: Tx, tenant: str | None, name: str) -> list[Approval]:
    """Return the approvals whose id is *name* or begins with it."""
    rows = _named(tx, approvals.SELECT, "approval_id", tenant, name)
    return [approvals.from_row(tx, row) for row in rows]


def effects(
    tx: Tx, tenant: str | None, state: str | None, run_id: str | None, limit: int
) -> list[Effect]:
    """Return effects, newest first."""
    where, values = _where(("tenant", tenant), ("state", state), ("run_id", run_id))
    rows = tx.rows(f"{SELECT_EFFECT}{where} ORDER BY created_at DESC LIMIT ?", (*values, limit))
    return [effect_of(row) for row in rows]


def effect(tx: Tx, tenant: str | None, name: str) -> list[Effect]:
    """Return the effects whose id is *name* or begins with it."""
    return [effect_of(row) for row in _named(tx, SELECT_EFFECT, "key", tenant, name)]


def counts(tx: Tx) -> dict[str, int]:
    """Return how many rows each table has, and how many effects are in doubt or waiting."""
    tables = ("runs", "events", "effects", "approvals", "budgets", "leaves", "contents")
    found = {name: tx.row(f"SELECT count(*) FROM {name}")[0] for name in tables}  # type: ignore[index]  # noqa: S608
    for state in ("in_doubt", "awaiting_approval", "executing"):
        row = tx.row("SELECT count(*) FROM effects WHERE state = ?", (state,))
        found[state] = row[0] if row else 0
    return found


def tally(tx: Tx, tenant: str, run_id: str) -> dict[str, int]:
    """Return how many effects of a run were written, started again, wait or are in doubt."""
    row = tx.row(
        "SELECT coalesce(sum(effect = 'write' AND state = 'succeeded'), 0),"
        " coalesce(sum(max(fence - 1, 0)), 0), coalesce(sum(state = 'awaiting_approval'), 0),"
        " coalesce(sum(state = 'in_doubt'), 0) FROM effects WHERE tenant = ? AND run_id = ?",
        (tenant, run_id),
    )
    return dict(zip(("writes", "retries", "waiting", "in_doubt"), row or (0,) * 4, strict=True))
