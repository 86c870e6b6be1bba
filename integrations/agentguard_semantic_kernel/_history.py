"""Going on with a history: what the model called and has no result yet is carried out first.

A call that waits for people, or was kept from starting, has a placeholder for a result. A call of
a process that died has none at all. Either is the same call when it is carried out later, so
nothing that was written is written again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from semantic_kernel.contents import ChatHistory, ChatMessageContent, FunctionCallContent
from semantic_kernel.contents.function_result_content import FunctionResultContent

from ._call import STAMP, Turn, place_of

UNFINISHED = "agentguard_unfinished"
QUESTION = "agentguard_approval"


def questions(messages: ChatHistory | list[ChatMessageContent]) -> list[dict[str, Any]]:
    """Return what the calls in *messages* wait for, as plain JSON types.

    Args:
        messages: a `ChatHistory`, or a list of what a kernel, an agent or a service answered.
    """
    results = [item for message in messages for item in message.items]
    return [item.metadata[QUESTION] for item in results if QUESTION in item.metadata]


class Batch:
    """What a model called when it last said something in a history, with the results."""

    def __init__(self, history: ChatHistory) -> None:
        self._history = history
        spoken = [n for n, m in enumerate(history.messages) if m.role == "assistant"]
        self._at = spoken[-1] if spoken else len(history.messages)
        said = history.messages[self._at : self._at + 1]
        results = [r for message in self.messages for r in _of(message, FunctionResultContent)]
        pairs = [(c, _taken(results, c)) for m in said for c in _of(m, FunctionCallContent)]
        self.unfinished = [(c, r) for c, r in pairs if r is None or UNFINISHED in r.metadata]
        stamps = [c.metadata[STAMP] for c, _ in self.unfinished if STAMP in c.metadata]
        self.run_id: str | None = stamps[0][0] if stamps else None

    @property
    def messages(self) -> list[ChatMessageContent]:
        """What came after the calls."""
        return self._history.messages[self._at + 1 :]

    async def carry_out(self, turn: Turn, settings: Any, arguments: Any) -> bool | None:
        """Carry the unfinished calls out, if there are any; return whether the turn ends with that.

        Who calls functions without Semantic Kernel goes on without it.
        """
        behavior, kernel = settings.function_choice_behavior, turn.kernel
        calls_itself = behavior and behavior.auto_invoke_kernel_functions
        if not (kernel and calls_itself and self.unfinished):
            return None
        calls = [call for call, _ in self.unfinished]
        for call in calls:
            place_of(call, self._history, turn.run)
        histories = [ChatHistory(messages=[*self._history.messages]) for _ in calls]
        invoke = partial(
            kernel.invoke_function_call, arguments=arguments, execution_settings=settings,
            function_call_count=len(calls), function_behavior=behavior,
        )  # fmt: skip
        contexts = await asyncio.gather(*map(invoke, calls, histories))
        for (_, old), history in zip(self.unfinished, histories, strict=True):
            self._put(old, history.messages[-1])
        return any(context is not None for context in contexts)  # a filter wants it to end

    def _put(self, old: FunctionResultContent | None, message: ChatMessageContent) -> None:
        if old is None:
            results = [*(bool(_of(m, FunctionResultContent)) for m in self.messages), False]
            self._history.messages.insert(self._at + 1 + results.index(False), message)
            return
        (new,) = _of(message, FunctionResultContent)
        # In its place: an agent's thread holds the same object.
        old.result, old.inner_content, old.metadata = new.result, new.inner_content, new.metadata


def _of(message: ChatMessageContent, kind: type[Any]) -> list[Any]:
    return [item for item in message.items if isinstance(item, kind)]


def _taken(results: list[Any], call: FunctionCallContent) -> Any:
    """Take the result of *call*: some models give no ids, and results come in any order."""
    keys = [result.metadata.get(STAMP, [result.id]) for result in results]
    wanted = call.metadata.get(STAMP), [call.id or "unknown"]
    found = [n for n, key in enumerate(keys) if key in wanted]
    return results.pop(found[0]) if found else None
