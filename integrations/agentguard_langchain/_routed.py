"""A chat model that is another one in every call: the one that the run names for a role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from agentguard.hosting import RoutedModels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from agentguard import Guard


def routed_model(
    guard: Guard | None, role: str, *, models: Mapping[str, Any] | None = None, **options: Any
) -> BaseChatModel:
    """Return a chat model that asks, at every call, the model that `routing` names for *role*.

    It goes wherever a chat model goes: chains, `create_agent`, `model_verifier`. What is counted,
    priced and held against verifiers is the model that was really asked.

    Args:
        guard: says which model it is outside of any run; None: only inside of runs.
        role: `planner`, `executor` or `verifier`.
        models: chat models by alias or by name; others are made by `init_chat_model`.
        options: for `init_chat_model`, such as `temperature`.
    """
    return RoutedChatModel(routes=RoutedModels(role, guard, models, _maker(options)))


def _maker(options: Mapping[str, Any]) -> Any:
    def make(name: str) -> Any:
        from langchain.chat_models import (
            init_chat_model,
        )  # with LangGraph, which chains do not need

        return init_chat_model(name, **options)

    return make


def _asked(way: str) -> Any:
    """Return a method that hands its call on to the model of now."""

    def asked(self: Any, *args: Any, **options: Any) -> Any:
        return getattr(self._now(self.routes.model()), way)(*args, **options)

    return asked


def _awaited(way: str) -> Any:
    """Like `_asked`, on an event loop."""

    async def asked(self: Any, *args: Any, **options: Any) -> Any:
        return await getattr(self._now(await self.routes.amodel()), way)(*args, **options)

    return asked


def _first(way: str) -> Any:
    """Return a method that gives a copy on whose models *way* is called first."""

    def after(self: Any, *args: Any, **options: Any) -> Any:
        return self.model_copy(update={"steps": (*self.steps, (way, args, options))})

    return after


class RoutedChatModel(BaseChatModel):
    """Hands every call on, so callbacks hear only of the model that is asked."""

    routes: Any
    steps: tuple[Any, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "agentguard-routed"

    @property
    def model_name(self) -> str:
        """The model that would be asked now."""
        return str(self.routes.name)

    def _now(self, model: Any) -> Any:
        for way, args, options in self.steps:
            model = getattr(model, way)(*args, **options)
        return model

    bind_tools = _first("bind_tools")
    with_structured_output = _first("with_structured_output")
    invoke, stream, generate = _asked("invoke"), _asked("stream"), _asked("generate")
    ainvoke, agenerate = _awaited("ainvoke"), _awaited("agenerate")
    stream_events, astream_events = _asked("stream_events"), _asked("astream_events")
    _generate = _asked("_generate")

    async def astream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        async for chunk in self._now(await self.routes.amodel()).astream(*args, **options):
            yield chunk
