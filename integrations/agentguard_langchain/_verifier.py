"""Chat models that verify, by their own structured output."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableWithFallbacks

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
    judge = _judging(chat_model)
    return verifier(judge.invoke, rubric, asked_on_loop=judge.ainvoke, of=chat_model, **options)


def _judging(model: Any) -> Any:
    """Return *model* in the form of a judge; each fallback gets that form by itself."""
    if isinstance(model, RunnableWithFallbacks):
        others = [_judging(other) for other in model.fallbacks]
        return _judging(model.runnable).with_fallbacks(others)
    return model.with_structured_output(Judgement)
