"""What the LlamaIndex tests share: effects one can count, a scripted model, small workflows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any

from llama_index.core.agent.workflow import (
    AgentWorkflow,
    FunctionAgent,
    ToolCallResult,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import FunctionTool
from workflows import Context
from workflows.events import HumanResponseEvent, InputRequiredEvent, StopEvent, WorkflowIdleEvent

USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


Answer: Any = HumanResponseEvent  # both take any fields, which no type checker can see
Question: Any = InputRequiredEvent


class Scripted(FunctionCallingLLM):
    """A model that says what its script says next, judging by the history it is shown."""

    script: list[Any]

    @property
    def metadata(self) -> LLMMetadata:
        """What it says about itself."""
        return LLMMetadata(model_name="scripted-1", is_function_calling_model=True)

    def _next(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        said = sum(message.role == "assistant" for message in messages)
        reply = self.script[min(said, len(self.script) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        text, calls = (reply, []) if isinstance(reply, str) else ("", reply)
        message = ChatMessage(
            role="assistant",
            content=text,
            additional_kwargs={"tool_calls": [call.model_dump() for call in calls]},
        )
        return ChatResponse(message=message, raw={"usage": USAGE})

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """Say what comes next."""
        return self._next(messages)

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """Say what comes next."""
        await asyncio.sleep(0)
        return self._next(messages)

    def stream_chat(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> Generator[ChatResponse, None, None]:
        """Say it word for word."""

        def answers() -> Generator[ChatResponse, None, None]:
            whole = self._next(messages)
            for word in str(whole.message.content).split():
                yield ChatResponse(message=ChatMessage(role="assistant", content=word), delta=word)
            yield whole

        return answers()

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        """Say it word for word."""

        async def answers() -> AsyncGenerator[ChatResponse, None]:
            # As many real ones do, it uses a method of its own that could be called directly, too.
            for answer in self.stream_chat(messages):
                await asyncio.sleep(0)
                yield answer

        return answers()

    def complete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:
        """Say what comes next."""
        answer = self.chat([ChatMessage(role="user", content=prompt)])
        return CompletionResponse(text=str(answer.message.content), raw=answer.raw)

    async def acomplete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:
        """Say what comes next."""
        return self.complete(prompt)

    def stream_complete(self, prompt: str, *_: Any, **__: Any) -> Any:
        """Say it in one piece."""
        return (answer for answer in [self.complete(prompt)])

    async def astream_complete(self, prompt: str, *_: Any, **__: Any) -> Any:
        """Say it in one piece."""

        async def answers() -> AsyncGenerator[CompletionResponse, None]:
            yield self.complete(prompt)

        return answers()

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, *_: Any, **__: Any
    ) -> dict[str, Any]:
        asked = [ChatMessage(role="user", content=user_msg)] if user_msg else []
        return {"messages": [*(chat_history or []), *asked]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, *_: Any, **__: Any
    ) -> list[ToolSelection]:
        """Read the calls as the script has written them."""
        calls = response.message.additional_kwargs.get("tool_calls", [])
        return [ToolSelection(**call) for call in calls]


def call(*calls: tuple[str, Mapping[str, Any], str]) -> list[ToolSelection]:
    """The model calls tools: name, arguments and call id of each."""
    return [ToolSelection(tool_id=i, tool_name=n, tool_kwargs=dict(a)) for n, a, i in calls]


KINDS = ["FunctionAgent", "AgentWorkflow"]


def agent(kind: str, script: list[Any], tools: Sequence[Any], **more: Any) -> Any:
    """Either kind of agent, with a scripted model."""
    made = FunctionAgent(
        name="payer", description="Pays.", tools=list(tools), llm=Scripted(script=script), **more
    )
    return made if kind == "FunctionAgent" else AgentWorkflow(agents=[made])


def answers(result: Any) -> list[tuple[bool, str]]:
    """What the tools of an agent's run answered: whether it was an error, and the text."""
    return [
        (made.tool_output.is_error, made.tool_output.content)
        for made in result.tool_calls
        if isinstance(made, ToolCallResult)
    ]


async def until_asked(handler: Any, count: int = 1) -> list[dict[str, Any]]:
    """Read the stream until it has asked *count* questions; return them."""
    questions = []
    async for event in handler.stream_events():
        assert not isinstance(event, StopEvent), event
        if isinstance(event, InputRequiredEvent):
            questions.append(dict(event.items()))
            if len(questions) == count:
                break
    return questions


async def until_idle(handler: Any) -> None:
    """Read the stream until only an event from outside can go on."""
    async for event in handler.stream_events(expose_internal=True):
        assert not isinstance(event, StopEvent), event
        if isinstance(event, WorkflowIdleEvent):
            break


def yes(question: Mapping[str, Any], by: str = "dana", **more: Any) -> Any:
    """The answer by which somebody approves what *question* asks."""
    asked = {name: question[name] for name in ("approval_id", "generation")}
    return Answer(**{**asked, "decision": "approve", "by": by, **more})


async def saved(handler: Any) -> dict[str, Any]:
    """Save a paused workflow and stop it."""
    context: dict[str, Any] = handler.ctx.to_dict()
    await handler.cancel_run()
    return context


def restored(workflow: Any, context: dict[str, Any]) -> Any:
    """Go on with a saved context."""
    return workflow.run(ctx=Context.from_dict(workflow, context))


def tool(function: Any, **more: Any) -> FunctionTool:
    """A tool over a function, sync or async."""
    return FunctionTool.from_defaults(function, **more)
