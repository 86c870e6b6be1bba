"""A tool that runs in a process of its own below a runtime's decorator."""

from __future__ import annotations

import os

from langchain_core.tools import tool

from agentguard import idempotent, tool_contract


@tool
@tool_contract(effect="write", isolation="process")
@idempotent(key="{key}")
def work(key: str) -> str:
    """Say in which process it runs."""
    return f"{key} {os.getpid()}"
