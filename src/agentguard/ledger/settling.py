"""How effects end: settled by their owner, put in doubt when it is dead, ruled on by people.

Completion names its fence. Whoever comes too late leaves evidence, never truth.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DecisionRefused, GuardError
from ..model import EffectState
from ..protocols import foreseen
from . import autonomy, budgets, circuits, compensating, slos, switches
from .rows import EffectRow, effect_asked, load_effect, lock_effect
from .runs import RunLog, asked, record_of
from .values import Draft, Interrupted, RunRef, Settled, Settlement, Watch, end_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Effect, Usage
    from ..protocols import Asked, Tx

_MAY_ACT_US = 60_000_000
"""So long no hook is believed that an abandoned thread has done nothing."""
_OPEN = (EffectState.EXECUTING, EffectState.IN_DOUBT)
_EXECUTING = "SELECT tenant, key, owner FROM effects WHERE state = 'executing'"
_RULED = {
    "happened": EffectState.SUCCEEDED,
    "not_happened": EffectState.FAILED_RETRYABLE,
    "failed": EffectState.FAILED_FINAL,
}


def mark_lost(tx: Tx, log: RunLog, row: EffectRow) -> None:
    """Put an effect in doubt whose owner is gone, or silent for so long that it may be.

    Silence is no death: while the owner may still act, no hook is believed that nothing happened.
    """
    dead = row.owner is not None and tx.is_dead(row.owner)
    mark_doubt(tx, log, row, "owner_lost", may_act_us=0 if dead else tx.quarantine_us)


def mark_doubt(
    tx: Tx, log: RunLog, row: EffectRow, reason: str, *, began: bool = True, may_act_us: int = 0
) -> None:
    """An executing effect whose end nobody will tell becomes doubtful; its budget stays held.

    A read has no effect to be in doubt about, nor has a body that never began: it may simply be
    started again.
    """
    harmless = row.effect == "read" or not began
    row.state = EffectState.FAILED_RETRYABLE if harmless else EffectState.IN_DOUBT
    row.doubt_reason, row.finished_at = None if harmless else reason, tx.now
    row.lease_until = tx.now + may_act_us if may_act_us else None
    row.update(tx)
    settled = _give_back(tx, log, row, None)
    fact = {"key": row.key, "fence": row.fence, "reason": reason, **settled}
    log.add(Draft("attempt.failed" if harmless else "effect.in_doubt", fact, row.step))


def _asked(end: Settlement) -> tuple[Asked, ...]:
    tenant = end.run.tenant
    return (
        *asked(end.run), effect_asked(tenant, end.key), *circuits.asked(tenant, end.breaker),
        *slos.asked(tenant, end.watch),
    )  # fmt: skip


@foreseen(_asked)
def settle(tx: Tx, end: Settlement) -> Settled:
    """Write how an attempt ended, if its fence is still the last one."""
    _hold_up(tx, end)
    log = RunLog(tx, end.run)
    log.absorb(end.pending)
    written = _settle(tx, log, end)
    return Settled(written, log.save())


def _hold_up(tx: Tx, end: Settlement) -> None:
    autonomy.hold_up(tx, end)
    slos.hold_up(tx, end.watch, slos.fact_of(end))


def _settle(tx: Tx, log: RunLog, end: Settlement) -> bool:
    row = lock_effect(tx, end.run.tenant, end.key, end.row)
    if row is None or row.fence != end.fence or row.state not in _OPEN:
        _leave_evidence(tx, log, row, end)
        return False
    late = row.state is not EffectState.EXECUTING
    row.state, row.result, row.result_state = end.state, end.result, end.result_state
    row.error, row.doubt_reason, row.finished_at = _text(end.error), end.doubt_reason, tx.now
    row.lease_until = None if end.data.get("body_ended", True) else tx.now + _MAY_ACT_US
    settled = _settle_budget(tx, log, row, end)
    row.cost = row.cost if end.cost is None else end.cost
    row.update(tx)
    _tell(log, end, settled)
    if not late:  # what is late was counted when it was
        circuits.record(tx, log, end)
    if end.ladder is not None:
        autonomy.count(tx, log, end, end.ladder)
    if row.key.startswith(compensating.UNDO):
        compensating.note_undo(tx, log, row)
    if not late:
        slos.record(tx, log, end.watch, slos.fact_of(end), end.step)
    return True


@foreseen(lambda end: (*asked(end.run), *slos.asked(end.run.tenant, end.watch)))
def note_failure(tx: Tx, end: Settlement) -> Usage:
    """Count a failure that was to be tried again, and was not: it was the call's last."""
    _hold_up(tx, end)
    log = RunLog(tx, end.run)
    slos.record(tx, log, end.watch, slos.fact_of(end), end.step)
    return log.save()


