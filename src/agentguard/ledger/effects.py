"""The effect ledger's state machine.

Theory of operation. One row per (tenant, key). The row is durable before the tool body starts;
`begin` is the point of no return and does everything that must not be separable from a start:
kill switch, key, payload, approval used up, budget reserved, rate, fence, events. A row whose
owner vanished becomes `in_doubt` and is never run again by a timer.

    (none) --asks-----------------> awaiting_approval --start--> executing
    (none) --start----------------> executing
    awaiting_approval --no/late---> denied --another payload, run, or after expiry--> asked anew
    executing --returned----------> succeeded                   [fence is mine]
    executing --no effect---------> failed_retryable | failed_final     [fence is mine]
    executing --anything else-----> in_doubt                    [fence is mine, or owner proven dead]
    in_doubt --late answer--------> as the answer says          [fence is mine]
    in_doubt --reconcile, ruling--> succeeded | failed_retryable | failed_final
    in_doubt --backend drops repeats, window open--> executing
    failed_retryable --start------> executing                   [approval still good]

Anything else is illegal and raises. Completion names its fence; whoever comes too late leaves
evidence, never truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..canonical import plain_text
from ..errors import EffectInDoubt, GuardError, IdempotencyConflict
from ..model import Approval, EffectState, Usage
from ..protocols import foreseen
from . import approvals, asking, budgets, circuits, compensating, plans, rows, switches
from .rows import EffectRow, doubt_asked, effect_asked, is_same_call, load_doubt, lock_effect
from .runs import RunLog, asked, record_of
from .settling import mark_lost, may_still_act
from .values import (
    Answer,
    Busy,
    Doubt,
    Draft,
    Edited,
    Intent,
    Lost,
    Refused,
    Replay,
    Started,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..protocols import Asked, Tx

FINAL = (EffectState.SUCCEEDED, EffectState.FAILED_FINAL)


def _asked(intent: Intent) -> Iterator[Asked]:
    """Return what a start that nothing stands against asks, in its order."""
    tenant = intent.run.tenant
    yield from asked(intent.run)
    yield effect_asked(tenant, intent.key)
    yield from switches.asked(tenant, intent.agent, intent.tool, intent.workflow)
    if intent.effect == "write":
        yield doubt_asked(intent.run, intent.key)
    yield from budgets.asked(tenant, intent.tool, intent.reservations, intent.rate)
    yield from circuits.asked(tenant, intent.breaker)


@foreseen(_asked)
def begin(tx: Tx, intent: Intent) -> tuple[Answer, Usage]:
    """Decide, in one transaction, whether the body may start, and if so make that durable."""
    log = RunLog(tx, intent.run)
    log.absorb(intent.pending)
    answer = _begin(tx, log, intent)
    if isinstance(answer, Replay) and not (intent.pending and intent.pending.drafts):
        return answer, log.usage()  # nothing is written, so nobody waits for the disk
    return answer, log.save()


def _continues(intent: Intent, row: EffectRow) -> bool:
    return is_same_call(row, intent.run.run_id, intent.call_id, first=intent.first)


def _begin(tx: Tx, log: RunLog, intent: Intent) -> Answer:
    row = lock_effect(tx, intent.run.tenant, intent.key)
    if row is not None and row.state in FINAL and row.payload_hash == intent.payload_hash:
        return _FROM[row.state](tx, log, intent, row)  # what is done is told, whatever is stopped
    tenant, tool = intent.run.tenant, intent.tool
    stands = switches.standing(tx, tenant, intent.agent, tool, log.workflow)
    stopped = compensating.forbids(tx, log, intent) or stands.halted or intent.refusal
    if stopped is not None:
        return asking.refuse(log, intent, stopped, intent.step)
    judged = plans.judged(tx, log, intent)
    if isinstance(judged, GuardError):
        return asking.refuse(log, intent, judged, intent.step)
    intent = asking.staged(judged, stands.earned, stands.demoted)
    if row is None:
        rows.check_free(tx, tenant, intent.key)
        return _fresh(tx, log, intent)
    if row.payload_hash == intent.payload_hash:
        return _FROM[row.state](tx, log, intent, row)
    return (
        _from_denied(tx, log, intent, row) if _is_denied(tx, row) else _conflict(log, intent, row)
    )


def _is_denied(tx: Tx, row: EffectRow) -> bool:
    """A no counts from the moment it is said, not only once the agent has come back to hear it."""
    if row.state is not EffectState.AWAITING_APPROVAL:
        return row.state is EffectState.DENIED
    approval = approvals.lock(tx, row.tenant, row.approval_id or "")
    return approval is not None and approval.status in ("rejected", "expired")


def _conflict(log: RunLog, intent: Intent, row: EffectRow) -> Refused:
    error = IdempotencyConflict(
        f"{intent.tool}: this key was used with other arguments in run {row.run_id}, step {row.step};"
        " the same intent must carry the same arguments, another intent another key"
    )
    return asking.refuse(log, intent, error, None)


def _fresh(tx: Tx, log: RunLog, intent: Intent) -> Answer:
    """A key that is free: ask people if the rule says so, else start."""
    if intent.ask is not None:
        return asking.ask_people(tx, log, intent, intent.ask, None, 1, None)
    return _start(tx, log, intent, None, None)


def _start(
    tx: Tx, log: RunLog, intent: Intent, row: EffectRow | None, approval: Approval | None
) -> Started | Refused:
    """The point of no return: check everything first, then write everything."""
    tenant = intent.run.tenant
    step = intent.step if intent.step is not None else _step_of(intent, row)
    held = row is not None and row.state is EffectState.IN_DOUBT
    doubt = _other_doubt(tx, intent)
    if doubt is not None:
        return asking.refuse(log, intent, doubt, step)
    full = None if held else _no_room(tx, log, intent, step)
    if full is not None:
        return asking.refuse_budget(log, intent, full, step)
    late: GuardError | None = circuits.refusal(tx, intent)
    if late is None and intent.rate is not None:
        late = budgets.take_turn(tx, tenant, intent.tool, intent.rate)
    if late is not None:
        return asking.refuse(log, intent, late, step)
    counted = step is None
    step = log.next_step() if step is None else step
    if approval is not None and approval.status == "approved":
        approvals.use(tx, log, approval, step)
    executing = _execute(tx, intent, row, step, approval)
    fact: dict[str, Any] = {"key": intent.key, "fence": executing.fence, "attempt": intent.attempt}
    if counted:
        fact |= {**asking.decision(intent), "decision": "allow"}
    fact |= plans.fact(intent)
    if not held:
        fact |= _hold(tx, log, intent)
    content = {"arguments": intent.arguments} if counted else None
    log.add(Draft("step.started", fact, step, content))
    circuits.note_start(tx, log, intent, executing.fence, step)
    first, edits = executing.first_started_at or tx.now, approval.edits if approval else None
    return Started(
        step, executing.fence, intent.attempt, counted, first, edits, approval, held, executing
    )


def _other_doubt(tx: Tx, intent: Intent) -> EffectInDoubt | None:
    """A run that does not know what it has done writes nothing more until somebody rules."""
    if intent.effect != "write":
        return None
    found = load_doubt(tx, intent.run, intent.key)
    if found is None:
        return None
    key, tool, step = found
    return EffectInDoubt(
        f"{intent.tool} was not started: it is not known whether {tool}, step {step} of this run,"
        f" happened; see agentguard effects show {key}",
        effect_id=key,
        reason="run_in_doubt",
    )


def _step_of(intent: Intent, row: EffectRow | None) -> int | None:
    """A call that goes on where it stopped keeps its step; anything else gets a new one."""
    return row.step if row is not None and _continues(intent, row) else None


def _no_room(tx: Tx, log: RunLog, intent: Intent, step: int | None) -> GuardError | None:
    run = intent.run
    if intent.limits is not None:
        full = log.over(
            intent.limits, step=step is None, tool=True, model=False, cost=intent.cost or 0
        )
        if full is not None:
            return full
    return budgets.over(tx, run.tenant, intent.reservations, run.run_id)


def _hold(tx: Tx, log: RunLog, intent: Intent) -> dict[str, Any]:
    """Reserve the call's cost and return it as a part of the event of its start."""
    log.tool_calls += 1
    log.held += intent.cost or 0
    if intent.cost is None:
        log.cost_complete = 0
    budgets.hold(tx, intent.run.tenant, intent.reservations)
    if intent.cost == 0 and not intent.reservations:
        return {}
    held = [[r.name, r.span, r.amount] for r in intent.reservations]
    return {"run_nanos": intent.cost, "budgets": held}


