"""What happened, by the journals of the services, beside what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from rich.table import Table
from rich.text import Text

from .acts import Case
from .world import World

GOOD, BAD = "green", "red"


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened, or should have, to one ticket."""

    refunds: tuple[Decimal, ...] = ()
    comments: int = 0
    mails: int = 0

    def __add__(self, other: Tally) -> Tally:
        refunds = self.refunds + other.refunds
        return Tally(refunds, self.comments + other.comments, self.mails + other.mails)

    def __str__(self) -> str:
        counted = ((self.comments, "comment"), (self.mails, "closing mail"))
        told = [f"{number} {what}{'s'[: number > 1]}" for number, what in counted if number]
        return " · ".join([f"paid {money(self.refunds)}", *told])


Tallies = Mapping[str, Tally]


def money(amounts: Iterable[Decimal]) -> str:
    """Write amounts the way people do, equal ones once: 2 x 20.00."""
    groups = [(amount, len(list(equal))) for amount, equal in groupby(sorted(amounts))]
    shown = [f"{amount}" if n == 1 else f"{n} x {amount}" for amount, n in groups]
    return " + ".join(shown) or "nothing"


def happened(world: World) -> dict[str, Tally]:
    """Read from the journals what happened to each ticket."""
    tallies: dict[str, Tally] = {}
    for effect in world.journal("payments") + world.journal("helpdesk"):
        match effect["effect"]:
            case "refund.created":
                one = Tally(refunds=(Decimal(effect["amount_usd"]),))
            case "comment.added":
                one = Tally(comments=1)
            case "ticket.closed":
                one = Tally(mails=1)
            case _:
                one = Tally()
        tallies[effect["ticket_id"]] = tallies.get(effect["ticket_id"], Tally()) + one
    return tallies


def right(case: Case, amounts: Mapping[str, Decimal]) -> Tally:
    """Return what should have happened to a ticket."""
    refunds = [amounts[case.ticket_id]] * case.refunds if case.refunds else []
    return Tally(tuple(refunds), case.comments, case.mails)


def wrong(truth: Tallies, found: Tallies) -> list[str]:
    """List the tickets to which something else happened than should have."""
    tickets = sorted({*truth, *found})
    return [t for t in tickets if truth.get(t, Tally()) != found.get(t, Tally())]


def table(cases: Iterable[Case], truth: Tallies, without: Tallies, guarded: Tallies) -> Table:
    """Draw both sides beside what was asked for."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in ("", "what went wrong"):
        drawn.add_column(f"\n{heading}", no_wrap=True)
    for group in ("USD paid", "comments"):
        for heading in (f"{group}\nasked", "\nwithout", "\nwith"):
            drawn.add_column(heading, justify="right", no_wrap=True)
    for case in cases:
        three = [side.get(case.ticket_id, Tally()) for side in (truth, without, guarded)]
        drawn.add_row(case.ticket_id, case.story, *_cells(three))
    sums = [sum(side.values(), Tally()) for side in (truth, without, guarded)]
    paid = [Tally((sum(each.refunds, Decimal()),), each.comments) for each in sums]
    drawn.add_section()
    drawn.add_row("all", "", *_cells(paid), style="bold")
    return drawn


def _cells(three: list[Tally]) -> list[Text]:
    """Return refunds and comments: asked, without, with; coloured by whether they are right."""
    asked = three[0]
    paid = [_cell(money(t.refunds), t.refunds == asked.refunds) for t in three]
    said = [_cell(f"{t.comments}", t.comments == asked.comments) for t in three]
    cells = [*paid, *said]
    cells[0].style = cells[3].style = ""
    return cells


def _cell(text: str, is_right: bool) -> Text:  # noqa: FBT001 - a private helper of two lines
    return Text("0" if text == "nothing" else text, style=GOOD if is_right else BAD)