def lose(tx: Tx, run: RunRef, key: str, fence: int, watch: Watch) -> None:
    """Put an effect in doubt whose owner is gone, and count that in the same transaction."""
    slos.hold_up(tx, watch, slos.LOST)
    found = _with_its_run(tx, run.tenant, key, run.actor)
    if found is None:
        return
    log, row = found
    mine = row.fence == fence and row.state is EffectState.EXECUTING
    by = "person" if run.actor.startswith("person:") else "reconcile"
    if mine and row.owner is not None and row.owner != tx.owner and _is_lost(tx, row.owner, by):
        mark_lost(tx, log, row)
        if row.state is EffectState.IN_DOUBT:
            slos.record(tx, log, watch, slos.LOST, row.step)
        log.save()


def _settle_budget(tx: Tx, log: RunLog, row: EffectRow, end: Settlement) -> dict[str, Any]:
    """Return what the event of the end says of money; another run's is told in that run's record."""
    if row.run_id == end.run.run_id:
        return _give_back(tx, log, row, end.cost)
    with record_of(tx, log, row.run_id) as own:
        settled = _give_back(tx, own, row, end.cost)
        if settled:
            own.add(Draft("budget.settled", settled, row.step))
    return {}


def _tell(log: RunLog, end: Settlement, settled: Mapping[str, Any]) -> None:
    for verdict in end.verdicts:
        _note_verdict(log, verdict, end.step)
    if end.state is EffectState.IN_DOUBT:
        data = {"key": end.key, "fence": end.fence, "reason": end.doubt_reason}
        log.add(Draft("effect.in_doubt", data, end.step))
    fact = {"outcome": end.state.value, **end.data, **settled}
    log.add(Draft(end_kind(fact), fact, end.step, end.content))


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _give_back(tx: Tx, log: RunLog, row: EffectRow, actual: int | None) -> dict[str, Any]:
    """Spend what was held, or give it back; while in doubt it stays held.

    Returns what to say of it in the event of the end.
    """
    if row.state is EffectState.IN_DOUBT:
        return {}
    reserved, cost = json.loads(row.reserved), row.cost
    happened = row.state is EffectState.SUCCEEDED
    spent = (cost if actual is None else actual) if happened else 0
    log.held -= cost
    log.spent += spent
    log.tool_calls -= 0 if happened or row.scope == "fallback" else 1
    budgets.settle(tx, log.ref.tenant, reserved, happened=happened)
    return {"spent_nanos": spent, "happened": happened} if cost or reserved else {}


def _leave_evidence(tx: Tx, log: RunLog, row: EffectRow | None, end: Settlement) -> None:
    """Somebody else took over or ruled meanwhile: keep the late answer where people see it."""
    late = {"fence": end.fence, "outcome": end.state.value, "run_id": end.run.run_id}
    if row is not None:
        row.late = json.dumps(late)
        row.update(tx)
    log.add(Draft("effect.evidence", {"key": end.key, **late}, end.step))


