"""Rows as values: what the verbs and the readers load."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable
from ..model import Effect, EffectState, dollars, moment

if TYPE_CHECKING:
    from ..protocols import Tx
    from .values import RunRef

EFFECT = (
    "key", "tenant", "tool", "effect", "scope", "state", "run_id", "step", "fence", "attempt",
    "payload_hash", "contract_version", "doubt_reason", "result_state", "result", "error",
    "approval_id", "cost", "created_at", "started_at", "finished_at", "owner", "undo", "call_id", "late",
)  # fmt: skip
SELECT_EFFECT = f"SELECT {', '.join(EFFECT)} FROM effects"  # noqa: S608 - fixed names
_ONE = f"{SELECT_EFFECT} WHERE tenant = ? AND key = ?"


def load_effect(tx: Tx, tenant: str, key: str) -> Effect | None:
    """Return the row of one effect."""
    row = tx.row(_ONE, (tenant, key))
    return None if row is None else effect_of(row)


def reload_effect(tx: Tx, tenant: str, key: str) -> Effect:
    """Return the row of an effect that this transaction has just seen.

    Raises:
        StoreUnavailable: it is gone, so the file is damaged.
    """
    found = load_effect(tx, tenant, key)
    if found is None:
        raise StoreUnavailable(f"the effect {key} vanished from the store inside a transaction")
    return found


def effect_of(row: Any) -> Effect:
    """Return the value that a row of `SELECT_EFFECT` stands for."""
    (key, tenant, tool, kind, scope, state, run_id, step, fence, attempt, payload_hash, contract, doubt,
     result_state, result, error, approval_id, cost, created, started, finished, owner, undo,
     call_id, late) = row  # fmt: skip
    return Effect(
        id=key,
        tenant=tenant,
        tool=tool,
        kind=kind,
        scope=scope,
        state=EffectState(state),
        run_id=run_id,
        step=step,
        fence=fence,
        attempt=attempt,
        payload_hash=payload_hash,
        contract_version=contract,
        doubt_reason=doubt,
        result_state=result_state,
        result=result,
        error=_json(error),
        approval_id=approval_id,
        cost_usd=dollars(cost),
        created_at=moment(created),  # type: ignore[arg-type]
        started_at=moment(started),
        finished_at=moment(finished),
        owner=owner,
        undo=undo,
        call_id=call_id,
        late=_json(late),
    )


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def load_doubt(tx: Tx, run: RunRef, key: str) -> tuple[str, str, int] | None:
    """Return key, tool and step of a write of *run* that is in doubt, other than *key*.

    Open doubts are few, the effects of a run many: the condition is worded so that the search
    uses the index of open effects (`effects_open`), and the concatenations so that it uses no other.
    """
    found: tuple[str, str, int] | None = tx.row(
        "SELECT key, tool, step FROM effects"
        " WHERE state IN ('executing', 'in_doubt', 'awaiting_approval') AND state = 'in_doubt'"
        " AND effect = 'write' AND tenant || '' = ? AND run_id || '' = ? AND key <> ? LIMIT 1",
        (run.tenant, run.run_id, key),
    )
    return found


def first_start(tx: Tx, tenant: str, key: str) -> int | None:
    """Return when a body was first started under *key*, in microseconds."""
    found = tx.row(
        "SELECT first_started_at FROM effects WHERE tenant = ? AND key = ?", (tenant, key)
    )
    return found[0] if found else None
