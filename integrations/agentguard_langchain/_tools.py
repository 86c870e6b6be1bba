"""Tools one cannot decorate: the same tool object, with a guarded function inside."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.tools import BaseTool, StructuredTool, Tool

from agentguard import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentguard import Guard

ToolT = TypeVar("ToolT", bound=BaseTool)


def guard_tools(tools: Iterable[BaseTool], guard: Guard, **policy: Any) -> list[BaseTool]:
    """Return copies of *tools* whose calls are guarded.

    Name, description and schema stay as they are, so the model sees no difference. What the guard's
    configuration says about a tool of that name applies as well.

    Args:
        tools: LangChain tools, of any class.
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

    def protected(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = _schema(tool) if _takes_anything(function) else None
        return guard.protect(function, name=tool.name, input_schema=schema, **policy)

    if isinstance(tool, (StructuredTool, Tool)):
        inside = {"func": tool.func, "coroutine": tool.coroutine}
        return tool.model_copy(update={n: f and protected(f) for n, f in inside.items()})
    return _reclassed(tool, protected)


def _reclassed(tool: ToolT, protected: Callable[[Callable[..., Any]], Callable[..., Any]]) -> ToolT:
    """Return a copy of a tool that has its body in a method, of a subclass with a guarded one."""
    kind = type(tool)
    bodies = {n: getattr(kind, n) for n in ("_run", "_arun")}
    own = {n: f for n, f in bodies.items() if f is not getattr(BaseTool, n)}
    guarded = {n: protected(f) for n, f in own.items()}
    copied = tool.model_copy()
    # pydantic keeps ordinary assignment for fields.
    object.__setattr__(copied, "__class__", type(kind.__name__, (kind,), guarded))
    return copied


def _takes_anything(function: Callable[..., Any]) -> bool:
    """Return whether only the tool's schema knows the arguments, as with MCP's tools."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _schema(tool: BaseTool) -> dict[str, Any]:
    schema: Any = tool.tool_call_schema
    return dict(schema if isinstance(schema, dict) else schema.model_json_schema())
