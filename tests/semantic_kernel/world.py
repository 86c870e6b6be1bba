"""What the Semantic Kernel tests share: effects one can count, a scripted model, kernels."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, ClassVar

from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent, ChatHistoryAgentThread
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    StreamingChatMessageContent,
    StreamingTextContent,
)
from semantic_kernel.functions import KernelArguments, kernel_function

USAGE = CompletionUsage(prompt_tokens=10, completion_tokens=5)
Reply = str | Sequence[FunctionCallContent] | BaseException


class Scripted(ChatCompletionClientBase):
    """A chat model that says what its script says next, judging by the history it is shown."""

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True
    script: list[Any]
    asked: list[Any]

    def _next(self, history: ChatHistory) -> Reply:
        self.asked.append(
            json.loads(
                history.model_dump_json(exclude={"messages": {"__all__": {"inner_content"}}})
            )
        )
        said = sum(message.role is AuthorRole.ASSISTANT for message in history.messages)
        reply: Reply = self.script[min(said, len(self.script) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        reply = self._next(chat_history)
        assert not isinstance(reply, BaseException)
        said: dict[str, Any] = {"content": reply} if isinstance(reply, str) else {
            "items": [item.model_copy(deep=True) for item in reply]
        }  # fmt: skip
        return [
            ChatMessageContent(
                role=AuthorRole.ASSISTANT, ai_model_id=self.ai_model_id,
                metadata={"usage": USAGE}, **said,
            )
        ]  # fmt: skip

    async def _inner_get_streaming_chat_message_contents(
        self,
        chat_history: ChatHistory,
        settings: PromptExecutionSettings,
        function_invoke_attempt: int = 0,
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        reply = self._next(chat_history)
        assert not isinstance(reply, BaseException)
        words: list[Any] = (
            [StreamingTextContent(choice_index=0, text=w) for w in re.findall(r"\S+\s*", reply)]
            if isinstance(reply, str)
            else [item.model_copy(deep=True) for item in reply]
        )
        for item in words:
            yield [self._piece([item], function_invoke_attempt)]
        yield [self._piece([], function_invoke_attempt, usage=USAGE)]

    def _piece(self, items: list[Any], attempt: int, **metadata: Any) -> Any:
        return StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT, choice_index=0, items=items, ai_model_id=self.ai_model_id,
            function_invoke_attempt=attempt, metadata=metadata,
        )  # fmt: skip


def scripted(*script: Reply, **options: Any) -> Scripted:
    """A model with a script: texts, calls, errors."""
    return Scripted(**{"ai_model_id": "scripted-1", "script": list(script), "asked": [], **options})


def call(*calls: tuple[str, Mapping[str, Any], str]) -> list[FunctionCallContent]:
    """The model calls functions: name, arguments and call id of each."""
    return [
        FunctionCallContent(id=i, index=n, name=f"shop-{name}", arguments=json.dumps(dict(given)))
        for n, (name, given, i) in enumerate(calls)
    ]


def shop(*functions: Any, name: str = "shop") -> Any:
    """A plugin with functions as methods."""
    methods = {f.__name__: kernel_function(f) for f in functions}
    return type(name, (), {n: staticmethod(f) for n, f in methods.items()})()


def kernel_of(model: ChatCompletionClientBase | None, *functions: Any) -> Kernel:
    """A kernel with a model and a plugin `shop`; not guarded."""
    kernel = Kernel(services=[] if model is None else [model])
    for function in functions:
        kernel.add_function("shop", kernel_function(function))
    return kernel


AUTO = FunctionChoiceBehavior.Auto()
KINDS = ("agent", "agent stream", "service", "service stream")
"""The ways to talk to a model with functions that have a history one can go on with."""


class Talk:
    """A conversation with a model through a kernel, in one of the four ways."""

    def __init__(self, kernel: Kernel, kind: str = "agent", saved: str | None = None) -> None:
        self.kernel, self.kind, self.chunks = kernel, kind, 0
        self.history = ChatHistory() if saved is None else ChatHistory.restore_chat_history(saved)
        self.thread = ChatHistoryAgentThread(chat_history=self.history)

    async def ask(self, text: str | None = None, **arguments: Any) -> list[ChatMessageContent]:
        """Say something, or nothing, and return what comes back at the end."""
        given = KernelArguments(**arguments)
        if self.kind.startswith("agent"):
            agent = ChatCompletionAgent(kernel=self.kernel, name="clerk")
            return await self._agent(agent, text, given)
        if text is not None:
            self.history.add_user_message(text)
        chat: Any = self.kernel.get_service(type=ChatCompletionClientBase)
        options = {"kernel": self.kernel, "arguments": given}
        settings = PromptExecutionSettings(function_choice_behavior=AUTO)
        if self.kind == "service":
            answered = chat.get_chat_message_contents(self.history, settings, **options)
            said: list[ChatMessageContent] = await answered
        else:
            said = await self._streamed(chat, settings, options)
        if said and said[0].role is AuthorRole.ASSISTANT:
            self.history.add_message(said[0])
        return said

    async def _agent(
        self, agent: ChatCompletionAgent, text: str | None, given: KernelArguments
    ) -> list[ChatMessageContent]:
        if self.kind == "agent":
            response = await agent.get_response(text, thread=self.thread, arguments=given)
            return [response.message]
        async for _ in agent.invoke_stream(text, thread=self.thread, arguments=given):
            self.chunks += 1
        last = [m for m in self.history.messages if m.role is AuthorRole.ASSISTANT][-1]
        after = self.history.messages[self.history.messages.index(last) + 1 :]
        return [m for m in after if m.role is AuthorRole.TOOL] or [last]

    async def _streamed(self, chat: Any, settings: Any, options: Any) -> list[ChatMessageContent]:
        said: list[Any] = []
        steps = chat.get_streaming_chat_message_contents(self.history, settings, **options)
        async for (piece,) in steps:
            self.chunks += 1
            said = [piece] if said and piece.role is not said[0].role else [*said, piece]
        text = "".join(str(piece) for piece in said)
        if said[-1].role is AuthorRole.ASSISTANT:
            return [ChatMessageContent(role=AuthorRole.ASSISTANT, content=text)]
        return said

    @property
    def saved(self) -> str:
        """The conversation, as an application keeps it."""
        return self.history.serialize()

    @property
    def results(self) -> dict[str, str]:
        """What the history has as results of calls, by call id."""
        return {str(r.id): str(r.result) for r in results_in(self.history)}


def results_in(messages: Any) -> list[FunctionResultContent]:
    """Return the results of calls in *messages*."""
    return [i for m in messages for i in m.items if isinstance(i, FunctionResultContent)]
