"""What the tool objects of agent runtimes are made from; each runtime's adapter tells it of its own."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ADAPTERS = {
    "langchain_core": "agentguard_langchain",
    "llama_index": "agentguard_llamaindex",
    "semantic_kernel": "agentguard_semantic_kernel",
}
"""The package that a tool's class, or one above it, comes from → who knows it."""


@dataclass(frozen=True, slots=True)
class ToolParts:
    """What a tool object is made from.

    Attributes:
        name: how the guard's configuration calls it.
        function: what runs.
        schema: JSON Schema of its arguments, where the function does not tell them.
    """

    name: str
    function: Callable[..., Any]
    schema: dict[str, Any] | None = None


_READERS: list[Callable[[Any], ToolParts | None]] = []


def register_tool_objects(reader: Callable[[Any], ToolParts | None]) -> None:
    """Teach agentguard the tool objects of one runtime. Adapters call this once, at import.

    *reader* gets anything, and returns None for what is none of its tools.
    """
    if reader not in _READERS:
        _READERS.append(reader)


def parts_of(thing: Any) -> ToolParts | None:
    """Return what a tool object is made from; None if no adapter knows it."""
    for kind in type(thing).__mro__:
        if adapter := _ADAPTERS.get(kind.__module__.partition(".")[0]):
            with contextlib.suppress(ImportError):
                importlib.import_module(adapter)
    return next((found for reader in _READERS if (found := reader(thing)) is not None), None)


def takes_anything(function: Callable[..., Any]) -> bool:
    """Return whether only a schema knows the arguments of a function, as with MCP's tools."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
