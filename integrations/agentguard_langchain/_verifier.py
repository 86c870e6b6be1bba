"""Chat models that verify, by their own structured output."""

from typing import Any

from langchain_core.language_models import BaseChatModel

from agentguard.hosting import Judgement, ModelVerifier
from agentguard.hosting import model_verifier as verifier


def model_verifier(chat_model: BaseChatModel, rubric: str, **options: Any) -> ModelVerifier:
    """Return a verifier for `verified_by` that lets *chat_model* judge by *rubric*.

    Args:
        chat_model: any chat model with `with_structured_output`, also one with fallbacks.
        rubric: what must be true of the outcome.
        options: `model`, `prompt_version`, `minimum_confidence`, `name`, `owner`.

    Raises:
        ConfigurationError: nobody says which model it is, or two say different things.
    """
    judge = chat_model.with_structured_output(Judgement)
    return verifier(judge.invoke, rubric, asked_on_loop=judge.ainvoke, of=chat_model, **options)
