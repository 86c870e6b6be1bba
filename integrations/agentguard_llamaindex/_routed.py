"""A model that is another one in every call: the one that the run names for a role."""

from __future__ import annotations

from abc import update_abstractmethods
from typing import TYPE_CHECKING, Any

from llama_index.core.llms.function_calling import FunctionCallingLLM

from agentguard.hosting import RoutedModels

from ._models import Counted, guard_llm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.llms import LLM

    from agentguard import Guard


def routed_llm(guard: Guard | None, role: str, *, models: Mapping[str, LLM]) -> LLM:
    """Return a model that asks, at every call, the model that `routing` names for *role*.

    It goes wherever a model goes, also as `Settings.llm` and into `FunctionAgent`. Its calls count
    in the run in which they are made, as those of the model that was really asked.

    Args:
        guard: says which model it is outside of any run; None: only inside of runs.
        role: `planner`, `executor` or `verifier`.
        models: the models, by alias or by name.
    """
    counted = {name: guard_llm(model) for name, model in models.items()}
    made: LLM = _KIND(routes=RoutedModels(role, guard, counted))
    return made


class RoutedLLM(Counted, FunctionCallingLLM):
    """Hands every call on; what it says of itself is what the model of now says."""

    routes: Any

    @classmethod
    def class_name(cls) -> str:
        return "agentguard_routed"

    @property
    def metadata(self) -> Any:
        """What the model says about itself that would be asked now."""
        return self.routes.model().metadata


_KIND: Any = RoutedLLM  # what it lacks is set below


def _asked(way: str) -> Any:
    def asked(self: Any, *args: Any, **options: Any) -> Any:
        return getattr(self.routes.model(), way)(*args, **options)

    return asked


def _awaited(way: str) -> Any:
    async def asked(self: Any, *args: Any, **options: Any) -> Any:
        return await getattr(await self.routes.amodel(), way)(*args, **options)

    return asked


_WAYS = """chat complete stream_chat stream_complete chat_with_tools stream_chat_with_tools predict
    stream predict_and_call structured_predict stream_structured_predict
    get_tool_calls_from_response _prepare_chat_with_tools convert_chat_messages"""
_ASYNC_WAYS = """achat acomplete astream_chat astream_complete achat_with_tools
    astream_chat_with_tools apredict astream apredict_and_call astructured_predict
    astream_structured_predict"""

# Set from outside: what stands in the class would get spans of its own beside the real model's.
for _way in _WAYS.split():
    setattr(_KIND, _way, _asked(_way))
for _way in _ASYNC_WAYS.split():
    setattr(_KIND, _way, _awaited(_way))
update_abstractmethods(_KIND)
