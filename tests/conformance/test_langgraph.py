"""LangGraph conforms, however its agent is built."""

from __future__ import annotations

from agentguard.testing.conformance import AdapterContract
from tests.conformance import langgraph_runtimes as built_as


class TestToolNode(AdapterContract):
    """A hand-written loop with a ToolNode."""

    runtime = built_as.ToolNodeLoop


class TestCreateAgent(AdapterContract):
    """LangChain's create_agent."""

    runtime = built_as.CreateAgent


class TestSubgraph(AdapterContract):
    """The loop inside another graph."""

    runtime = built_as.Subgraph


class TestFunctionalApi(AdapterContract):
    """@entrypoint and @task."""

    runtime = built_as.FunctionalApi
