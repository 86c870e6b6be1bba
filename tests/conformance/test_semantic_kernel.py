"""Semantic Kernel conforms, whichever way one talks to its models."""

from __future__ import annotations

from agentguard.testing.conformance import AdapterContract
from tests.conformance import semantic_kernel_runtimes as built_as


class TestAgent(AdapterContract):
    """A ChatCompletionAgent."""

    runtime = built_as.Agent


class TestService(AdapterContract):
    """A chat service with automatic function calling."""

    runtime = built_as.Service