def resolve(
    tx: Tx, tenant: str, key: str, ruling: str, by: str, reason: str,
    result: str | None = None, fence: int | None = None,
    verdicts: tuple[Mapping[str, Any], ...] = (), refuted: Mapping[str, Any] | None = None,
) -> Effect | GuardError:  # fmt: skip
    """Rule on an effect in doubt: happened, not_happened, or failed (for good).

    *by* is a person, or `reconcile` when the tool's own hook has found out; what it found may be
    *refuted* by a verifier.
    """
    actor = f"system:{by}" if by == "reconcile" else f"person:{by}"
    found = _with_its_run(tx, tenant, key, actor)
    if found is None:
        return DecisionRefused(f"there is no effect {key!r} in this tenant")
    log, row = found
    if row.state is EffectState.EXECUTING and row.owner and _is_lost(tx, row.owner, by):
        mark_lost(tx, log, row)
    for verdict in verdicts:
        _note_verdict(log, verdict, row.step)
    refusal = _cannot_rule(tx, row, ruling, by, fence)
    if refusal is None:
        _rule(tx, log, row, ruling, reason, result, refuted)
    log.save()
    return refusal or row.public()


def _with_its_run(tx: Tx, tenant: str, key: str, actor: str) -> tuple[RunLog, EffectRow] | None:
    """Lock an effect after its run, as every verb does it; the run is known by a look before."""
    seen = load_effect(tx, tenant, key)
    while seen is not None:
        log = RunLog(tx, RunRef(tenant, seen.run_id, actor))
        row = lock_effect(tx, tenant, key)
        if row is not None and row.run_id == seen.run_id:
            return log, row
        seen = row  # another run took it over at this moment
    return None


def _is_lost(tx: Tx, owner: str, by: str) -> bool:
    """A person may also rule where nothing proves the owner's life or death any more."""
    return tx.is_lost(owner) or (by != "reconcile" and not tx.is_alive(owner))


def _note_verdict(log: RunLog, verdict: Mapping[str, Any], step: int) -> None:
    fact = {name: value for name, value in verdict.items() if name != "diff"}
    diff = verdict.get("diff")
    log.add(Draft("verified", fact, step, None if diff is None else {"diff": diff}))


def _cannot_rule(
    tx: Tx, row: EffectRow, ruling: str, by: str, fence: int | None
) -> GuardError | None:
    if ruling not in _RULED:
        return DecisionRefused(f"{ruling!r} is not a ruling; say happened, not_happened or failed")
    if row.state is not EffectState.IN_DOUBT or fence not in (None, row.fence):
        return DecisionRefused(f"{row.key} is {row.state}, not in doubt; nothing was changed")
    if by == "reconcile" and ruling != "happened" and may_still_act(tx, row):
        return DecisionRefused(f"{row.key}: its body may still be running; ask again later")
    return None


def may_still_act(tx: Tx, row: EffectRow) -> bool:
    """An abandoned thread, or an owner that was only silent, can still make the effect happen."""
    lease = row.lease_until
    if lease is None or tx.now >= lease:
        return False
    return row.owner is None or not tx.is_dead(row.owner)


