"""Plain Python conforms: the reference itself."""

from __future__ import annotations

from agentguard.testing.conformance import AdapterContract, PlainPython


class TestPlainPython(AdapterContract):
    """No framework at all."""

    runtime = PlainPython
