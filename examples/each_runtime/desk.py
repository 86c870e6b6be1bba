"""What the agents of all four runtimes are given: tools, instructions, a name, a guard."""

from __future__ import annotations

from pathlib import Path

from agentguard import Guard, Principal

from ..refund_and_close_ticket import tools
from .script import PRICES

TOOLS = tools.GUARDED
"""Four functions with agentguard's decorators; no runtime knows more of them than that."""
INSTRUCTIONS = "You refund what customers are owed, tell them so and close their tickets."
WHO = Principal(agent="support-agent", version="1.4", scopes=tools.SCOPES)
CONFIGURATION = Path(__file__).with_name("agent_run.yaml")


def find_tickets(order_id: str) -> str:
    """List the tickets of an order.

    Stands for a tool that one cannot decorate; what it may do stands in `agent_run.yaml`.
    """
    listed = tools.HTTP.get(f"{tools.HELPDESK}/tickets").raise_for_status().json()["tickets"]
    found = [f"{each['id']} ({each['status']})" for each in listed if each["order_id"] == order_id]
    return ", ".join(found)


def guard_of(store: str) -> Guard:
    """Return the guard: one configuration, whichever the runtime is."""
    return Guard.from_config(CONFIGURATION, store=store, prices=PRICES)


def keep(saved: Path, text: str) -> None:
    """Write a conversation down; a killed worker leaves the old one or the new one, whole."""
    fresh = saved.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(saved)


def kept(saved: Path) -> str:
    """Return what `keep` has written last, or nothing."""
    return saved.read_text("utf-8") if saved.exists() else ""
