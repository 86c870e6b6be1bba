"""A helpdesk that knows nothing of idempotency keys: whatever it is sent twice, it does twice.

Run it with `python -m examples.refund_and_close_ticket.helpdesk helpdesk.db`. Closing mails the
customer each time, so a second close is a second effect too.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from . import service
from .ledger import Ledger, now, record
from .refusals import Refusal, amount, identifier, only, read_json, text
from .service import Application, Reply, Request, Route

TICKETS = Path(__file__).parent / "tickets.json"
SCHEMA = """
CREATE TABLE IF NOT EXISTS tickets (
  id TEXT PRIMARY KEY,
  customer TEXT NOT NULL,
  order_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  message TEXT NOT NULL,
  amount_usd TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('open', 'closed'))
);
CREATE TABLE IF NOT EXISTS comments (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  ticket_id TEXT NOT NULL REFERENCES tickets (id),
  text TEXT NOT NULL,
  at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS comments_by_ticket ON comments (ticket_id);
"""
STATUSES = ("open", "closed")
PROSE = ("customer", "order_id", "subject", "message")


class Helpdesk:
    """The operations of the service."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def load(self, path: Path) -> None:
        """Take in the tickets of a file; those that are here already stay as they are."""
        tickets = read_tickets(path)
        order = (
            "INSERT INTO tickets VALUES"
            " (:id, :customer, :order_id, :subject, :message, :amount_usd, :status)"
            " ON CONFLICT DO NOTHING"
        )
        with self._ledger.writing() as db:
            db.executemany(order, tickets)

    def routes(self) -> list[Route]:
        """List what the service answers."""
        return [
            Route("GET", "/tickets", self.listed),
            Route("GET", "/tickets/{id}", self.show),
            Route("POST", "/tickets/{id}/comments", self.comment),
            Route("POST", "/tickets/{id}/close", self.close),
        ]

    def listed(self, request: Request) -> Reply:
        """List tickets, of one status if so asked."""
        only(request.query, optional=("status",))
        wanted = _status(request.query["status"]) if request.query else None
        order = "SELECT id FROM tickets WHERE status = coalesce(?, status) ORDER BY id"
        with self._ledger.reading() as db:
            rows = db.execute(order, (wanted,)).fetchall()
            return Reply({"tickets": [_shown(db, row["id"]) for row in rows]})

    def show(self, _: Request, ticket_id: str) -> Reply:
        """Show one ticket with its comments."""
        with self._ledger.reading() as db:
            return Reply(_shown(db, ticket_id))

    def comment(self, request: Request, ticket_id: str) -> Reply:
        """Add a comment, always another one."""
        only(request.fields, "text")
        said = text(request.fields, "text")
        request.faults.work()
        with self._ledger.writing() as db:
            _shown(db, ticket_id)
            at, order = now(), "INSERT INTO comments (ticket_id, text, at) VALUES (?,?,?)"
            name = f"C-{db.execute(order, (ticket_id, said, at)).lastrowid}"
            key = request.headers.get("Idempotency-Key")  # noted, and not honoured
            record(db, "comment.added", ticket_id, key, comment_id=name, text=said)
        return Reply({"id": name, "text": said, "at": at}, HTTPStatus.CREATED)

    def close(self, request: Request, ticket_id: str) -> Reply:
        """Close a ticket and tell its customer, always once more."""
        only(request.fields)
        request.faults.work()
        with self._ledger.writing() as db:
            mailed = _shown(db, ticket_id)["customer"]
            db.execute("UPDATE tickets SET status = 'closed' WHERE id = ?", (ticket_id,))
            key = request.headers.get("Idempotency-Key")
            record(db, "ticket.closed", ticket_id, key, mailed=mailed)
            return Reply(_shown(db, ticket_id))


def _shown(db: sqlite3.Connection, ticket_id: str) -> dict[str, object]:
    row = db.execute("SELECT * FROM tickets WHERE id = ?", (ticket_id,)).fetchone()
    if row is None:
        raise Refusal.unknown("such ticket")
    order = "SELECT * FROM comments WHERE ticket_id = ? ORDER BY number"
    comments = [
        {"id": f"C-{each['number']}", "text": each["text"], "at": each["at"]}
        for each in db.execute(order, (ticket_id,))
    ]
    return {**dict(row), "comments": comments}


def read_tickets(path: Path) -> list[dict[str, str]]:
    """Read the data file of tickets.

    Raises:
        Refusal: something in it is not as it should be; the sentence names the place.
    """
    listed = read_json(path.read_bytes())
    if not isinstance(listed, list):
        raise Refusal.bad(f"{path.name} must hold a list of tickets.")
    tickets = [_ticket(f"{path.name}, ticket {n}", each) for n, each in enumerate(listed, 1)]
    if len({ticket["id"] for ticket in tickets}) < len(tickets):
        raise Refusal.bad(f"{path.name} has two tickets with one id.")
    return tickets


def _ticket(place: str, ticket: object) -> dict[str, str]:
    try:
        if not isinstance(ticket, dict):
            raise Refusal.bad("a ticket must be an object.")
        return _checked(ticket)
    except Refusal as refusal:
        raise Refusal.bad(f"{place}: {refusal}") from None


def _checked(ticket: Mapping[str, object]) -> dict[str, str]:
    only(ticket, "id", *PROSE, "amount_usd", optional=("status",))
    return {
        "id": identifier(ticket, "id"),
        **{name: text(ticket, name) for name in PROSE},
        "amount_usd": str(amount(ticket, "amount_usd")),
        "status": _status(ticket.get("status", "open")),
    }


def _status(value: object) -> str:
    if not isinstance(value, str) or value not in STATUSES:
        raise Refusal.bad('status must be "open" or "closed".')
    return value


def main(words: Sequence[str] | None = None) -> int:
    """Run the service."""
    parser = service.parser("helpdesk", "A helpdesk that ignores idempotency keys.")
    parser.add_argument("--tickets", type=Path, default=TICKETS, help="default: tickets.json here")
    arguments = parser.parse_args(words)
    return service.run(arguments, lambda: _build(arguments.db, arguments.tickets))


def _build(path: Path, tickets: Path) -> Application:
    ledger = Ledger(path, SCHEMA)
    helpdesk = Helpdesk(ledger)
    helpdesk.load(tickets)
    return Application("helpdesk", ledger, helpdesk.routes())


if __name__ == "__main__":
    sys.exit(main())
