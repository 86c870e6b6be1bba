"""Tools one cannot decorate: the same tool object, with a guarded function inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool, StructuredTool, Tool

from agentguard import ConfigurationError
from agentguard.hosting import ToolParts, takes_anything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentguard import Guard


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
        schema = _schema(tool) if takes_anything(function) else None
        return guard.protect(function, name=tool.name, input_schema=schema, **policy)

    bodies = _bodies(tool)
    if isinstance(tool, (StructuredTool, Tool)):
        return tool.model_copy(update={n: f and protected(f) for n, f in bodies.items()})
    return _reclassed(tool, {n: protected(getattr(type(tool), n)) for n in bodies})


def _bodies(tool: BaseTool) -> dict[str, Any]:
    """Return what runs, by the field or the method that holds it."""
    if isinstance(tool, (StructuredTool, Tool)):
        return {"func": tool.func, "coroutine": tool.coroutine}
    inside = {n: getattr(tool, n) for n in ("_run", "_arun")}
    return {n: f for n, f in inside.items() if getattr(type(tool), n) is not getattr(BaseTool, n)}


def _reclassed(tool: BaseTool, guarded: dict[str, Any]) -> BaseTool:
    """Return a copy of a tool that has its body in a method, of a subclass with a guarded one."""
    copied, kind = tool.model_copy(), type(tool)
    # pydantic keeps ordinary assignment for fields.
    object.__setattr__(copied, "__class__", type(kind.__name__, (kind,), guarded))
    return copied


def parts_of(tool: Any) -> ToolParts | None:
    """Return what a tool object is made from."""
    if not isinstance(tool, BaseTool):
        return None
    function = next(found for found in _bodies(tool).values() if found)
    return ToolParts(tool.name, function, _schema(tool) if takes_anything(function) else None)


def _schema(tool: BaseTool) -> dict[str, Any]:
    schema: Any = tool.tool_call_schema
    return dict(schema if isinstance(schema, dict) else schema.model_json_schema())
