"""What was seen of the runtimes, side by side, in 100 columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal

from ..refund_and_close_ticket.helpdesk import TICKETS
from ..refund_and_close_ticket.report import BAD, GOOD, Tally, money, wrong
from ..refund_and_close_ticket.screen import Screen
from .story import MISHAPS, Played
from .timeline import difference, lines

LABEL, CELL = 20, 20


def timelines(screen: Screen, played: Sequence[Played]) -> None:
    """Show what each run's record tells, one column a runtime."""
    screen.say("\nThe runs, as their records tell them", "bold")
    screen.say(row("", (each.runtime.title for each in played)), "bold")
    for mishap in MISHAPS:
        screen.say(f"\n{mishap.ticket_id}  {mishap.story}", "dim")
        told = [lines(*each.runs[mishap.ticket_id]) for each in played]
        keys = sorted(dict.fromkeys(key for each in told for key in each), key=lambda key: key[0])
        for key in keys:
            cells = [each.get(key, "-") for each in told]
            screen.say(row(key[1], cells), BAD if len({*cells}) > 1 else "")


def journals(screen: Screen, played: Sequence[Played]) -> None:
    """Show what really happened, by what the services wrote down."""
    screen.say("\nWhat happened, by the services' journals (USD paid, comments, mails)", "bold")
    for ticket_id in sorted({ticket_id for each in played for ticket_id in each.effects}):
        tallies = [each.effects.get(ticket_id, Tally()) for each in played]
        screen.say(
            row(ticket_id, (f"{money(t.refunds)}, {t.comments}, {t.mails}" for t in tallies))
        )


def row(label: str, cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return "".join([label.ljust(LABEL), *(cell.ljust(CELL) for cell in cells)]).rstrip()


def verdict(screen: Screen, played: Sequence[Played]) -> int:
    """Say whether the records are equal and the world is as it should be; return the exit code."""
    complaints = [*unequal(played), *unlike(played)]
    for complaint in complaints:
        screen.tell(complaint, style=BAD)
    if complaints:
        return 1
    events = sum(len(events) for _, events in played[0].runs.values())
    equal = f"The {len(played)} timelines are equal, event for event ({events} events)."
    screen.say()
    screen.tell(equal if len(played) > 1 else "One timeline alone equals itself.", style=GOOD)
    screen.tell(
        "Every ticket was paid, told and closed once on every runtime; all hash chains are whole.",
        style=GOOD,
    )
    return 0


def unequal(played: Sequence[Played]) -> list[str]:
    """List the tickets whose records differ, with the first difference."""
    found = {
        m.ticket_id: difference({p.runtime.title: p.runs[m.ticket_id][1] for p in played})
        for m in MISHAPS
    }
    return [f"{ticket_id}, the timelines differ: {how}" for ticket_id, how in found.items() if how]


def unlike(played: Sequence[Played]) -> list[str]:
    """List where something else happened than each ticket asks for, or a record is broken."""
    amounts = {each["id"]: each["amount_usd"] for each in json.loads(TICKETS.read_text("utf-8"))}
    once = {m.ticket_id: Tally((Decimal(amounts[m.ticket_id]),), 1, 1) for m in MISHAPS}
    went = [f"{p.runtime.title}: {t} went wrong" for p in played for t in wrong(once, p.effects)]
    return went + [
        f"{p.runtime.title}: the record of {r} is broken" for p in played for r in p.broken
    ]
