"""How a call that may not start is written down: refused, or asked about, or drafted for a person."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..autonomy import DRAFTED, lowest
from ..errors import ApprovalExpired, ApprovalRejected, DecisionRefused, GuardError
from ..model import Approval, EffectState
from . import approvals, plans
from .rows import EffectRow
from .runs import RunLog, record_of
from .values import Ask, Draft, Drafted, Intent, Refused, Unproven, Waiting

if TYPE_CHECKING:
    from ..protocols import Tx

_ANYBODY = Ask("")


def refuse(log: RunLog, intent: Intent, error: GuardError, step: int | None) -> Refused:
    """Write the refusal into the record; it takes a step of its own unless it has one."""
    counted = step is None
    step = log.next_step() if step is None else step
    log.add(Draft("step.decided", {
        **decision(intent), "decision": "deny", "error": error.kind, "reason": error.message[:500],
    }, step, {"arguments": intent.arguments}))  # fmt: skip
    if error.kind in ("budget_exceeded", "loop_detected"):
        log.add(Draft("budget.exceeded", dict(error.details()), step))
    error.run_id, error.step = intent.run.run_id, step
    return Refused(error, step, counted)


def refuse_budget(log: RunLog, intent: Intent, error: GuardError, step: int | None) -> Refused:
    """A call over budget takes no step when the steps themselves are used up."""
    return refuse(log, intent, error, step if step is not None else log.last_step)


def decision(intent: Intent) -> dict[str, Any]:
    """Return what an event says of the call that is decided on."""
    fact = {
        "tool": intent.tool, "effect": intent.effect, "key": intent.key, "rule": intent.rule,
        "payload_hash": intent.payload_hash, "contract": intent.contract_version,
        "policy": intent.policy_version,
    }  # fmt: skip
    return fact if intent.call_id is None else {**fact, "call_id": intent.call_id}


def staged(intent: Intent, earned: str | None, demoted: tuple[str, str] | None = None) -> Intent:
    """Return the call with what people have to decide, now that its tool's stage is known.

    A start that passes here goes on with the stage that it has seen: what stands on record of an
    earlier decision is not decided again. Where a service level has *demoted* the call, nothing
    that was allowed before counts, only what people have approved.
    """
    if demoted is not None and _goes_on(intent):
        demoted = None
    if demoted is None and earned is None and intent.ceiling == intent.begins == "auto":
        return intent  # as most are
    own = lowest(intent.ceiling, earned or intent.begins)
    stage = own if demoted is None else lowest(own, demoted[0])
    if stage == "auto":
        return intent
    held = None if demoted is None else demoted[1]
    if stage == "approve" and intent.ask is not None:
        return replace(intent, demoted=held)
    whom = intent.ask or intent.who or _ANYBODY
    rule = f"autonomy: {stage}" + (f" ({demoted[1]})" if demoted and stage != own else "")
    return replace(intent, ask=replace(whom, rule=rule, stage=stage), demoted=held)


def _goes_on(intent: Intent) -> bool:
    """Undoing goes on under a demotion, and so does a read that no configuration stages."""
    return intent.undoes is not None or not (intent.effect == "write" or intent.staged)


def ask_people(
    tx: Tx, log: RunLog, intent: Intent, ask: Ask, row: EffectRow | None, generation: int,
    step: int | None,
) -> Waiting | Drafted | Unproven | Refused:  # fmt: skip
    """Write down that people have to decide, or what they may execute by themselves."""
    if intent.executes is not None:
        return _lapsed(intent)
    if ask.stage == "propose" and intent.proposal is None:
        return Unproven()
    full = _over(log, intent, step)
    if full is not None:
        return refuse_budget(log, intent, full, step)
    counted = step is None
    step = log.next_step() if step is None else step
    fact = {**decision(intent), "decision": "ask", "rule": ask.rule, **plans.fact(intent)}
    if intent.demoted is not None and ask.rule.endswith(f"({intent.demoted})"):
        fact["demoted"] = intent.demoted  # nobody would have been asked otherwise
    log.add(Draft("step.decided", fact, step, {"arguments": intent.arguments}))
    approval = approvals.request(tx, log, intent, ask, step, generation)
    _wait(tx, intent, row, step, approval)
    return waiting(approval, step, counted=counted)


def _over(log: RunLog, intent: Intent, step: int | None) -> GuardError | None:
    if intent.limits is None:
        return None
    return log.over(intent.limits, step=step is None, tool=True, model=False, cost=0)


def _lapsed(intent: Intent) -> Refused:
    """A person executes what was approved; nothing is asked for by the way."""
    return Refused(DecisionRefused(
        f"{intent.executes} is not what would run now: its time is over, or the tool's contract or"
        " policy is another one than that it was approved under; nothing was started"
    ))  # fmt: skip


def waiting(approval: Approval, step: int, *, counted: bool = False) -> Waiting | Drafted:
    """Return what a caller is told of an approval that nobody has used yet."""
    kind = Waiting if approval.stage is None else Drafted
    return kind(approval, step, counted)


def _wait(tx: Tx, intent: Intent, row: EffectRow | None, step: int, approval: Approval) -> None:
    """Write that nothing starts under the key until people have decided."""
    written = new_row(tx, intent) if row is None else row
    written.take(intent, intent.run.run_id, step)
    written.state, written.error = EffectState.AWAITING_APPROVAL, None
    written.generation, written.approval_id = approval.generation, approval.id
    written.insert(tx) if row is None else written.update(tx)


def new_row(tx: Tx, intent: Intent) -> EffectRow:
    """Return the row of a key that is free, not written yet."""
    return EffectRow(intent.run.tenant, intent.key, created_at=tx.now)


def again(intent: Intent, approval: Approval | None) -> Ask:
    """Once a person had to decide, a person has to decide, whatever the rule says now."""
    drafted = approval.stage if approval else None
    if intent.ask is not None:
        if drafted is None:
            return intent.ask
        stage = lowest(intent.ask.stage, drafted)
        return replace(intent.ask, rule=f"autonomy: {stage}", stage=stage)
    if approval is None:
        return Ask("asked before")
    return Ask(f"{approval.rule} (asked before)", approval.roles, approval.quorum,
               allow_edit=approval.allow_edit, stage=drafted)  # fmt: skip


def may_repeat(tx: Tx, intent: Intent, row: EffectRow) -> bool:
    """Return whether this caller may start a body in doubt once more: a draft's starts are people's.

    Under a demotion so is every start that people have not approved.
    """
    if row.approval_id is None:
        return intent.demoted is None
    if intent.executes is not None:
        return True
    approval = approvals.load(tx, row.tenant, row.approval_id)
    return approval is None or approval.stage not in DRAFTED


def denied(tx: Tx, log: RunLog, intent: Intent, row: EffectRow, approval: Approval) -> Refused:
    """Write down that the agent has heard a no, or that the time is over."""
    if approval.status == "expired":
        with record_of(tx, log, approval.run_id) as own:
            approvals.expire(tx, own, approval)
        error: GuardError = ApprovalExpired(f"{row.tool}: nobody decided on {approval.id} in time")
    else:
        error = rejected(row, approval)
    row.state, row.finished_at, row.doubt_reason = EffectState.DENIED, tx.now, None
    row.error = json.dumps({"kind": error.kind})
    row.update(tx)
    return refuse(log, intent, error, row.step)


def rejected(row: EffectRow, approval: Approval) -> ApprovalRejected:
    """Return what an agent is told of a no."""
    who = ", ".join(d.person for d in approval.decisions if d.decision == "reject")
    reason = approval.reason() or "no reason given"
    return ApprovalRejected(f"{row.tool} was rejected by {who}: {reason}", approval=approval)
