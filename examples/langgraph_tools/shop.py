"""Stands for somebody else's package: LangChain tools that know nothing of agentguard."""

from __future__ import annotations

from langchain_core.tools import tool

DONE: list[str] = []
"""What really happened in the shop."""


@tool
def find_order(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id}: one kettle, delivered on the 3rd"


@tool
def mail_customer(order_id: str, subject: str, text: str) -> str:
    """Write a mail to the customer of an order."""
    DONE.append(f"mail {order_id} {subject!r}: {text}")
    return "sent"


@tool
def add_note(order_id: str, note: str) -> str:
    """Note something on an order."""
    DONE.append(f"note {order_id}: {note}")
    return "noted"


@tool
def delete_order(order_id: str) -> str:
    """Delete an order."""
    DONE.append(f"deleted {order_id}")
    return "deleted"


TOOLS = (find_order, mail_customer, add_note, delete_order)
