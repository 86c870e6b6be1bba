"""agentguard for LlamaIndex: guard workflows, agents, tools, models and retrievers from outside."""

from llama_index.core.schema import QueryBundle

from agentguard.hosting import annotated_as, register_injected, register_tool_objects
from agentguard_llama_workflows import LlamaIndexHost, tool_call

from ._agents import guard_workflow
from ._models import guard_llm
from ._retriever import guard_retriever
from ._routed import routed_llm
from ._tools import guard_tools, parts_of
from ._verifier import model_verifier

__all__ = [
    "LlamaIndexHost",
    "guard_llm",
    "guard_retriever",
    "guard_tools",
    "guard_workflow",
    "model_verifier",
    "routed_llm",
    "tool_call",
]

register_tool_objects(parts_of)
register_injected(annotated_as(QueryBundle))  # a retriever's own form of the query
