"""The script as a chat completion service of Semantic Kernel."""

from __future__ import annotations

from typing import Any, ClassVar

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    TextContent,
)

from ..script import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, reply

USED = CompletionUsage(prompt_tokens=INPUT_TOKENS, completion_tokens=OUTPUT_TOKENS)


class ScriptedModel(ChatCompletionClientBase):
    """Says what the script says; functions are named `plugin-function` here."""

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True
    ai_model_id: str = MODEL

    async def _inner_get_chat_message_contents(
        self,
        chat_history: ChatHistory,
        settings: PromptExecutionSettings,  # noqa: ARG002 - Semantic Kernel's name
    ) -> list[ChatMessageContent]:
        (task,) = [str(m) for m in chat_history if m.role is AuthorRole.USER]
        items = [item for message in chat_history for item in message.items]
        said = reply(task, [str(i.result) for i in items if isinstance(i, FunctionResultContent)])
        item: Any = TextContent(text=said) if isinstance(said, str) else None
        if not isinstance(said, str):
            name = said.name if "-" in said.name else f"desk-{said.name}"
            item = FunctionCallContent(id=said.id, name=name, arguments=said.arguments)
        return [
            ChatMessageContent(
                role=AuthorRole.ASSISTANT,
                items=[item],
                ai_model_id=MODEL,
                metadata={"usage": USED},
            )
        ]
