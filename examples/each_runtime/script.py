"""What the model says: one script, told to each runtime by a model class of that runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

MODEL = "scripted-1"
PRICES = {MODEL: (Decimal(3), Decimal(15))}  # US dollars per million tokens, in and out
INPUT_TOKENS, OUTPUT_TOKENS = 900, 60


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model asks for."""

    id: str
    name: str
    arguments: dict[str, str]


def reply(task: str, told: Sequence[str]) -> Call | str:
    """Return what the model says next.

    Args:
        task: what the user said.
        told: what the tools have answered so far, as the runtime shows it to its model.
    """
    name, arguments = "", {"ticket_id": task.rpartition(" ")[2]}
    match len(told):
        case 0:
            name = "get_ticket"
        case 1:
            name, arguments = "crm-find_tickets", {"order_id": _read(told[0], "order_id")}
        case 2:
            name, arguments["amount_usd"] = "issue_refund", _read(told[0], "amount_usd")
        case 3:
            name, arguments["text"] = "comment_ticket", f"We refund {_read(told[0], 'amount_usd')}."
        case 4:
            name = "close_ticket"
        case _:
            return "Done."
    return Call(f"call_{len(told)}_{name}", name, arguments)


def _read(ticket: str, field: str) -> str:
    """Find a field in what `get_ticket` answered; some runtimes show JSON, some Python's dicts."""
    found = re.search(rf"""['"]{field}['"]: ?['"]([^'"]*)""", ticket)
    if found is None:
        raise ValueError(f"the answer of get_ticket has no {field}: {ticket}")
    return found[1]
