"""Chat services that verify, by structured output where the service has it, else by JSON."""

from typing import Any

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.contents import ChatHistory

from agentguard.hosting import Judgement, ModelVerifier
from agentguard.hosting import model_verifier as verifier


def model_verifier(service: ChatCompletionClientBase, rubric: str, **options: Any) -> ModelVerifier:
    """Return a verifier for `verified_by` that lets a chat *service* judge by *rubric*.

    Args:
        service: any chat service; with sync functions it is asked on an event loop of its own.
        rubric: what must be true of the outcome.
        options: `model`, `prompt_version`, `minimum_confidence`, `name`, `owner`.

    Raises:
        ConfigurationError: nobody says which model it is, or two say different things.
    """

    async def asked(messages: Any) -> Any:
        kind = service.get_prompt_execution_settings_class()
        form: Any = {"response_format": Judgement} if "response_format" in kind.model_fields else {}
        history = ChatHistory(system_message=messages[0][1])
        history.add_user_message(messages[1][1])
        return str(await service.get_chat_message_content(history, kind(**form)))

    return verifier(None, rubric, asked_on_loop=asked, of=service, **options)
