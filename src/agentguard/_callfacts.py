"""What a tool's span says of its call once that has ended: decision, people, budget, cost, verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _metrics
from ._evaluations import label
from .canonical import keyed_hash
from .errors import BudgetExceeded, FellBack
from .model import dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ._told import Told
    from .model import Approval
    from .tool import Call

ERRORS = frozenset({"error", "denied", "rejected", "skipped_budget"})
_OUTCOMES = {
    "approval_required": "pending",
    "action_drafted": "pending",
    "approval_rejected": "rejected",
    "approval_expired": "denied",
    "rate_limited": "denied",
    "budget_exceeded": "skipped_budget",
    "loop_detected": "skipped_budget",
    "permission_denied": "denied",
    "forbidden_action": "denied",
    "run_halted": "denied",
    "plan_violation": "denied",
    "idempotency_conflict": "denied",
    "circuit_open": "denied",
}
_ENDINGS = ("draft", "ticket", "ask")
_SHORT = 16
"""So many digits of a keyed hash tell people of one tenant apart and name nobody."""


def tool_outcome(error: BaseException) -> str:
    """Return how a call ended that was ended by *error*; a safe ending hides nothing of its cause."""
    kind = error.cause_kind if isinstance(error, FellBack) else getattr(error, "kind", "")
    return _OUTCOMES.get(kind, "error")


def facts_of(call: Call | None, error: BaseException | None, secret: bytes) -> dict[str, Any]:
    """Return the attributes that tell of a call's decision and of what became of it."""
    if call is None:
        facts: dict[str, Any] = {"agentguard.policy.decision": "deny"}
    else:
        facts = _decided(call)
    told = None if call is None else call.told
    approval = _approval(told, error)
    if approval is not None:
        facts |= _of_people(approval, secret)
    if told is not None:
        facts |= _learned(told)
    if error is not None:
        facts |= refused(error)
    return facts


def count(
    workflow: str, told: Told | None, error: BaseException | None, tool: str, *, fresh: bool
) -> None:
    """Tell metrics what became of a call; a *fresh* error is one that nobody has told of before."""
    if told is not None:
        _count_told(workflow, told, tool)
    if error is None or not fresh:
        return
    for over in _budgets(error):
        _metrics.budget_exceeded(over.budget)
    if (reason := reason_of(error)) is not None:
        _metrics.escalated(workflow, reason)
    approval: Approval | None = getattr(error, "approval", None)
    if (
        approval is not None
        and approval.status == "rejected"
        and (told is None or not told.granted)
    ):
        _metrics.waited(tool, "rejected", _wait(approval) or 0.0)


def _count_told(workflow: str, told: Told, tool: str) -> None:
    if told.escalated is not None:
        _metrics.escalated(workflow, told.escalated)
    if told.granted and told.approval is not None:
        _metrics.waited(tool, "approved", _wait(told.approval) or 0.0)
    if told.cost:
        _metrics.cost(workflow, "tool", dollars(told.cost))


def is_first(error: BaseException) -> bool:
    """Return whether *error* is told for the first time: it passes every call around it."""
    if getattr(error, "told", True):
        return False
    error.told = True  # type: ignore[attr-defined]
    return True


def reason_of(error: BaseException | None) -> str | None:
    """Return in one word with what a run turned to people instead, if *error* is that ending."""
    if not isinstance(error, FellBack):
        return None
    return f"fallback_{error.ending if error.ending in _ENDINGS else 'own'}"


def type_of(error: BaseException) -> str:
    """Return the name of an exception's class, with its module unless that is Python's own."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _decided(call: Call) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "agentguard.tool.attempt": call.attempt,
        "agentguard.tool.args_sha256": call.payload_hash,
        "agentguard.idempotency.replayed": call.replayed,
        "agentguard.policy.decision": call.decision,
    }
    some = (
        ("agentguard.idempotency.key_sha256", call.idempotency_key or None),
        ("agentguard.policy.rule", call.rule),
        ("agentguard.approval.id", call.approval_id),
        ("agentguard.run.step", call.step),
    )
    facts |= {name: fact for name, fact in some if fact is not None}
    if call.retrieved is not None:
        facts["agentguard.retrieval.documents"] = len(call.retrieved)
    return facts


def _approval(told: Told | None, error: BaseException | None) -> Approval | None:
    given: Approval | None = getattr(error, "approval", None)
    return given if given is not None or told is None else told.approval


def _of_people(approval: Approval, secret: bytes) -> dict[str, Any]:
    """Return what people said. Who it was is a keyed hash: the name stands in the record alone."""
    used = approval.status == "used"
    facts: dict[str, Any] = {
        "agentguard.approval.id": approval.id,
        "agentguard.approval.status": "approved" if used else approval.status,
    }
    wait = _wait(approval)
    if wait is not None:
        who = approval.decisions[-1].person
        facts["agentguard.approval.approver_ref"] = keyed_hash(secret, who.encode())[:_SHORT]
        facts["agentguard.approval.wait_s"] = wait
    return facts


def _wait(approval: Approval) -> float | None:
    """Return the seconds from the question to the decision that ended it."""
    if not approval.decisions or approval.status == "pending":
        return None
    return max(0.0, (approval.decisions[-1].at - approval.created_at).total_seconds())


def _learned(told: Told) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if told.escalated is not None:
        facts["agentguard.escalation.reason"] = told.escalated
    if told.cost:
        facts |= {
            "agentguard.cost.usd": float(dollars(told.cost)),
            "agentguard.cost.source": "local",
        }
    return facts | of_verdicts(told.verdicts)


def of_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return verifiers and what they said, in the same order."""
    if not verdicts:
        return {}
    return {
        "agentguard.verifier.name": [str(verdict["verifier"]) for verdict in verdicts],
        "agentguard.verifier.verdict": [label(verdict) for verdict in verdicts],
    }


def refused(error: BaseException) -> dict[str, Any]:
    """Return what *error* says of a budget, and of whom the run turned to instead."""
    facts: dict[str, Any] = {}
    reason = reason_of(error)
    if reason is not None:
        facts["agentguard.escalation.reason"] = reason
    for over in _budgets(error):
        facts |= {
            "agentguard.budget.name": over.budget,
            "agentguard.budget.limit": over.limit,
            "agentguard.budget.used": over.used,
            "agentguard.budget.action": "refused" if reason is None else reason,
        }
    return facts


def _budgets(error: BaseException) -> Iterator[BudgetExceeded]:
    """Return the budget that had no room, if that is what *error* tells, or what led to it."""
    cause = error.__cause__ if isinstance(error, FellBack) else error
    if isinstance(cause, BudgetExceeded):
        yield cause
