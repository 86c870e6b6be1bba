"""How effects end: settled by their owner, put in doubt when it is dead, ruled on by people.

Completion names its fence. Whoever comes too late leaves evidence, never truth.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DecisionRefused, GuardError
from ..model import EffectState
from . import budgets
from .rows import load_effect, reload_effect
from .runs import RunLog, record_of
from .values import Draft, Interrupted, RunRef, Settled, Settlement, end_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Effect, Usage
    from ..protocols import Tx

_HELD = "SELECT reserved, cost, run_id, step FROM effects WHERE tenant = ? AND key = ?"
_MAY_ACT_US = 60_000_000
"""So long no hook is believed that an abandoned thread has done nothing."""
_RULED = {
    "happened": EffectState.SUCCEEDED,
    "not_happened": EffectState.FAILED_RETRYABLE,
    "failed": EffectState.FAILED_FINAL,
}


def mark_doubt(
    tx: Tx, log: RunLog, row: Effect, reason: str, *, began: bool = True, may_act: bool = False
) -> Effect:
    """An executing effect whose end nobody will tell becomes doubtful; its budget stays held.

    A read has no effect to be in doubt about, nor has a body that never began: it may simply be
    started again.
    """
    harmless = row.kind == "read" or not began
    state = EffectState.FAILED_RETRYABLE if harmless else EffectState.IN_DOUBT
    held = tx.row(_HELD, (row.tenant, row.id))
    tx.run(
        "UPDATE effects SET state = ?, doubt_reason = ?, finished_at = ?, lease_until = ?"
        " WHERE tenant = ? AND key = ? AND fence = ? AND state = 'executing'",
        (state, None if harmless else reason, tx.now,
         tx.now + _MAY_ACT_US if may_act else None, row.tenant, row.id, row.fence),
    )  # fmt: skip
    kind = "attempt.failed" if harmless else "effect.in_doubt"
    settled = _give_back(tx, log, held, state, None)
    fact = {"key": row.id, "fence": row.fence, "reason": reason, **settled}
    log.add(Draft(kind, fact, row.step))
    return reload_effect(tx, row.tenant, row.id)


def settle(tx: Tx, end: Settlement) -> Settled:
    """Write how an attempt ended, if its fence is still the last one."""
    log = RunLog(tx, end.run)
    log.absorb(end.pending)
    written = _settle(tx, log, end)
    return Settled(written, log.save())


def _settle(tx: Tx, log: RunLog, end: Settlement) -> bool:
    tenant = end.run.tenant
    held = tx.row(
        f"{_HELD} AND fence = ? AND state IN ('executing', 'in_doubt')",
        (tenant, end.key, end.fence),
    )
    if held is None:
        _leave_evidence(tx, log, end)
        return False
    lease = None if end.data.get("body_ended", True) else tx.now + _MAY_ACT_US
    tx.run(
        "UPDATE effects SET state = ?, result = ?, result_state = ?, error = ?, doubt_reason = ?,"
        " finished_at = ?, cost = ?, lease_until = ? WHERE tenant = ? AND key = ?",
        (end.state, end.result, end.result_state, _text(end.error), end.doubt_reason, tx.now,
         held[1] if end.cost is None else end.cost, lease, tenant, end.key),
    )  # fmt: skip
    with record_of(tx, log, held[2]) as own:
        settled = _give_back(tx, own, held, end.state, end.cost)
        if own is not log and settled:
            own.add(Draft("budget.settled", settled, held[3]))
    for verdict in end.verdicts:
        _note_verdict(log, verdict, end.step)
    if end.state is EffectState.IN_DOUBT:
        data = {"key": end.key, "fence": end.fence, "reason": end.doubt_reason}
        log.add(Draft("effect.in_doubt", data, end.step))
    fact = {"outcome": end.state.value, **end.data, **(settled if own is log else {})}
    log.add(Draft(end_kind(fact), fact, end.step, end.content))
    return True


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _give_back(
    tx: Tx, log: RunLog, held: Any, state: EffectState, actual: int | None
) -> dict[str, Any]:
    """Spend what was held, or give it back; while in doubt it stays held.

    Returns what to say of it in the event of the end.
    """
    if state is EffectState.IN_DOUBT:
        return {}
    reserved, cost = json.loads(held[0]), held[1]
    happened = state is EffectState.SUCCEEDED
    spent = (cost if actual is None else actual) if happened else 0
    log.held -= cost
    log.spent += spent
    log.tool_calls -= 0 if happened else 1
    budgets.settle(tx, log.ref.tenant, reserved, happened=happened)
    return {"spent_nanos": spent, "happened": happened} if cost or reserved else {}


def _leave_evidence(tx: Tx, log: RunLog, end: Settlement) -> None:
    """Somebody else took over or ruled meanwhile: keep the late answer where people see it."""
    late = {"fence": end.fence, "outcome": end.state.value, "run_id": end.run.run_id}
    tx.run(
        "UPDATE effects SET late = ? WHERE tenant = ? AND key = ?",
        (json.dumps(late), end.run.tenant, end.key),
    )
    log.add(Draft("effect.evidence", {"key": end.key, **late}, end.step))


def resolve(
    tx: Tx, tenant: str, key: str, ruling: str, by: str, reason: str,
    result: str | None = None, fence: int | None = None,
    verdicts: tuple[Mapping[str, Any], ...] = (),
) -> Effect | GuardError:  # fmt: skip
    """Rule on an effect in doubt: happened, not_happened, or failed (for good).

    *by* is a person, or `reconcile` when the tool's own hook has found out.
    """
    row = load_effect(tx, tenant, key)
    if row is None:
        return DecisionRefused(f"there is no effect {key!r} in this tenant")
    actor = f"system:{by}" if by == "reconcile" else f"person:{by}"
    log = RunLog(tx, RunRef(tenant, row.run_id, actor))
    if row.state is EffectState.EXECUTING and row.owner and _is_lost(tx, row.owner, by):
        row = mark_doubt(tx, log, row, "owner_lost")
    for verdict in verdicts:
        _note_verdict(log, verdict, row.step)
    refusal = _cannot_rule(tx, row, ruling, by, fence)
    if refusal is None:
        _rule(tx, log, row, ruling, reason, result)
    log.save()
    return refusal or reload_effect(tx, tenant, key)


def _is_lost(tx: Tx, owner: str, by: str) -> bool:
    """A person may also rule where nothing proves the owner's life or death any more."""
    return tx.is_dead(owner) or (by != "reconcile" and not tx.is_alive(owner))


