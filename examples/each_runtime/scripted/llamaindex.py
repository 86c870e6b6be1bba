"""The script as a function-calling LLM of LlamaIndex."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.mock import MockFunctionCallingLLM

from ..script import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, reply

USED = {"usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}}


class ScriptedModel(MockFunctionCallingLLM):
    """Says what the script says."""

    @property
    def metadata(self) -> LLMMetadata:
        """What it says about itself."""
        return LLMMetadata(model_name=MODEL, is_function_calling_model=True)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        """Say it in one piece."""
        (task,) = [str(m.content) for m in messages if m.role is MessageRole.USER]
        said = reply(task, [str(m.content) for m in messages if m.role is MessageRole.TOOL])
        block: Any = TextBlock(text=said) if isinstance(said, str) else None
        if not isinstance(said, str):
            block = ToolCallBlock(
                tool_call_id=said.id, tool_name=said.name, tool_kwargs=said.arguments
            )
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[block])

        async def pieces() -> AsyncGenerator[ChatResponse, None]:
            yield ChatResponse(message=message, raw=USED)

        return pieces()
