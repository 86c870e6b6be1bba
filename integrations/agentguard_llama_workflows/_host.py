"""What a guarded call may ask of LlamaIndex: which call this is, and a pause."""

# The engine is typed, but pyright misses its marker below the top.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workflows.runtime.types.results import AddWaiter, DeleteWaiter, WaitingForEvent

from agentguard.hosting import Host

from . import _beside
from ._place import current, running_step
from .events import ApprovalDecided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard import Guard
    from agentguard.hosting import CallRef

_WAITER = "agentguard:"


class LlamaIndexHost(Host):
    """LlamaIndex around the guarded calls of one run; outside a workflow it is like plain Python."""

    name = "llamaindex"
    control_flow = (WaitingForEvent,)

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def call(self) -> CallRef | None:
        """Return the model's call, or else the step, whose code runs here."""
        frame = current()
        return frame.ref if frame else None

    def can_pause(self) -> bool:
        """Return whether this code belongs to a step of a guarded workflow.

        A step of another workflow that is run inside would wait for an answer that never comes.
        """
        frame = current()
        return frame is not None and frame.step is running_step()

    def pause(self, approval: Any) -> None:
        """End this execution of the step; it is executed again once the store has a decision."""
        now = self._guard.approvals.show(approval.id, tenant=approval.tenant)
        if self.can_pause() and now.status == "pending":
            waiter: AddWaiter[Any] = AddWaiter(
                waiter_id=f"{_WAITER}{approval.id}", event_type=ApprovalDecided,
                requirements=requirements(approval.id),
            )  # fmt: skip
            raise WaitingForEvent(waiter)

    def tool_span(self, tool: str) -> Any:
        """Return OpenInference's span of the tool that runs here."""
        return _beside.tool_span(tool)

    def edited(self, result: Any, edits: Mapping[str, Any]) -> Any:
        """Leave the result to the code that asked for it, and see that the model is told."""
        if frame := current():
            frame.edits.update(edits)
        return result


def requirements(approval_id: str) -> dict[str, Any]:
    """Return what an event must have to wake the step that waits for this approval."""
    return {"approval_id": approval_id}


def approval_of(waiter_id: str) -> str | None:
    """Return the approval that a waiter of ours waits for; None for the workflow's own."""
    return waiter_id.removeprefix(_WAITER) if waiter_id.startswith(_WAITER) else None


def forget_waiters() -> None:
    """Have the waiters of this piece of work removed once its step has done it."""
    if step := running_step():
        step.returns.return_values.extend(
            DeleteWaiter(waiter_id=waiter.waiter_id)
            for waiter in step.state.collected_waiters
            if approval_of(waiter.waiter_id) and waiter.work_item_id == step.state.work_item_id
        )
