"""What people answer to an interrupt: decisions that name their approval, wherever they arrive.

LangGraph hands resume values to a task's `interrupt()` calls in the order in which they happen to
be made, and hands out old ones again whenever the task runs again. So a decision is taken by its
name, never by its place; it leaves the queue, so that the user's own `interrupt()` later in the
same task gets the value that was meant for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentguard import DecisionRefused

from . import _node

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {
    "approval_id": str, "generation": int, "decision": str, "by": str, "roles": list,
    "reason": str, "edits": dict,
}  # fmt: skip
_NEEDED = ("approval_id", "decision", "by")
_MARKS = {"approval_id", "decision"}


def question(approval: Any, problem: str | None) -> dict[str, Any]:
    """Return what the graph's caller sees of a waiting approval, in plain JSON types."""
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
        "how": f"Resume with the fields of `resume`, or: agentguard approvals approve {approval.id}"
        " --by NAME, and invoke the graph again with None.",
    }
    return shown if problem is None else {**shown, "problem": problem}


def is_decision(value: Any) -> bool:
    """Return whether a resume value is a decision, or several, that name their approvals."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, dict) and v.keys() >= _MARKS for v in values)


def take() -> list[dict[str, Any]]:
    """Take the decisions out of what the running task was resumed with."""
    pad = _node.scratchpad()
    if pad is None:
        return []
    found = [value for value in pad.resume if is_decision(value)]
    if found:
        pad.resume[:] = [value for value in pad.resume if not is_decision(value)]
    if is_decision(pad.get_null_resume(False)):
        found.append(pad.get_null_resume(True))
    # A value that was consumed can still be seen, but comes as None.
    return [decision for value in found if value is not None for decision in flat(value)]


def flat(value: Any) -> list[dict[str, Any]]:
    """Return one or several decisions as a list."""
    return list(value) if isinstance(value, list) else [value]


def checked(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decision that has what it needs and nothing else.

    Raises:
        DecisionRefused: with the sentence that says what is wrong.
    """
    for name in decision:
        if name not in _WORDS:
            raise DecisionRefused(f"a resume value has no field {name!r}, only {', '.join(_WORDS)}")
    for name, kind in _WORDS.items():
        if name in decision and not isinstance(decision[name], kind):
            raise DecisionRefused(f"{name} in a resume value must be a {kind.__name__}")
    for name in _NEEDED:
        if not decision.get(name):
            raise DecisionRefused(f"a resume value must say {name}")
    return dict(decision)
