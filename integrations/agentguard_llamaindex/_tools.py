"""Tools one cannot decorate: the same tool, with a guarded function inside."""

# Retrievers and tools have no public names for their bodies.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from llama_index.core.tools import BaseTool, FunctionTool, adapt_to_async_tool

from agentguard import ConfigurationError
from agentguard.hosting import ToolParts, takes_anything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentguard import Guard


def guard_tools(tools: Iterable[BaseTool], guard: Guard, **policy: Any) -> list[BaseTool]:
    """Return tools like *tools* whose calls are guarded.

    Name, description and schema stay as they are, so the model sees no difference. What the guard's
    configuration says about a tool of that name applies as well. A tool that is not made from a
    function becomes one that answers with its text.

    Args:
        tools: LlamaIndex tools.
        guard: the guard of the calls.
        policy: what `Guard.protect` takes: the options of the decorators.

    Raises:
        ConfigurationError: something in *tools* is no tool object; decorate functions instead.
    """
    return [_guarded(tool, guard, policy) for tool in tools]


def _guarded(tool: Any, guard: Guard, policy: dict[str, Any]) -> BaseTool:
    if not isinstance(tool, BaseTool):
        raise ConfigurationError(
            f"guard_tools takes tool objects, not {type(tool).__name__}: decorate a function with"
            " @tool_contract, or make it a tool first"
        )
    inner = tool if isinstance(tool, FunctionTool) else _asking(tool)

    def protected(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = _schema(tool) if takes_anything(function) else None
        return guard.protect(function, name=tool.metadata.get_name(), input_schema=schema, **policy)

    guarded = copy.copy(inner)
    FunctionTool.__init__(
        guarded,
        **{name: function and protected(function) for name, function in _functions(inner).items()},
        metadata=inner.metadata,
        callback=inner._callback,
        async_callback=inner._async_callback,
        partial_params=inner.partial_params,
    )
    return guarded


def _functions(tool: FunctionTool) -> dict[str, Callable[..., Any] | None]:
    """Return what *tool* was made from: where it was given one function, it has made the other."""
    given = tool.real_fn
    if inspect.iscoroutinefunction(given):
        return {"fn": None, "async_fn": given}
    made = tool.async_fn.__module__ == FunctionTool.__module__
    return {"fn": given, "async_fn": None if made else tool.async_fn}


def _asking(tool: BaseTool) -> FunctionTool:
    """Return a tool that asks *tool*, whose body is a method that takes anything."""

    async def ask(**arguments: Any) -> str:
        answer = await adapt_to_async_tool(tool).acall(**arguments)
        if answer.is_error:
            raise answer.exception or RuntimeError(answer.content)
        return answer.content

    return FunctionTool(async_fn=ask, metadata=tool.metadata)


def _schema(tool: BaseTool) -> dict[str, Any]:
    return tool.metadata.get_parameters_dict()


def parts_of(tool: Any) -> ToolParts | None:
    """Return what a tool object is made from."""
    if not isinstance(tool, BaseTool):
        return None
    inside = _functions(tool if isinstance(tool, FunctionTool) else _asking(tool))
    function = next(found for found in inside.values() if found)
    schema = _schema(tool) if takes_anything(function) else None
    return ToolParts(tool.metadata.get_name(), function, schema)
