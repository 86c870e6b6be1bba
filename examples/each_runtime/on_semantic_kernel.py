"""Semantic Kernel: a `ChatCompletionAgent`, its kernel guarded by one line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent, ChatHistoryAgentThread
from semantic_kernel.contents import AuthorRole, ChatHistory
from semantic_kernel.filters import AutoFunctionInvocationContext, FilterTypes
from semantic_kernel.functions import kernel_function

from agentguard import Guard
from agentguard_semantic_kernel import guard_kernel, questions

from .desk import INSTRUCTIONS, TOOLS, WHO, find_tickets, keep, kept
from .scripted.semantic_kernel import ScriptedModel


async def handle(task: str, guard: Guard, run_id: str, saved: Path) -> list[dict[str, Any]]:
    """Work on a task as far as it goes, or go on with it; return what waits for people."""
    kernel = guard_kernel(Kernel(services=[ScriptedModel()]), guard)
    for tool in TOOLS:
        kernel.add_function("desk", kernel_function(tool))
    kernel.add_function("crm", kernel_function(find_tickets))
    kernel.add_filter(FilterTypes.AUTO_FUNCTION_INVOCATION, keeping(saved))
    agent = ChatCompletionAgent(kernel=kernel, name="support", instructions=INSTRUCTIONS)

    begun = kept(saved)
    history = ChatHistory.restore_chat_history(begun) if begun else ChatHistory()
    thread = ChatHistoryAgentThread(chat_history=history)
    async with guard.run(run_id=run_id, principal=WHO):
        response = await agent.get_response(None if begun else task, thread=thread)
    keep(saved, history.serialize())
    return questions([response.message])


def keeping(saved: Path) -> Any:
    """Return a filter that keeps the history before each call; an agent shows it only in the end."""

    async def before(
        context: AutoFunctionInvocationContext,
        next: Callable[[AutoFunctionInvocationContext], Awaitable[None]],  # noqa: A002 - SK's name
    ) -> None:
        messages = [m for m in context.chat_history or () if m.role is not AuthorRole.SYSTEM]
        keep(saved, ChatHistory(messages=messages).serialize())
        await next(context)

    return before
