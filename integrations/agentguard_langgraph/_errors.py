"""The same error, dressed so that LangGraph treats it rightly: told to the model, or to the caller."""

from __future__ import annotations

from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolInvocationError

from agentguard import ApprovalRequired, GuardError
from agentguard.hosting import dressed


def reaches_caller(error: GuardError) -> bool:
    """Return whether *error* ends the invocation instead of being told to the model."""
    return error.halts or isinstance(error, ApprovalRequired)


def for_caller(error: GuardError) -> GuardError:
    """Return *error* as control flow, which no retry and no `handle_tool_errors` swallows."""
    return dressed(error, GraphBubbleUp)


def for_model(error: GuardError) -> GuardError:
    """Return *error* as what `ToolNode` tells the model by default: an invalid tool call."""
    told = dressed(error, ToolInvocationError)
    told.message = error.for_model()  # what ToolNode's default handler shows
    return told
