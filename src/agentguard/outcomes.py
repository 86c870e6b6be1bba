"""How a run came out, in one word: the same for its record, its span, its metrics and service levels."""

from __future__ import annotations

RUN_OUTCOMES = ("success", "failure", "escalated", "budget_exceeded", "aborted", "pending")
"""All there are. `pending` is no end: people are asked, and the run goes on when they have decided."""
_OVER_BUDGET = frozenset({"budget_exceeded", "loop_detected"})
_BY_PEOPLE = frozenset({"approval_rejected", "approval_expired", "action_drafted", "fell_back"})
"""Nobody but people could go on, and they said no, or nothing, or have it now."""
_STOPPED = frozenset(
    {"run_halted", "CancelledError", "KeyboardInterrupt", "SystemExit", "GeneratorExit"}
)
"""Somebody wanted no more of it, as who closes the stream that it feeds."""


def run_outcome(status: str, error_kind: str | None = None, ending: str | None = None) -> str:
    """Return how a run came out.

    Args:
        status: how it stands once it is left: `succeeded`, `failed`, `halted`, `cancelled`,
            `waiting`.
        error_kind: the kind of the error that ended it: a `GuardError.kind`, or the name of
            another exception's class; None if none did.
        ending: the safe ending that closed its write path, such as `ticket`; None where there is
            none, and of a question that was answered.
    """
    if status in ("waiting", "running"):
        return "pending"
    if status == "cancelled":
        return "aborted"
    if ending is not None:
        return "escalated"
    if status == "halted":
        return "aborted"
    return "success" if status == "succeeded" else _failed(error_kind)


def _failed(kind: str | None) -> str:
    if kind in _OVER_BUDGET:
        return "budget_exceeded"
    if kind in _STOPPED:
        return "aborted"
    return "escalated" if kind in _BY_PEOPLE else "failure"
