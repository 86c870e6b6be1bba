"""The two halves of a guarded write, timed apart: until the body begins, and after it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from time import perf_counter
from typing import Literal, TypeAlias

from .laps import timed
from .subjects import AMOUNT, Tool, as_write

Part = Literal["start", "settle", "whole"]
Write: TypeAlias = Callable[[Sequence[str]], list[float]]


def timed_part(part: Part) -> Write:
    """Make writes of which only *part* is timed, each on its own ticket."""
    began = 0.0

    def guarded_write(ticket_id: str, amount_usd: Decimal) -> str:
        """Refund a ticket."""
        nonlocal began
        began = perf_counter()
        return ticket_id

    tool: Tool = as_write(guarded_write)

    def write(tickets: Sequence[str]) -> list[float]:
        taken: list[float] = []
        for ticket in tickets:
            asked = perf_counter()
            tool(ticket, AMOUNT)
            taken.append(began - asked if part == "start" else perf_counter() - began)
        return taken

    if part == "whole":
        return lambda tickets: timed(lambda ticket: tool(ticket, AMOUNT), tickets)
    return write
