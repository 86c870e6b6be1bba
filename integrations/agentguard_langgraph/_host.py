"""What a guarded call may ask of LangGraph: which call this is, a pause, the right exception."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphBubbleUp
from langgraph.types import interrupt

from agentguard.hosting import hand_over, question
from agentguard_langchain import LangChainHost
from agentguard_langchain.hosting import tool_call

from . import _errors, _node, _resume

if TYPE_CHECKING:
    from agentguard import Guard, GuardError
    from agentguard.hosting import CallRef


class LangGraphHost(LangChainHost):
    """LangGraph around the guarded calls of one run; outside a graph it is like plain Python."""

    name = "langgraph"
    control_flow = (GraphBubbleUp, GeneratorExit)  # the latter closes a stream early

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._problems: dict[str, str | None] = {}
        self._taking = Lock()

    def call(self) -> CallRef | None:
        """Return the tool call that runs here; first hand over decisions that came this way."""
        self.take_decisions()
        return super().call()

    def can_pause(self) -> bool:
        """Return whether there is a checkpointer, so that a pause can be resumed."""
        return _node.can_pause()

    def pause(self, approval: Any) -> None:
        """Interrupt the graph until a person has decided, in whichever way the store was told."""
        if not self.can_pause():
            return
        self.take_decisions()
        while (waiting := self._guard.approvals.show(approval.id)).status == "pending":
            how = _resume.how(waiting.id)
            value = interrupt(question(waiting, self._problems.get(waiting.id), how=how))
            refused = hand_over(self._guard, value)
            self._problems[waiting.id] = refused.get(waiting.id) or refused.get("")

    def failure(self, error: GuardError) -> BaseException:
        """Return the exception that LangGraph brings to whom it concerns."""
        if not _node.is_task():
            return error
        if _errors.reaches_caller(error):
            return _errors.for_caller(error)
        return _errors.for_model(error) if tool_call() else error

    def take_decisions(self) -> None:
        """Hand over the decisions that the running task was resumed with, whosever they are."""
        # Parallel calls of one task share its resume values: who looks for its own decision in
        # the store must not do so while another call is still carrying it there.
        with self._taking:
            for answer in _resume.take():
                self._problems.update(hand_over(self._guard, answer))
