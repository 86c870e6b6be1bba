"""The desk as `agentguard check --tools examples.five_hundred_tickets.checked` finds it."""

from __future__ import annotations

from .desk import AGENT, Services, refund_tool

__all__ = ["AGENT", "REFUND"]

REFUND = refund_tool(Services("http://127.0.0.1:8001", "http://127.0.0.1:8002"))
"""Nothing is asked of the services before it is called."""