def _note_verdict(log: RunLog, verdict: Mapping[str, Any], step: int) -> None:
    fact = {name: value for name, value in verdict.items() if name != "diff"}
    diff = verdict.get("diff")
    log.add(Draft("verified", fact, step, None if diff is None else {"diff": diff}))


def _cannot_rule(tx: Tx, row: Effect, ruling: str, by: str, fence: int | None) -> GuardError | None:
    if ruling not in ("happened", "not_happened", "failed"):
        return DecisionRefused(f"{ruling!r} is not a ruling; say happened, not_happened or failed")
    if row.state is not EffectState.IN_DOUBT or fence not in (None, row.fence):
        return DecisionRefused(f"{row.id} is {row.state}, not in doubt; nothing was changed")
    if by == "reconcile" and ruling != "happened" and _may_still_act(tx, row):
        return DecisionRefused(f"{row.id}: its body may still be running; ask again later")
    return None


def _may_still_act(tx: Tx, row: Effect) -> bool:
    """An abandoned thread of a live process can still make the effect happen."""
    found = tx.row("SELECT lease_until FROM effects WHERE tenant = ? AND key = ?",
                   (row.tenant, row.id))  # fmt: skip
    lease = found[0] if found else None
    if lease is None or tx.now >= lease:
        return False
    return row.owner is None or not tx.is_dead(row.owner)


def _rule(tx: Tx, log: RunLog, row: Effect, ruling: str, reason: str, result: str | None) -> None:
    state = _RULED[ruling]
    happened = state is EffectState.SUCCEEDED
    result_state = ("stored" if result is not None else "none") if happened else None
    error = None if happened else json.dumps({"kind": "ruled", "message": reason})
    held = tx.row(_HELD, (row.tenant, row.id))
    tx.run(
        "UPDATE effects SET state = ?, result = ?, result_state = ?, error = ?, doubt_reason = NULL,"
        " finished_at = ?, lease_until = NULL WHERE tenant = ? AND key = ?",
        (state, result, result_state, error, tx.now, row.tenant, row.id),
    )
    settled = _give_back(tx, log, held, state, None)
    fact = {"key": row.id, "ruling": ruling, "fence": row.fence, **settled}
    log.add(Draft("effect.resolved", fact, row.step, {"reason": reason} if reason else None))


def abandon(tx: Tx, start: Interrupted) -> Usage:
    """Settle for a caller that cannot, unless its start was never made or its end is written."""
    log = RunLog(tx, start.run)
    held = tx.row(
        "SELECT 1 FROM effects WHERE tenant = ? AND key = ? AND claim_id = ? AND state = 'executing'",
        (start.run.tenant, start.key, start.claim_id),
    )
    if held is not None and start.end is not None:
        _settle(tx, log, start.end)
    elif held is not None:
        row = reload_effect(tx, start.run.tenant, start.key)
        with record_of(tx, log, row.run_id) as own:
            mark_doubt(tx, own, row, "cancelled", began=start.began, may_act=start.may_act)
    return log.save()


def sweep(tx: Tx) -> int:
    """Put effects of owners that are proven dead in doubt, so that they are listed; how many."""
    dead = [name for (name,) in list(tx.rows("SELECT owner FROM owners")) if tx.is_dead(name)]
    found = 0
    for owner in dead:
        rows = tx.rows(
            "SELECT tenant, key FROM effects WHERE state = 'executing' AND owner = ?", (owner,)
        )
        for tenant, key in list(rows):
            row = reload_effect(tx, tenant, key)
            log = RunLog(tx, RunRef(tenant, row.run_id, "system:sweep"))
            mark_doubt(tx, log, row, "owner_lost")
            log.save()
            found += 1
        tx.forget(owner)
    return found
