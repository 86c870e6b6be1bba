"""Undoing in the ledger: an undo is an effect of its own, tied to the effect that it undoes.

Theory of operation. The undo of an effect stands under `comp/<key>`, which no tool's key can be,
and goes through the same states. It starts only in a transaction that sees its effect as succeeded
and not undone. The transaction that settles it as succeeded, or in which somebody rules so, also
writes into the effect's row that it is undone, and by what. So nobody can find the one without the
other, wherever a process dies.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DecisionRefused, EffectInDoubt, EffectUndone, GuardError, StoreUnavailable
from ..model import EffectState
from . import approvals
from .rows import EffectRow, lock_effect
from .runs import RunLog, commitment, record_of
from .sealed import reading
from .values import Draft

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Effect
    from ..protocols import Tx
    from .values import Intent, RunRef

UNDO = "comp/"
"""How the key of an undo begins; keys of tools begin with `ag1_` or `call_`."""
REFUTED = "refuted"
"""The result state of an effect that happened, and whose outcome a verifier did not confirm."""
UNDONE = "undone"
"""The result state of an effect that happened and was undone since."""
_MAYBE = (EffectState.EXECUTING, EffectState.IN_DOUBT)
_BEGUN = (
    "SELECT data, salt, body FROM events WHERE tenant = ? AND run_id = ? AND step = ?"
    " AND kind IN ('step.decided', 'step.started') AND body IS NOT NULL ORDER BY seq DESC"
)


def undo_key(key: str) -> str:
    """Return the key of the effect that undoes the effect *key*."""
    return f"{UNDO}{key}"


def forbids(tx: Tx, log: RunLog, intent: Intent) -> GuardError | None:
    """Return why a call may not start in this run; what an undo needs of its effect counts, too.

    An operator who has stopped a run may still have it rolled back, but not while it is at work.
    """
    by_person = intent.undoes is not None and log.ref.actor.startswith("person:")
    if not by_person:
        by_agent = intent.effect == "write" and intent.executes is None
        closed = log.closed() if by_agent else None
        stopped = log.stopped() or closed
        if stopped is not None or intent.undoes is None:
            return stopped
    if by_person and log.status == "running":
        return DecisionRefused(
            f"{intent.tool} was not started: run {log.ref.run_id} is running again; stop it first with"
            f" agentguard runs cancel {log.ref.run_id}"
        )
    return _not_to_undo(tx, intent.run.tenant, intent.tool, intent.undoes or "")


def _not_to_undo(tx: Tx, tenant: str, undo: str, key: str) -> GuardError | None:
    row = lock_effect(tx, tenant, key)
    if row is not None and row.state in _MAYBE:
        return EffectInDoubt(
            f"{undo} was not started: {in_doubt(row)}", effect_id=key, reason="undo_of_doubt"
        )
    if row is None or row.state is not EffectState.SUCCEEDED:
        return DecisionRefused(f"{undo} was not started: the effect {key} did not happen")
    if row.result_state == UNDONE:
        return undone_already(row)
    return None


def in_doubt(row: EffectRow | Effect) -> str:
    """Return what is said of an effect that cannot be undone yet, and what ends that."""
    key = row.key if isinstance(row, EffectRow) else row.id
    if row.state is EffectState.EXECUTING:
        return f"{row.tool}, step {row.step}, is being executed; wait for its end"
    return (
        f"it is not known whether {row.tool}, step {row.step}, happened: rule on it first with"
        f" agentguard effects resolve {key}"
    )


def undone_already(row: EffectRow | Effect) -> EffectUndone:
    """Return what a caller is told of an effect that was undone."""
    key = row.key if isinstance(row, EffectRow) else row.id
    return EffectUndone(
        f"{row.tool} was done in run {row.run_id}, step {row.step}, and undone since: see"
        f" agentguard effects show {row.undo}",
        effect_id=key,
    )


def note_undo(tx: Tx, log: RunLog, undo: EffectRow) -> None:
    """Tell what became of an undo in the record of its effect; one that succeeded undoes that."""
    row = lock_effect(tx, undo.tenant, undo.key.removeprefix(UNDO))
    if row is None:
        raise StoreUnavailable(f"the effect of {undo.key} vanished from the store")
    happened = undo.state is EffectState.SUCCEEDED
    if happened:
        row.result_state, row.undo = UNDONE, undo.key
        row.update(tx)
    outcome = UNDONE if happened else undo.state.value
    fact = {"key": row.key, "tool": row.tool, "undo": undo.key, "outcome": outcome}
    with record_of(tx, log, row.run_id) as own:
        own.add(Draft("compensated", fact, row.step))


def arguments_of(tx: Tx, effect: Effect) -> Mapping[str, Any] | None:
    """Return the arguments with which an effect began, as its record shows them.

    None if they are not kept. What an approver changed is changed here, too.

    Raises:
        StoreUnavailable: they are not as they were written.
    """
    with reading(f"the record of run {effect.run_id}"):
        return _arguments_of(tx, effect)


def _arguments_of(tx: Tx, effect: Effect) -> Mapping[str, Any] | None:
    for data, salt, body in tx.rows(_BEGUN, (effect.tenant, effect.run_id, effect.step)):
        fact, content = json.loads(data), json.loads(body)
        if fact.get("key") == effect.id and fact.get("decision") != "deny":
            if commitment(bytes(salt), body) != fact.get("content"):
                raise StoreUnavailable(
                    f"the record of {effect.tool}, step {effect.step}, was changed after it was written"
                )
            return {**content.get("arguments", {}), **_edits(tx, effect)}
    return None


def _edits(tx: Tx, effect: Effect) -> Mapping[str, Any]:
    found = effect.approval_id and approvals.load(tx, effect.tenant, effect.approval_id)
    return (found.edits or {}) if found else {}


def note_rollback(tx: Tx, ref: RunRef, draft: Draft) -> None:
    """Write into a run's record that people begin or end to roll it back."""
    log = RunLog(tx, ref)
    log.add(draft)
    log.leaf()
    log.save()
