"""Parameters that LangChain fills in itself; they are no arguments of the model's call."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Union, get_args, get_origin

from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg
from langgraph.prebuilt.tool_node import ToolRuntime

_KINDS = (InjectedToolArg, ToolRuntime, BaseRunManager)


def is_injected(parameter: inspect.Parameter) -> bool:
    """Return whether LangChain or LangGraph gives this argument, not the model."""
    return _is_injected(parameter.annotation)


def _is_injected(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return any(map(_marks, annotation.__metadata__)) or _is_injected(annotation.__origin__)
    if origin in (Union, types.UnionType):
        return any(map(_is_injected, get_args(annotation)))
    return annotation is RunnableConfig or _marks(origin or annotation)


def _marks(mark: Any) -> bool:
    return isinstance(mark, _KINDS) or (inspect.isclass(mark) and issubclass(mark, _KINDS))
