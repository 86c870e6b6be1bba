"""What people answer to an interrupt: decisions that name their approval, wherever they arrive.

LangGraph hands resume values to a task's `interrupt()` calls in the order in which they happen to
be made, and hands out old ones again whenever the task runs again. So a decision is taken by its
name, never by its place; it leaves the queue, so that the user's own `interrupt()` later in the
same task gets the value that was meant for it.
"""

from __future__ import annotations

from typing import Any

from agentguard.hosting import is_decision

from . import _node


def how(approval_id: str) -> str:
    """Return the sentence that says how to answer an interrupt."""
    return (
        f"Resume with the fields of `resume`, or: agentguard approvals approve {approval_id}"
        " --by NAME, and invoke the graph again with None."
    )


def take() -> list[Any]:
    """Take the decisions, or lists of them, out of what the running task was resumed with."""
    pad = _node.scratchpad()
    if pad is None:
        return []
    found = [value for value in pad.resume if is_decision(value)]
    if found:
        pad.resume[:] = [value for value in pad.resume if not is_decision(value)]
    if is_decision(pad.get_null_resume(False)):
        found.append(pad.get_null_resume(True))
    # A value that was consumed can still be seen, but comes as None.
    return [value for value in found if value is not None]
