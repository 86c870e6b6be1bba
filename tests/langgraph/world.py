"""What the LangGraph tests share: effects one can count, a scripted model, small graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Interrupt

USAGE = UsageMetadata(input_tokens=10, output_tokens=5, total_tokens=15)
HELLO: Any = {"messages": [HumanMessage("hello")]}


class Scripted(BaseChatModel):
    """A chat model that says what its script says next, judging by the history it is shown."""

    script: Sequence[Any]
    model_name: str = "scripted-1"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        """Take any tools: the script knows which to call."""
        return self

    def _next(self, messages: Sequence[BaseMessage]) -> AIMessage:
        said = sum(isinstance(message, AIMessage) for message in messages)
        reply = self.script[min(said, len(self.script) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, AIMessage)
        return reply

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None, **_: Any,
    ) -> ChatResult:  # fmt: skip
        reply = self._next(messages).model_copy(update={"usage_metadata": USAGE, "id": None})
        return ChatResult(generations=[ChatGeneration(message=reply)])


class Streaming(Scripted):
    """The same, word for word."""

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None, **_: Any,
    ) -> Iterator[ChatGenerationChunk]:  # fmt: skip
        for word in str(self._next(messages).content).split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE))


def say(text: str = "done") -> AIMessage:
    """The model answers."""
    return AIMessage(text)


def call(*calls: tuple[str, Mapping[str, Any], str]) -> AIMessage:
    """The model calls tools: name, arguments and call id of each."""
    return AIMessage("", tool_calls=[{"name": n, "args": dict(a), "id": i} for n, a, i in calls])


def looped(
    model: BaseChatModel, tools: Sequence[Any], **node: Any
) -> StateGraph[Any, Any, Any, Any]:
    """The plain agent loop: one `ToolNode` task executes all calls of a turn."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda s: {"messages": [model.invoke(s["messages"])]})
    builder.add_node("tools", ToolNode(tools), **node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda s: "tools" if s["messages"][-1].tool_calls else END
    )
    builder.add_edge("tools", "model")
    return builder


def one_node(function: Callable[..., Any], **node: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of one node."""
    builder = StateGraph(MessagesState)
    builder.add_node("node", function, **node)
    builder.add_edge(START, "node")
    return builder


def thread(name: str = "r-1", **more: Any) -> RunnableConfig:
    """The configuration that names a thread."""
    return {"configurable": {"thread_id": name, **more}}


def answers(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the tools answered: status and text of each."""
    messages = result["messages"]
    return [(m.status, str(m.content)) for m in messages if isinstance(m, ToolMessage)]


def questions(result: Mapping[str, Any]) -> list[Interrupt]:
    """What the graph waits for."""
    return list(result.get("__interrupt__", ()))


def yes(question: Interrupt, by: str = "dana", **more: Any) -> dict[str, Any]:
    """A resume value by which somebody approves what *question* asks."""
    asked = question.value
    return {
        "approval_id": asked["approval_id"],
        "generation": asked["generation"],
        "decision": "approve",
        "by": by,
        **more,
    }
