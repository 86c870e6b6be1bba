"""The effect's row: read whole, written whole, and sealed, so that a damaged one is never believed."""

from __future__ import annotations

import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..canonical import seal
from ..errors import StoreUnavailable
from ..model import Effect, EffectState, dollars, moment
from ..protocols import Asked
from .runs import asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..protocols import Tx
    from .values import RunRef

COLUMNS = (
    "tenant", "key", "tool", "scope", "effect", "state", "payload_hash", "contract_version",
    "run_id", "step", "call_id", "fence", "attempt", "generation", "approval_id", "owner",
    "claim_id", "lease_until", "first_started_at", "created_at", "started_at", "finished_at",
    "reserved", "cost", "result", "result_state", "error", "doubt_reason", "late", "undo",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)}, seal FROM effects"  # noqa: S608 - fixed names
_ONE = f"{SELECT} WHERE tenant = ? AND key = ?"
_DOUBT = (
    "SELECT key, tool, step FROM effects"
    " WHERE state IN ('executing', 'in_doubt', 'awaiting_approval') AND state = 'in_doubt'"
    " AND effect = 'write' AND tenant || '' = ? AND run_id || '' = ? AND key <> ? LIMIT 1"
)
"""Open doubts are few, the effects of a run many: the condition is worded so that the search uses
the index of open effects (`effects_open`), and the concatenations so that it uses no other."""
_BESIDE = (
    f"SELECT * FROM ({SELECT} WHERE (tenant, key) < (?1, ?2) ORDER BY tenant DESC, key DESC LIMIT 1)"  # noqa: S608 - fixed names
    f" UNION ALL SELECT * FROM ({SELECT} WHERE (tenant, key) > (?1, ?2) ORDER BY tenant, key LIMIT 1)"
)
_INSERT = (
    f"INSERT INTO effects ({', '.join(COLUMNS)}, seal)"  # noqa: S608 - fixed names
    f" VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
)
_UPDATE = (
    f"UPDATE effects SET {', '.join(f'{name} = ?' for name in COLUMNS[2:])}, seal = ?"  # noqa: S608
    " WHERE tenant = ? AND key = ?"
)


class EffectRow:
    """One row of `effects`: changed here, then written by `insert` or `update`."""

    __slots__ = COLUMNS

    tenant: str
    key: str
    tool: str
    scope: str
    effect: str
    state: EffectState
    payload_hash: str
    contract_version: str
    run_id: str
    step: int
    call_id: str | None
    fence: int
    attempt: int
    generation: int
    approval_id: str | None
    owner: str | None
    claim_id: str | None
    lease_until: int | None
    first_started_at: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    reserved: str
    cost: int
    result: str | None
    result_state: str | None
    error: str | None
    doubt_reason: str | None
    late: str | None
    undo: str | None

    @classmethod
    def new(cls, tenant: str, key: str, created_at: int) -> EffectRow:
        """Return a row in which nothing is said yet but whose it is."""
        row = cls()
        for name in COLUMNS:
            setattr(row, name, None)
        row.tenant, row.key, row.created_at = tenant, key, created_at
        row.fence = row.attempt = row.generation = row.cost = 0
        row.reserved = "[]"
        return row

    @classmethod
    def of(cls, found: Any) -> EffectRow:
        """Return what a row of `SELECT` says.

        Raises:
            StoreUnavailable: it is not as it was written.
        """
        row = cls()
        *values, sealed = found
        _check_seal(values, sealed)
        for name, value in zip(COLUMNS, values, strict=True):
            setattr(row, name, value)
        row.state = EffectState(row.state)
        return row

    def insert(self, tx: Tx) -> None:
        """Write the row of a key that is free; if it is not any more, the store begins anew."""
        values = _VALUES(self)
        tx.run(_INSERT, (*values, seal(*values)))

    def update(self, tx: Tx) -> None:
        """Write the row that this transaction has locked."""
        values = _VALUES(self)
        tx.run(_UPDATE, (*values[2:], seal(*values), self.tenant, self.key))

    def public(self) -> Effect:
        """Return the row as users see it."""
        return Effect(
            id=self.key,
            tenant=self.tenant,
            tool=self.tool,
            kind=self.effect,
            scope=self.scope,
            state=self.state,
            run_id=self.run_id,
            step=self.step,
            fence=self.fence,
            attempt=self.attempt,
            payload_hash=self.payload_hash,
            contract_version=self.contract_version,
            doubt_reason=self.doubt_reason,
            result_state=self.result_state,
            result=self.result,
            error=_json(self.error),
            approval_id=self.approval_id,
            cost_usd=dollars(self.cost),
            created_at=moment(self.created_at),  # type: ignore[arg-type]
            started_at=moment(self.started_at),
            finished_at=moment(self.finished_at),
            owner=self.owner,
            undo=self.undo,
            call_id=self.call_id,
            late=_json(self.late),
        )


_VALUES = attrgetter(*COLUMNS)


def _check_seal(values: Sequence[Any], sealed: bytes | None) -> None:
    if sealed is None or seal(*values) != bytes(sealed):
        raise StoreUnavailable(
            f"the row of effect {values[1]} is not as it was written: the store is damaged, and"
            " nothing was started; see agentguard doctor"
        )


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def load_effect(tx: Tx, tenant: str, key: str) -> EffectRow | None:
    """Return the row of one effect, to be looked at."""
    found = tx.row(_ONE, (tenant, key))
    return None if found is None else EffectRow.of(found)


def effect_asked(tenant: str, key: str) -> Asked:
    """Return the question of `lock_effect`."""
    return Asked("lock", _ONE, (tenant, key), early=True)


def doubt_asked(run: RunRef, key: str) -> Asked:
    """Return the question of `load_doubt`."""
    values = (run.tenant, run.run_id, key)
    return Asked("row", _DOUBT, values, early=True, under=asked(run))


def lock_effect(tx: Tx, tenant: str, key: str) -> EffectRow | None:
    """Return the row of one effect, to be changed; its run's row was locked before it."""
    found = tx.lock(*effect_asked(tenant, key)[1:3])
    return None if found is None else EffectRow.of(found)


def check_free(tx: Tx, tenant: str, key: str) -> None:
    """Make sure that a key without a row has none.

    A row whose key has changed on the disk is not found by it any more; but it still stands where
    it stood, beside the place where the key is looked for, and its seal tells.

    Raises:
        StoreUnavailable: a row beside that place is not as it was written.
    """
    if tx.one_file:
        for *values, sealed in tx.rows(_BESIDE, (tenant, key)):
            _check_seal(values, sealed)


def load_doubt(tx: Tx, run: RunRef, key: str) -> tuple[str, str, int] | None:
    """Return key, tool and step of a write of *run* that is in doubt, other than *key*."""
    found: tuple[str, str, int] | None = tx.row(*doubt_asked(run, key)[1:3])
    return found
