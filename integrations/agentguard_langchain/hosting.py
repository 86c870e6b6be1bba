"""What `agentguard_langgraph` builds on: LangChain's callbacks and the frames they enter."""

from ._callbacks import RunHandler, at_work, handler_of, with_handler
from ._calls import Frame, enter, frames, tool_call

__all__ = [
    "Frame",
    "RunHandler",
    "at_work",
    "enter",
    "frames",
    "handler_of",
    "tool_call",
    "with_handler",
]
