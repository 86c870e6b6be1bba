"""A person executes a draft: exactly the call that was written down, under its step and its key."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ._runtime import AsyncioRuntime, InlineRuntime, run_inline
from .declaration import declaration_of
from .errors import ConfigurationError, DecisionRefused, PermissionDenied
from .ledger import drafts
from .ledger.approvals import is_person, same_person
from .model import Principal
from .run import enter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from .model import Approval
    from .run import Run
    from .tool import Tool


class Executed:
    """One draft, about to be executed.

    Raises:
        DecisionRefused: it is no draft, its tool is not among *tools*, or its record does not hold
            what its arguments were.
        PermissionDenied: *by* is no person, or asked for the call.
    """

    def __init__(self, guard: Any, approval: Approval, by: str, tools: Iterable[Any]) -> None:
        _check_person(approval, by)
        _check_draft(approval)
        self._function, tool = _tool_of(guard, approval, tools)
        self._arguments = tool.arguments.recall(_arguments(guard, approval, tool))
        self._run = _run_of(guard, approval, by)

    def run(self) -> Any:
        """Execute it, and return the result.

        Raises:
            ConfigurationError: the tool is async, and an event loop is running here.
        """
        with enter(self._run):
            result = self._function(**self._arguments)
            if inspect.iscoroutine(result):
                result = _on_a_loop(result)
        run_inline(self._run.flush(InlineRuntime()))
        return result

    async def arun(self) -> Any:
        """Execute it on this event loop, and return the result."""
        with enter(self._run):
            result = self._function(**self._arguments)
            if inspect.isawaitable(result):
                result = await result
        await self._run.flush(AsyncioRuntime())
        return result


def _on_a_loop(result: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # loads longer than all of us

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result)
    result.close()
    raise ConfigurationError(
        "execute: the tool is async and an event loop is running here: await"
        " guard.approvals.aexecute(...)"
    )


def _check_person(approval: Approval, by: str) -> None:
    if not is_person(by):
        raise PermissionDenied("execute: a draft is executed by a person: give by=")
    if same_person(by) == same_person(approval.requested_by):
        raise PermissionDenied(
            f"{by} asked for this call and may not execute it; ask somebody else"
        )


def _check_draft(approval: Approval) -> None:
    if approval.stage is None:
        raise DecisionRefused(
            f"{approval.id} is no draft: once it is approved, run {approval.run_id} makes the call"
            " itself when it goes on"
        )


def _tool_of(
    guard: Any, approval: Approval, tools: Iterable[Any]
) -> tuple[Callable[..., Any], Tool]:
    known = set[str]()
    for function in tools:
        declaration = declaration_of(function)
        if declaration is not None:
            tool: Tool = guard.bind(declaration)
            if tool.name == approval.tool:
                return function, tool
            known.add(tool.name)
    raise DecisionRefused(
        f"execute: {approval.tool} is not among the tools ({', '.join(sorted(known)) or 'none'}): give"
        " its decorated function in tools"
    )


def _arguments(guard: Any, approval: Approval, tool: Tool) -> dict[str, Any]:
    """Return the arguments as the agent gave them; what an editor changed comes with the approval."""
    hidden = sorted(tool.sensitive & approval.arguments.keys())
    if hidden:
        raise DecisionRefused(
            f"{approval.id} cannot be executed: its sensitive argument {hidden[0]} is not on record;"
            ' do it by hand, or let the agent ask with autonomy="approve"'
        )
    found = guard.store.read(drafts.arguments_of, approval)
    if found is None:
        raise DecisionRefused(
            f"{approval.id} cannot be executed: the arguments it was drafted with are not kept any more"
        )
    return dict(found)


def _run_of(guard: Any, approval: Approval, by: str) -> Run:
    """Return the run with a person at work in its record; nothing of it is opened or closed."""
    who = Principal(
        agent=approval.requested_by, subject=approval.on_behalf_of, tenant=approval.tenant
    )
    run: Run = guard.run(run_id=approval.run_id, principal=who)
    run.execution = guard.store.read(drafts.execution, approval, by)
    run.visit(by)
    return run
