"""Readers of the ledger: lists and single values for people and programs. Nothing is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable
from ..model import Approval, Effect, Ending, Event, Limits, RunInfo, dollars, moment
from . import approvals, endings
from .lifecycle import limit_of
from .rows import SELECT as SELECT_EFFECT
from .rows import EffectRow, load_effect
from .runs import SELECT_SEALED, commitment, link
from .sealed import check_seal, reading
from .values import RunRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..protocols import Tx

_RUN = (
    "run_id", "tenant", "workflow", "status", "part", "agent", "subject", "started_at",
    "updated_at", "finished_at", "steps", "model_calls", "tool_calls", "spent", "held",
    "input_tokens", "output_tokens", "limits", "policy_version", "error", "cost_complete",
    "ending",
)  # fmt: skip
_EVERYBODY = "tenant IN (SELECT tenant FROM tenants)"
"""The tenant leads every key: with this a search goes by the keys, without it through all rows."""
_LAST = "\U0010ffff"
"""Sorts behind whatever a name may go on with."""
_SELECT_RUN = f"SELECT {', '.join(_RUN)} FROM runs"  # noqa: S608 - fixed names


def runs(tx: Tx, tenant: str | None, limit: int, status: str | None = None) -> list[RunInfo]:
    """Return the newest runs first."""
    where, values = _where(("tenant", tenant), ("status", status))
    rows = tx.rows(f"{_SELECT_RUN}{where} ORDER BY started_at DESC LIMIT ?", (*values, limit))
    return [_run_of(tx, row) for row in list(rows)]


def run(tx: Tx, tenant: str | None, run_id: str) -> list[RunInfo]:
    """Return the runs whose id is *run_id* or, if there is none, begins with it."""
    return [_run_of(tx, row) for row in _named(tx, _SELECT_RUN, "run_id", tenant, run_id)]


def _where(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    """Return the condition and its values; without a tenant all are meant, each by its index."""
    chosen = [(name, value) for name, value in conditions if value is not None]
    named = [f"{name} = ?" for name, _ in chosen]
    everybody = [] if any(name == "tenant" for name, _ in chosen) else [_EVERYBODY]
    return f" WHERE {' AND '.join([*everybody, *named])}", [value for _, value in chosen]


def _named(tx: Tx, select: str, column: str, tenant: str | None, name: str) -> Sequence[Any]:
    """Rows named exactly, else those whose name begins so: people type beginnings."""
    where, values = _where(("tenant", tenant), (column, name))
    exact = list(tx.rows(select + where, values))
    if exact or not name:
        return exact
    where, values = _where(("tenant", tenant))
    return list(tx.rows(f"{select}{where} AND {column} >= ? AND {column} < ? LIMIT 10",
                        (*values, name, name + _LAST)))  # fmt: skip


def _run_of(tx: Tx, row: Any) -> RunInfo:
    with reading(f"run {row[0]}"):
        return _run(tx, dict(zip(_RUN, row, strict=True)))


def _run(tx: Tx, found: dict[str, Any]) -> RunInfo:
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
        ending=_ending(tx, found),
    )


def _ending(tx: Tx, found: dict[str, Any]) -> Ending | None:
    if found["ending"] is None:
        return None
    ref = RunRef(found["tenant"], found["run_id"], "")
    return endings.read_ending(tx, ref, json.loads(found["ending"]))


def _time(micros: int) -> Any:
    return moment(micros)


def events(tx: Tx, tenant: str, run_id: str, after: int = 0) -> list[Event]:
    """Return a run's chain in order, with the contents that are still kept."""
    with reading(f"the record of run {run_id}"):
        return list(_events(tx, RunRef(tenant, run_id, ""), after))