def _execute(
    tx: Tx, intent: Intent, row: EffectRow | None, step: int, approval: Approval | None
) -> EffectRow:
    """Write the row of a body that may run from now on, under the next fence."""
    started = asking.new_row(tx, intent) if row is None else row
    if started.state is EffectState.IN_DOUBT:  # what is held stays with the run that holds it
        same = started.run_id == intent.run.run_id
        started.take(intent, started.run_id, step if same else started.step)
    else:
        started.take(intent, intent.run.run_id, step)
        started.reserved, started.cost = _reserved(intent), intent.cost or 0
    started.state = EffectState.EXECUTING
    started.fence, started.attempt = started.fence + 1, intent.attempt
    started.owner, started.claim_id = tx.owner, intent.claim_id
    started.lease_until = tx.now + intent.lease_us if intent.lease_us else None
    started.first_started_at = started.first_started_at or tx.now
    started.started_at, started.finished_at = tx.now, None
    started.error = started.doubt_reason = None
    started.approval_id = approval.id if approval else started.approval_id
    started.insert(tx) if row is None else started.update(tx)
    return started


def _reserved(intent: Intent) -> str:
    return plain_text([[r.name, r.span, r.amount] for r in intent.reservations])


def _from_final(_tx: Tx, _log: RunLog, _intent: Intent, row: EffectRow) -> Answer:
    return Replay(row.public())


