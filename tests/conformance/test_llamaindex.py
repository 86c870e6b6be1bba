"""LlamaIndex conforms: its agents, and workflows of one's own."""

from __future__ import annotations

from agentguard.testing.conformance import AdapterContract
from tests.conformance import llamaindex_runtimes as built_as


class TestAgent(AdapterContract):
    """A FunctionAgent."""

    runtime = built_as.Agent


class TestAgentWorkflow(AdapterContract):
    """An AgentWorkflow."""

    runtime = built_as.ManyAgents


class TestWorkflow(AdapterContract):
    """A workflow of one's own."""

    runtime = built_as.OwnWorkflow