def _events(tx: Tx, ref: RunRef, after: int) -> Iterator[Event]:
    rows = tx.rows(
        "SELECT seq, at, step, kind, actor, data, hash, body FROM events"
        " WHERE tenant = ? AND run_id = ? AND seq >= ? ORDER BY seq",
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
    try:
        return _broken_link(tx, tenant, run_id)
    except (TypeError, ValueError, AttributeError):  # a damaged value can be of another type
        return f"an event of run {run_id} cannot be read any more"


def _broken_link(tx: Tx, tenant: str, run_id: str) -> str | None:
    ref, prev, count = RunRef(tenant, run_id, ""), bytes(32), 0
    rows = tx.rows(
        "SELECT seq, at, step, kind, actor, data, hash, salt, body FROM events"
        " WHERE tenant = ? AND run_id = ? ORDER BY seq",
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


def damaged(tx: Tx) -> list[str]:
    """Return one sentence for every row that carries a seal and is not as it was written."""
    checks: tuple[tuple[str, Callable[[Any], object]], ...] = (
        (SELECT_EFFECT, EffectRow.of),
        (SELECT_SEALED, lambda row: check_seal(f"run {row[1]}", row[:-1], row[-1])),
        (approvals.SELECT, lambda row: approvals.from_row(tx, row)),
        (approvals.SELECT_VOTES, approvals.check_vote),
    )
    found: list[str] = []
    for select, check in checks:
        for row in list(tx.rows(select)):
            try:
                check(row)
            except StoreUnavailable as error:
                found.append(error.message)
    return found


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
    if run_id is not None:
        return _effects_of(tx, tenant, state, run_id)[:limit]
    where, values = _where(("tenant", tenant), ("state", state))
    rows = tx.rows(f"{SELECT_EFFECT}{where} ORDER BY created_at DESC LIMIT ?", (*values, limit))
    return [EffectRow.of(row).public() for row in rows]


def _effects_of(tx: Tx, tenant: str | None, state: str | None, run_id: str) -> list[Effect]:
    """Find a run's effects by its events, so that no start pays for an index of them."""
    where, values = _where(("tenant", tenant), ("run_id", run_id))
    select = f"SELECT tenant, data FROM events{where} AND step IS NOT NULL"  # noqa: S608
    rows = tx.rows(select, values)
    keys = {(owner, json.loads(data).get("key")) for owner, data in rows}
    found = [load_effect(tx, owner, key) for owner, key in keys if key is not None]
    chosen = [r for r in found if r and r.run_id == run_id and state in (None, r.state)]
    return [row.public() for row in sorted(chosen, key=lambda row: row.created_at, reverse=True)]


def effect(tx: Tx, tenant: str | None, name: str) -> list[Effect]:
    """Return the effects whose id is *name* or begins with it."""
    return [EffectRow.of(row).public() for row in _named(tx, SELECT_EFFECT, "key", tenant, name)]


def counts(tx: Tx) -> dict[str, int]:
    """Return how many rows each table has, and how many effects are in doubt or waiting."""
    tables = ("runs", "events", "effects", "approvals", "budgets", "leaves")
    found = {name: tx.row(f"SELECT count(*) FROM {name}")[0] for name in tables}  # type: ignore[index]  # noqa: S608
    kept = tx.row("SELECT count(*) FROM events WHERE body IS NOT NULL")
    found["contents"] = kept[0] if kept else 0
    for state in ("in_doubt", "awaiting_approval", "executing"):
        row = tx.row("SELECT count(*) FROM effects WHERE state = ?", (state,))
        found[state] = row[0] if row else 0
    return found


def tally(tx: Tx, tenant: str, run_id: str) -> dict[str, int]:
    """Return how many effects of a run were written, started again, wait or are in doubt."""
    found = _effects_of(tx, tenant, None, run_id)
    return {
        "writes": sum(e.kind == "write" and e.state == "succeeded" for e in found),
        "retries": sum(max(e.fence - 1, 0) for e in found),
        "waiting": sum(e.state == "awaiting_approval" for e in found),
        "in_doubt": sum(e.state == "in_doubt" for e in found),
    }
