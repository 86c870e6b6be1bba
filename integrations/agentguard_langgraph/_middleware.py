"""A middleware for `create_agent`: the run and the right errors, also without `guard_graph`."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentMiddleware, AgentState, PrivateStateAttr
from langchain_core.messages import ToolMessage

from agentguard import GuardError, current_run
from agentguard.hosting import RunIdOf, Who, active_run

from . import _errors, _node
from ._entry import GraphEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from langchain.agents.middleware.types import ModelRequest, ModelResponse, ToolCallRequest
    from langgraph.runtime import Runtime
    from langgraph.types import Command

    from agentguard import Guard
    from agentguard.hosting import Blocks

    Asked = ModelRequest[Any]
    Answer = ModelResponse[Any]
    Told = ToolMessage | Command[Any]
    Update = dict[str, Any] | None


class GuardedState(AgentState[Any]):
    """The agent's state, with the id of a run that has no thread to be named after."""

    agentguard_run: NotRequired[Annotated[str, PrivateStateAttr]]


class GuardMiddleware(AgentMiddleware[GuardedState, Any, Any]):
    """Guards an agent of `create_agent`; put it first among the middlewares.

    Inside a guarded graph it changes nothing. Without one it joins the run around every model and
    tool call, and says nothing of an agent that fails between them, so prefer `guard_graph` where
    you hold the compiled agent.
    """

    state_schema = GuardedState

    def __init__(
        self, guard: Guard, *, workflow: str | None = None, principal: Who = None,
        run_id: RunIdOf = None, **budget: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name = workflow or guard.settings.workflow or "agent"
        self._entry = GraphEntry(guard, name, principal, run_id, budget, in_task=True)

    def before_agent(self, state: GuardedState, runtime: Runtime[Any]) -> Update:  # noqa: ARG002 - LangChain's names
        """Give the run an id, if nothing else does; it is kept with the state."""
        if active_run() is not None or self._entry.named():
            return None
        return {"agentguard_run": f"run_{uuid.uuid4().hex[:16]}"}

    async def abefore_agent(self, state: GuardedState, runtime: Runtime[Any]) -> Update:
        """Give the run an id, if nothing else does; it is kept with the state."""
        return self.before_agent(state, runtime)

    def after_agent(self, state: GuardedState, runtime: Runtime[Any]) -> None:  # noqa: ARG002 - LangChain's names
        """End the run that was entered around every single call."""
        with self._run(state):
            current_run().finish()

    async def aafter_agent(self, state: GuardedState, runtime: Runtime[Any]) -> None:  # noqa: ARG002 - LangChain's names
        """End the run that was entered around every single call."""
        async with self._run(state):
            current_run().finish()

    def wrap_model_call(self, request: Asked, handler: Callable[[Asked], Answer]) -> Answer:
        """Call the model inside the run, which counts the call."""
        with self._run(request.state):
            return handler(request)

    async def awrap_model_call(
        self, request: Asked, handler: Callable[[Asked], Awaitable[Answer]]
    ) -> Answer:
        """Call the model inside the run, which counts the call."""
        async with self._run(request.state):
            return await handler(request)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Told]
    ) -> Told:
        """Call the tool inside the run; tell the model about refusals."""
        try:
            with self._run(request.state):
                return handler(request)
        except GuardError as error:
            return _told(request, error)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Told]]
    ) -> Told:
        """Call the tool inside the run; tell the model about refusals."""
        try:
            async with self._run(request.state):
                return await handler(request)
        except GuardError as error:
            return _told(request, error)

    def _run(self, state: Any) -> Blocks[Any]:
        """Return the run that this task joins, to be entered."""
        run_id = state.get("agentguard_run") if isinstance(state, dict) else None
        entry = replace(self._entry, run_id=run_id) if run_id else self._entry
        return entry.entered(_node.configuration())


def _told(request: ToolCallRequest, error: GuardError) -> ToolMessage:
    """Return what the model is told of *error*, unless it is for the caller."""
    if _errors.reaches_caller(error):
        raise _errors.for_caller(error)
    call = request.tool_call
    return ToolMessage(
        error.for_model(), name=call["name"], tool_call_id=call["id"] or "", status="error"
    )
