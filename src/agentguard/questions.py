"""What a waiting call asks and how people answer: one shape in every agent runtime.

A runtime hands answers back by place or by number, and hands old ones out again. So an answer is
taken by the approval it names, never by where it arrived, and only the store says what was decided.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import DecisionRefused, GuardError
from .run import active_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .guard import Guard
    from .model import Approval

_WORDS = {
    "approval_id": str, "generation": int, "decision": str, "by": str, "roles": list,
    "reason": str, "edits": dict,
}  # fmt: skip
_NEEDED = ("approval_id", "decision", "by")
_MARKS = {"approval_id", "decision"}
_UNNAMED = "The answer named no approval, so nobody was taken to have decided."


def question(
    approval: Approval, problem: str | None = None, *, how: str | None = None
) -> dict[str, Any]:
    """Return what a paused call shows to whoever can answer, in plain JSON types.

    Args:
        approval: what waits, with sensitive arguments hidden already.
        problem: why the last answer decided nothing, if there was one.
        how: the sentence that says how to answer in this runtime.
    """
    answer = {"approval_id": approval.id, "generation": approval.generation}
    shown = {
        "type": "agentguard.approval",
        **answer,
        "tool": approval.tool,
        "arguments": dict(approval.arguments),
        "rule": approval.rule,
        "roles": list(approval.roles),
        "quorum": approval.quorum,
        "requested_by": approval.requested_by,
        "expires_at": approval.expires_at.isoformat(),
        "allow_edit": approval.allow_edit,
        "resume": {**answer, "decision": "approve or reject", "by": "", "roles": [], "reason": ""},
        "how": how
        or f"Answer with the fields of `resume`, or: agentguard approvals approve {approval.id}"
        " --by NAME, and run this again.",
    }
    return shown if problem is None else {**shown, "problem": problem}


def is_decision(value: Any) -> bool:
    """Return whether an answer is a decision, or a list of them, that name their approvals."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, dict) and v.keys() >= _MARKS for v in values)


def hand_over(guard: Guard, value: Any, *, tenant: str | None = None) -> dict[str, str]:
    """Hand the decisions in *value*, one or a list, to the store; bad ones decide nothing.

    Args:
        guard: whose approvals they are.
        value: what the runtime brought back.
        tenant: look only there; in the tenant of the active run if omitted.

    Returns:
        What was refused, and why, by approval id; under `""` if *value* is no decision.
    """
    if not is_decision(value):
        return {"": _UNNAMED}
    run = active_run()
    where = tenant if tenant is not None or run is None else run.principal.tenant
    refused: dict[str, str] = {}
    for decision in value if isinstance(value, list) else [value]:
        try:
            _decide(guard, where, **_checked(decision))
        except GuardError as refusal:
            refused[str(decision["approval_id"])] = refusal.message
    return refused


def edits_note(edits: Mapping[str, Any]) -> str:
    """Return the sentence that tells the model what a person changed in its call."""
    return f"A person changed the arguments before this ran: {json.dumps(dict(edits))}"


def _checked(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decision that has what it needs and nothing else.

    Raises:
        DecisionRefused: with the sentence that says what is wrong.
    """
    for name in decision:
        if name not in _WORDS:
            raise DecisionRefused(f"a decision has no field {name!r}, only {', '.join(_WORDS)}")
    for name, kind in _WORDS.items():
        if name in decision and not isinstance(decision[name], kind):
            raise DecisionRefused(f"{name} in a decision must be a {kind.__name__}")
    for name in _NEEDED:
        if not decision.get(name):
            raise DecisionRefused(f"a decision must say {name}")
    return dict(decision)


def _decide(
    guard: Guard, tenant: str | None, *, approval_id: str, decision: str, by: str,
    generation: int = 1, **more: Any,
) -> None:  # fmt: skip
    """Decide; who names no generation has seen the first, not what an edit made of it."""
    guard.approvals.decide(
        approval_id, decision, by=by, generation=generation, tenant=tenant, **more
    )
