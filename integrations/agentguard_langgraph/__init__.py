"""agentguard for LangGraph: guard a compiled graph, its tools and its agents from outside."""

from langgraph.prebuilt.tool_node import ToolRuntime

from agentguard.hosting import annotated_as, register_injected
from agentguard_langchain import guard_retriever, guard_tools, model_verifier, routed_model

from ._graph import guard_graph
from ._host import LangGraphHost
from ._middleware import GuardMiddleware

__all__ = [
    "GuardMiddleware", "LangGraphHost", "guard_graph", "guard_retriever", "guard_tools",
    "model_verifier", "routed_model",
]  # fmt: skip

register_injected(annotated_as(ToolRuntime))