def _rule(
    tx: Tx, log: RunLog, row: EffectRow, ruling: str, reason: str, result: str | None,
    refuted: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    row.state = _RULED[ruling]
    happened = row.state is EffectState.SUCCEEDED
    row.result = result
    row.result_state = ("stored" if result is not None else "none") if happened else None
    row.error = None if happened else json.dumps({"kind": "ruled", "message": reason})
    if happened and refuted is not None:
        row.result_state, row.error = compensating.REFUTED, json.dumps(refuted)
    row.doubt_reason, row.finished_at, row.lease_until = None, tx.now, None
    row.update(tx)
    settled = _give_back(tx, log, row, None)
    fact = {"key": row.key, "ruling": ruling, "fence": row.fence, **settled}
    log.add(Draft("effect.resolved", fact, row.step, {"reason": reason} if reason else None))
    if row.key.startswith(compensating.UNDO):
        compensating.note_undo(tx, log, row)


def abandon(tx: Tx, start: Interrupted) -> Usage:
    """Settle for a caller that cannot, unless its start was never made or its end is written."""
    if start.end is not None:
        _hold_up(tx, start.end)
    else:
        slos.hold_up(tx, start.watch, slos.LOST)
    log = RunLog(tx, start.run)
    row = lock_effect(tx, start.run.tenant, start.key)
    held = row is not None and row.claim_id == start.claim_id and row.state is EffectState.EXECUTING
    if held and start.end is not None:
        _settle(tx, log, start.end)
    elif row is not None and held:
        with record_of(tx, log, row.run_id) as own:
            may_act_us = _MAY_ACT_US if start.may_act else 0
            mark_doubt(tx, own, row, "cancelled", began=start.began, may_act_us=may_act_us)
        if row.state is EffectState.IN_DOUBT:
            slos.record(tx, log, start.watch, slos.LOST, row.step)
    return log.save()


def sweep(tx: Tx, watches: Mapping[str, Watch] | None = None) -> int:
    """Put effects of owners that are lost in doubt, so that they are listed; how many.

    Args:
        tx: the transaction.
        watches: tool name → the service levels in which what is found counts.
    """
    silent = [owner for (owner,) in tx.rows(_SILENT, (tx.now,))]
    lost = [owner for owner in silent if owner != tx.owner and tx.is_lost(owner)]
    known = [owner for (owner,) in tx.rows("SELECT owner FROM owners")]
    dead = [owner for owner in known if owner != tx.owner and tx.is_dead(owner)]
    if (lost or dead) and any(watch.demotes for watch in (watches or {}).values()):
        switches.hold_up(tx)  # before anything is locked
    found = [row for owner in dict.fromkeys((*lost, *dead)) for row in _sweep_owner(tx, owner)]
    for owner in dead:
        tx.forget(owner)
    _count_lost(tx, found, watches or {})
    return len(found)


def _count_lost(tx: Tx, found: list[EffectRow], watches: Mapping[str, Watch]) -> None:
    """Count what was found, once everything else that this transaction locks is locked."""
    rows = [row for row in found if row.tool in watches and row.state is EffectState.IN_DOUBT]
    slos.lock_all(tx, [(row.tenant, watches[row.tool]) for row in rows])
    for row in rows:
        log = RunLog(tx, RunRef(row.tenant, row.run_id, "system:sweep"))
        slos.record(tx, log, watches[row.tool], slos.LOST, row.step)
        log.save()


_SILENT = (
    "SELECT DISTINCT e.owner FROM effects e LEFT JOIN owners o ON o.owner = e.owner"
    " WHERE e.state = 'executing' AND (o.lease_until IS NULL OR o.lease_until <= ?)"
)
"""Who executes something and has no lease that runs: one question, however many workers there are."""


def _sweep_owner(tx: Tx, owner: str) -> list[EffectRow]:
    rows = tx.rows(
        "SELECT tenant, key FROM effects WHERE state = 'executing' AND owner = ?", (owner,)
    )
    found = list[EffectRow]()
    for tenant, key in list(rows):
        held = _with_its_run(tx, tenant, key, "system:sweep")
        if held is not None and held[1].state is EffectState.EXECUTING and held[1].owner == owner:
            mark_lost(tx, *held)
            held[0].save()
            found.append(held[1])
    return found


def doubt_all(tx: Tx) -> int:
    """Put every effect in doubt whose owner is not seen to live; for a store that lost commits.

    Each may have ended in one of them. Returns how many.
    """
    found = 0
    for tenant, key, owner in list(tx.rows(_EXECUTING)):
        held = None if tx.is_alive(owner) else _with_its_run(tx, tenant, key, "system:restored")
        if held is not None and held[1].state is EffectState.EXECUTING:
            mark_doubt(tx, *held, "store_restored")
            held[0].save()
            found += 1
    return found
