"""The effect's row: read whole, written whole, and sealed, so that a damaged one is never believed."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..canonical import seal, seal_of
from ..model import Effect, EffectState, dollars, moment
from ..protocols import Asked
from .runs import lock_asked
from .sealed import check_seal, write_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..protocols import Tx
    from .values import Intent, RunRef

COLUMNS = (
    "tenant", "key", "tool", "scope", "effect", "state", "payload_hash", "contract_version",
    "run_id", "step", "call_id", "fence", "attempt", "generation", "approval_id", "owner",
    "claim_id", "lease_until", "first_started_at", "created_at", "started_at", "finished_at",
    "reserved", "cost", "result", "result_state", "error", "doubt_reason", "late", "undo",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)}, seal FROM effects"  # noqa: S608 - fixed names
_ONE = f"{SELECT} WHERE tenant = ? AND key = ?"
_SEAL = "SELECT seal FROM effects WHERE tenant = ? AND key = ?"
_DOUBT = (
    "SELECT key, tool, step FROM effects"
    " WHERE state = 'in_doubt' AND effect = 'write'"
    " AND tenant || '' = ? AND run_id || '' = ? AND key <> ? LIMIT 1"
)
"""Open doubts are few, the effects of a run many: with the concatenations the search can use no
index but that of open effects (`effects_open`)."""


def _beside(columns: str) -> str:
    one = f"SELECT {columns}, seal FROM effects WHERE (tenant, key)"  # noqa: S608 - fixed names
    before = f"{one} < (?1, ?2) ORDER BY tenant DESC, key DESC LIMIT 1"
    after = f"{one} > (?1, ?2) ORDER BY tenant, key LIMIT 1"
    return f"SELECT * FROM ({before}) UNION ALL SELECT * FROM ({after})"  # noqa: S608 - fixed names


_BESIDE, _BESIDE_AS_JSON = (
    _beside(text.format(", ".join(COLUMNS))) for text in ("{}", "json_array({})")
)
_VALUES = attrgetter(*COLUMNS)
_STATES = {state.value: state for state in EffectState}


@dataclass(slots=True, eq=False)
class EffectRow:
    """One row of `effects`: changed here, then written by `insert` or `update`."""

    tenant: str
    key: str
    tool: str = ""
    scope: str = ""
    effect: str = ""
    state: EffectState = EffectState.EXECUTING
    payload_hash: str = ""
    contract_version: str = ""
    run_id: str = ""
    step: int = 0
    call_id: str | None = None
    fence: int = 0
    attempt: int = 0
    generation: int = 0
    approval_id: str | None = None
    owner: str | None = None
    claim_id: str | None = None
    lease_until: int | None = None
    first_started_at: int | None = None
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    reserved: str = "[]"
    cost: int = 0
    result: str | None = None
    result_state: str | None = None
    error: str | None = None
    doubt_reason: str | None = None
    late: str | None = None
    undo: str | None = None
    was: Sequence[Any] = ()
    sealed: bytes = b""

    @classmethod
    def of(cls, found: Any) -> EffectRow:
        """Return what a row of `SELECT` says.

        Raises:
            StoreUnavailable: it is not as it was written.
        """
        values = found[:-1]
        check_seal(f"effect {values[1]}", values, found[-1])
        return cls.known(values, bytes(found[-1]))

    @classmethod
    def known(cls, values: Sequence[Any], sealed: bytes) -> EffectRow:
        """Return the row that is known to stand under a seal."""
        row = cls(*values)
        row.state, row.was, row.sealed = _STATES[row.state], values, sealed
        return row

    def take(self, intent: Intent, run_id: str, step: int) -> None:
        """Say which call it belongs to now."""
        self.tool, self.scope, self.effect = intent.tool, intent.scope, intent.effect
        self.undo, self.call_id = intent.undo, intent.call_id
        self.payload_hash, self.contract_version = intent.payload_hash, intent.contract_version
        self.run_id, self.step = run_id, step

    def insert(self, tx: Tx) -> None:
        """Write the row of a key that is free; if it is not any more, the store begins anew."""
        self.was = values = _VALUES(self)
        self.sealed = seal(*values)
        given = [i for i, value in enumerate(values) if value is not None]
        sql = _insert(tuple([COLUMNS[i] for i in given]))
        tx.run(sql, [*[values[i] for i in given], self.sealed])

    def update(self, tx: Tx) -> None:
        """Write the row that this transaction has locked."""
        values = _VALUES(self)
        sealed = write_changes(tx, "effects", COLUMNS, self.was, values)
        if sealed is not None:
            self.was, self.sealed = values, sealed

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


@functools.lru_cache(maxsize=64)
def _insert(names: tuple[str, ...]) -> str:
    marks = ", ".join("?" * (len(names) + 1))
    return f"INSERT INTO effects ({', '.join(names)}, seal) VALUES ({marks})"  # noqa: S608 - fixed names


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def is_same_call(
    row: EffectRow | Effect, run_id: str, call_id: str | None, *, first: bool
) -> bool:  # fmt: skip
    """Return whether this is the call that took the effect's step, delivered once more.

    Args:
        row: the effect.
        run_id: the run of the call.
        call_id: the runtime's id of it, if there is one.
        first: the key comes for the first time in this part of the run.
    """
    if row.run_id != run_id:
        return False
    return first if call_id is None else row.call_id == call_id


def load_effect(tx: Tx, tenant: str, key: str) -> EffectRow | None:
    """Return the row of one effect, to be looked at."""
    found = tx.row(_ONE, (tenant, key))
    return None if found is None else EffectRow.of(found)


def effect_asked(tenant: str, key: str) -> Asked:
    """Return the question of `lock_effect`."""
    return Asked("lock", _SEAL, (tenant, key), early=True)


def doubt_asked(run: RunRef, key: str) -> Asked:
    """Return the question of `load_doubt`."""
    values = (run.tenant, run.run_id, key)
    return Asked("row", _DOUBT, values, early=True, under=lock_asked(run))


def lock_effect(tx: Tx, tenant: str, key: str, known: EffectRow | None = None) -> EffectRow | None:
    """Return the row of one effect, to be changed; its run's row was locked before it.

    One that stands under the seal of a row that is *known* is not read again.
    """
    place = (tenant, key)
    found = tx.lock(_SEAL, place)
    if found is None:
        return None
    if known is not None and found[0] is not None and bytes(found[0]) == known.sealed:
        return EffectRow.known(known.was, known.sealed)
    found = tx.row(_ONE, place)
    return None if found is None else EffectRow.of(found)


def check_free(tx: Tx, tenant: str, key: str) -> None:
    """Make sure that a key without a row has none.

    A row whose key has changed on the disk is not found by it any more; but it still stands where
    it stood, beside the place where the key is looked for, and its seal tells.

    Raises:
        StoreUnavailable: a row beside that place is not as it was written.
    """
    if tx.one_file:
        place = (tenant, key)
        # SQLite writes JSON as `canonical.seal` does, but for some characters; it is faster.
        if any(seal_of(text) != sealed for text, sealed in tx.rows(_BESIDE_AS_JSON, place)):
            for row in tx.rows(_BESIDE, place):
                check_seal(f"effect {row[1]}", row[:-1], row[-1])


def load_doubt(tx: Tx, run: RunRef, key: str) -> tuple[str, str, int] | None:
    """Return key, tool and step of a write of *run* that is in doubt, other than *key*."""
    found: tuple[str, str, int] | None = tx.row(*doubt_asked(run, key)[1:3])
    return found
