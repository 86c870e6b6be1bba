"""agentguard for LangGraph: guard a compiled graph, its tools and its agents from outside."""

from agentguard.hosting import register_injected

from ._graph import guard_graph
from ._host import LangGraphHost
from ._injected import is_injected
from ._middleware import GuardMiddleware
from ._tools import guard_tools

__all__ = ["GuardMiddleware", "LangGraphHost", "guard_graph", "guard_tools"]

register_injected(is_injected)
