"""What a guarded call may ask of LangChain: which tool call this is, and who hears of an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentguard.hosting import Host

from . import _beside, _calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.hosting import CallRef


class LangChainHost(Host):
    """LangChain around the guarded calls of one run; nothing pauses, errors are raised."""

    name = "langchain"

    def call(self) -> CallRef | None:
        """Return the tool call that runs here."""
        return _calls.current()

    def tool_span(self, tool: str) -> Any:
        """Return OpenInference's span of the tool that runs here."""
        return _beside.tool_span(tool)

    def edited(self, result: Any, edits: Mapping[str, Any]) -> Any:
        """Leave the result to the code that asked for it, and see that the model is told."""
        if frame := _calls.tool_call():
            frame.edits.update(edits)
        return result