def _from_executing(tx: Tx, log: RunLog, intent: Intent, row: EffectRow) -> Answer:
    if row.owner is not None and row.owner != tx.owner and tx.is_lost(row.owner):
        if intent.watch is not None:
            return Lost(row.public())
        with record_of(tx, log, row.run_id) as own:
            mark_lost(tx, own, row)
        return _FROM[row.state](tx, log, intent, row)
    return Busy(row.public(), own=row.owner == tx.owner)


def _from_doubt(tx: Tx, log: RunLog, intent: Intent, row: EffectRow) -> Answer:
    """A backend that drops repeats of the key may be asked again while its window is open."""
    first = row.first_started_at
    open_ = intent.dedupe_us is not None and first is not None and tx.now < first + intent.dedupe_us
    if open_ and asking.may_repeat(tx, intent, row):
        fact = {"key": intent.key, "ruling": "retry_same_key", "fence": row.fence}
        with record_of(tx, log, row.run_id) as own:
            own.add(Draft("effect.resolved", fact, row.step))
        return _start(tx, log, intent, row, None)
    return Doubt(row.public(), may_still_act(tx, row))


def _from_awaiting(tx: Tx, log: RunLog, intent: Intent, row: EffectRow) -> Answer:
    approval = approvals.lock(tx, intent.run.tenant, row.approval_id or "")
    if approval is None or approval.status == "superseded":
        return asking.ask_people(tx, log, intent, asking.again(intent, None), row, 1, row.step)
    if approval.status == "pending":
        return asking.waiting(approval, row.step)
    if approval.status == "approved":
        return _approved(tx, log, intent, row, approval)
    return asking.denied(tx, log, intent, row, approval)


def _approved(tx: Tx, log: RunLog, intent: Intent, row: EffectRow, approval: Approval) -> Answer:
    """Start only what was approved: this payload, this contract, this policy; drafts by people."""
    if approval.stage is not None and intent.executes != approval.id:
        return asking.waiting(approval, row.step)
    stale = (approval.contract_version, approval.policy_version) != (
        intent.contract_version, intent.policy_version,
    )  # fmt: skip
    if stale or approvals.is_own(approval, intent):
        again, generation = asking.again(intent, approval), approval.generation + 1
        return asking.ask_people(tx, log, intent, again, row, generation, row.step)
    if approval.edits != intent.edits:
        return Edited(approval)
    return _start(tx, log, intent, row, approval)


def _from_denied(tx: Tx, log: RunLog, intent: Intent, row: EffectRow) -> Answer:
    """A no stands for this payload in this run; another payload or run is asked about anew.

    It is asked about even where no rule asks: nobody gets below a threshold by way of a no.
    """
    no = approvals.rejection(tx, intent)
    if no is not None:
        return asking.refuse(
            log, intent, asking.rejected(row, no), no.step if _continues(intent, row) else None
        )
    approval = approvals.lock(tx, intent.run.tenant, row.approval_id or "")
    generation = approval.generation if approval else 0
    return asking.ask_people(
        tx, log, intent, asking.again(intent, approval), row, generation + 1, None
    )


def _from_retryable(tx: Tx, log: RunLog, intent: Intent, row: EffectRow) -> Answer:
    """Nothing happened: start again, under the same approval if there is one and it still holds."""
    if row.approval_id is None:
        asks = row.fence == 0 or intent.plan or intent.demoted or _is_new(intent, row)
        if intent.ask is not None and asks:
            return asking.ask_people(tx, log, intent, intent.ask, row, 1, None)
        return _start(tx, log, intent, row, None)
    approval = approvals.lock(tx, intent.run.tenant, row.approval_id)
    if approval is None or tx.now >= int(approval.expires_at.timestamp() * 1_000_000):
        return asking.ask_people(
            tx, log, intent, asking.again(intent, approval), row, 1, _step_of(intent, row)
        )
    return _approved(tx, log, intent, row, approval)


def _is_new(intent: Intent, row: EffectRow) -> bool:
    """Where the stage asks: what was allowed in this run is allowed again, but in no other run."""
    staged = intent.ask is not None and intent.ask.stage is not None
    return staged and row.run_id != intent.run.run_id


_FROM = {
    EffectState.SUCCEEDED: _from_final,
    EffectState.FAILED_FINAL: _from_final,
    EffectState.EXECUTING: _from_executing,
    EffectState.IN_DOUBT: _from_doubt,
    EffectState.AWAITING_APPROVAL: _from_awaiting,
    EffectState.DENIED: _from_denied,
    EffectState.FAILED_RETRYABLE: _from_retryable,
}
