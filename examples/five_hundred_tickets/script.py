"""The tickets, the same ones every time, and the mistakes that a scripted agent makes with them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

MISTAKES = {
    "wrong amount": 40,
    "wrong ticket": 30,
    "asked twice": 40,
    "not owed, over the limit": 30,
    "owed, over the limit": 20,
    "reply lost": 30,
    "tool timeout": 6,
    "verifier outage": 20,
}
"""With so many tickets something goes wrong; with all others nothing does."""
LIMIT = Decimal(50)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket, and what goes wrong with it.

    Attributes:
        owed: what the customer should have in the end, which is nothing if it is not owed.
    """

    id: str
    asks: Decimal
    mistake: str

    @property
    def owed(self) -> Decimal:
        """What is true, whatever the agent does."""
        return Decimal(0) if self.mistake == "not owed, over the limit" else self.asks


def tickets(count: int = 500, seed: int = 7) -> list[Ticket]:
    """Return *count* tickets; the mistakes keep their shares and are spread by *seed*."""
    chance = random.Random(seed)
    wrong = [name for name, of_500 in MISTAKES.items() for _ in range(of_500 * count // 500)]
    mistakes = [*wrong, *[""] * (count - len(wrong))]
    chance.shuffle(mistakes)
    return [
        Ticket(f"T-{number:04}", _amount(chance, mistake), mistake)
        for number, mistake in enumerate(mistakes, 1)
    ]


def _amount(chance: random.Random, mistake: str) -> Decimal:
    low, high = (5001, 30000) if "over the limit" in mistake else (500, 2000)
    return Decimal(chance.randrange(low, high)) / 100


def calls(ticket: Ticket) -> list[tuple[str, Decimal]]:
    """Return what the agent asks for, one call after the other: ticket and amount."""
    right = (ticket.id, ticket.asks)
    if ticket.mistake == "wrong amount":
        return [(ticket.id, ticket.asks + Decimal("0.90")), right]
    if ticket.mistake == "wrong ticket":
        number = int(ticket.id.removeprefix("T-"))
        return [(f"T-{number % 499 + 1:04}", ticket.asks), right]
    return [right, right] if ticket.mistake == "asked twice" else [right]


def write(found: list[Ticket], path: Path) -> None:
    """Write the tickets as the helpdesk reads them."""
    path.write_text(json.dumps([_as_helpdesk(ticket) for ticket in found]), encoding="utf-8")


def _as_helpdesk(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.id, "customer": f"Customer of {ticket.id}", "order_id": f"O-{ticket.id[2:]}",
        "subject": "Refund", "message": "Please refund this.", "amount_usd": f"{ticket.asks:.2f}",
    }  # fmt: skip
