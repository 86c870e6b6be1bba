"""The same error, dressed so that LangGraph treats it rightly: told to the model, or to the caller."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolInvocationError

from agentguard import ApprovalRequired, GuardError


def reaches_caller(error: GuardError) -> bool:
    """Return whether *error* ends the invocation instead of being told to the model."""
    return error.halts or isinstance(error, ApprovalRequired)


def for_caller(error: GuardError) -> GuardError:
    """Return *error* as control flow, which no retry and no `handle_tool_errors` swallows."""
    return _dressed(GraphBubbleUp, error)


def for_model(error: GuardError) -> GuardError:
    """Return *error* as what `ToolNode` tells the model by default: an invalid tool call."""
    told = _dressed(ToolInvocationError, error)
    told.message = error.for_model()  # what ToolNode's default handler shows
    return told


def _dressed(base: type[Exception], error: GuardError) -> GuardError:
    if isinstance(error, base):
        return error
    own: Any = type(error)
    kind: type[GuardError] = _kind(cast("Any", base), own)
    dressed = kind.__new__(kind)
    dressed.__dict__.update(vars(error), inner=error)
    dressed.args = (error.for_model(),)  # what a tool's own handle_tool_error shows
    dressed.__cause__, dressed.__context__ = error.__cause__, error.__context__
    return dressed.with_traceback(error.__traceback__)


class _Dressed(Exception):
    """Speaks with the words of the error inside."""

    inner: GuardError

    def __str__(self) -> str:
        return str(self.inner)

    def __repr__(self) -> str:
        return repr(self.inner)

    def for_model(self) -> str:
        return self.inner.for_model()


@cache
def _kind(base: Any, kind: Any) -> Any:
    return type(kind.__name__, (_Dressed, base, kind), {"__module__": kind.__module__})
