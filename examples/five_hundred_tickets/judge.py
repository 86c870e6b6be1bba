"""What caught what, read from the record; and the ledger held against what is true."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from .script import MISTAKES, Ticket

if TYPE_CHECKING:
    from agentguard import Guard

    from ..refund_and_close_ticket.world import World

CAUGHT = {
    "plan_violation": "plan: outside it, refused",
    "refuted": "verifier: refuted, undone",
    "replayed": "key: answered from the record",
    "rejected": "approval: rejected",
    "approved": "approval: approved",
    "reconciled": "reconcile hook: found it",
    "ticket": "fallback: ticket, run closed",
    "late": "late answer: settled",
}


def catches(guard: Guard, run_id: str) -> set[str]:
    """Read from a run's record what stood in the way of its mistakes."""
    found: set[str] = set()
    for event in guard.runs.events(run_id):
        data = event.data
        if event.kind == "step.decided" and data.get("error") == "plan_violation":
            found.add("plan_violation")
        elif event.kind == "compensated":
            found.add("refuted")
        elif event.kind == "effect.replayed":
            found.add("replayed")
        elif event.kind == "approval.decided":
            found.add("rejected" if data["decision"] == "reject" else "approved")
        elif event.kind == "effect.resolved" and event.actor == "system:reconcile":
            found.add("reconciled")
        elif event.kind == "fallback":
            found.add(str(data["ending"]))
    return found


def table(tickets: list[Ticket], guard: Guard, filed: Path, ruled: int) -> list[str]:
    """Say what caught what, a line each, and what was left to people."""
    counted: Counter[tuple[str, str]] = Counter()
    for ticket in tickets:
        caught = sorted(catches(guard, f"r-{ticket.id}"))
        told = " + ".join(CAUGHT.get(name, name) for name in caught) or "nothing had to"
        counted[ticket.mistake or "none", told] += 1
    order = ["none", *MISTAKES]
    rows = sorted(counted.items(), key=lambda row: (order.index(row[0][0]), row[0][1]))
    tickets_filed = len(filed.read_text().splitlines()) if filed.exists() else 0
    return [
        f"{'mistake':26} {'tickets':>7}  caught by",
        *(f"{mistake:26} {count:>7}  {told}" for (mistake, told), count in rows),
        f"{tickets_filed} tickets filed for people; {ruled} doubts left, all ruled on.",
    ]


def truth(tickets: list[Ticket], world: World) -> list[str]:
    """Hold the payments service's own ledger against what each customer should have."""
    paid: dict[str, Decimal] = {}
    for refund in world.refunds():
        if refund["status"] == "succeeded":
            so_far = paid.get(refund["ticket_id"], Decimal(0))
            paid[refund["ticket_id"]] = so_far + Decimal(refund["amount_usd"])
    return [
        f"WRONG: {ticket.id} ({ticket.mistake or 'none'}): {ticket.owed} is owed,"
        f" {paid.get(ticket.id, Decimal(0))} was paid"
        for ticket in tickets
        if paid.get(ticket.id, Decimal(0)) != ticket.owed
    ]
