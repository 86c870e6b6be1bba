"""agentguard for LangChain: guard tools and retrievers, and count the model calls of chains."""

from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg

from agentguard.hosting import annotated_as, register_injected, register_tool_objects

from ._callbacks import reporting
from ._host import LangChainHost
from ._retrievers import guard_retriever
from ._routed import routed_model
from ._tools import guard_tools, parts_of
from ._verifier import model_verifier

__all__ = [
    "LangChainHost", "guard_retriever", "guard_tools", "model_verifier", "reporting", "routed_model",
]  # fmt: skip

register_tool_objects(parts_of)
register_injected(annotated_as(InjectedToolArg, BaseRunManager, RunnableConfig))
