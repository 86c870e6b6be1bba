"""The script as a chat model of LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from ..script import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, reply


class ScriptedModel(BaseChatModel):
    """Says what the script says."""

    model_name: str = MODEL

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:  # noqa: ARG002 - LangChain's name
        """Take any tools: the script knows which to call."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's name
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - same
        **_: Any,
    ) -> ChatResult:
        (task,) = [str(m.content) for m in messages if isinstance(m, HumanMessage)]
        said = reply(task, [str(m.content) for m in messages if isinstance(m, ToolMessage)])
        used = UsageMetadata(
            input_tokens=INPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            total_tokens=INPUT_TOKENS + OUTPUT_TOKENS,
        )
        if isinstance(said, str):
            message = AIMessage(said, usage_metadata=used)
        else:
            call = ToolCall(name=said.name, args=said.arguments, id=said.id)
            message = AIMessage("", tool_calls=[call], usage_metadata=used)
        return ChatResult(generations=[ChatGeneration(message=message)])
