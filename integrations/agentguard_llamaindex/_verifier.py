"""Models that verify, by their own structured output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.prompts import PromptTemplate

from agentguard.hosting import Judgement, ModelVerifier
from agentguard.hosting import model_verifier as verifier

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

_PROMPT = PromptTemplate("{asked}")


def model_verifier(llm: LLM, rubric: str, **options: Any) -> ModelVerifier:
    """Return a verifier for `verified_by` that lets *llm* judge by *rubric*.

    Args:
        llm: any LlamaIndex model; it is asked by `structured_predict`.
        rubric: what must be true of the outcome.
        options: `model`, `prompt_version`, `minimum_confidence`, `name`, `owner`.

    Raises:
        ConfigurationError: nobody says which model it is, or two say different things.
    """

    def ask(messages: Any) -> Any:
        return llm.structured_predict(Judgement, _PROMPT, asked=_text(messages))

    async def asked_on_loop(messages: Any) -> Any:
        return await llm.astructured_predict(Judgement, _PROMPT, asked=_text(messages))

    return verifier(ask, rubric, asked_on_loop=asked_on_loop, of=llm, **options)


def _text(messages: Any) -> str:
    return "\n\n".join(text for _, text in messages)
