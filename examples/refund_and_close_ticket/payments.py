"""A payments service that honours idempotency keys: the same key pays once, and says so again.

Run it with `python -m examples.refund_and_close_ticket.payments payments.db`. Keys follow the IETF
draft "The Idempotency-Key HTTP Header Field": a repeat gets the first reply, the same key with
another payload 422, the same key while the first is still at work 409.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path

from . import service
from .ledger import Ledger, now, record
from .refusals import Refusal, amount, identifier, only
from .service import Application, Reply, Request, Route

SCHEMA = """
CREATE TABLE IF NOT EXISTS refunds (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  ticket_id TEXT NOT NULL,
  amount_usd TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('succeeded', 'voided')),
  created_at TEXT NOT NULL,
  voided_at TEXT,
  idempotency_key TEXT
);
CREATE INDEX IF NOT EXISTS refunds_by_ticket ON refunds (ticket_id);
CREATE TABLE IF NOT EXISTS replies (
  operation TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (operation, idempotency_key)
);
"""
REFUND_ID = re.compile(r"R-([1-9][0-9]{0,17})")
# RFC 8941: a string in quotes, in which only quote and backslash are escaped. Bare words pass too,
# as they do with the big payment services.
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
BARE = re.compile(r"[!#-\[\]-~]{1,255}")

Effect = Callable[[sqlite3.Connection, str | None], Reply]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a key stands for: an operation, and the fingerprint of its payload."""

    operation: str
    fingerprint: str

    @classmethod
    def of(cls, operation: str, **payload: str) -> Intent:
        """Take the payload by its meaning: blanks in the JSON, or 20 for 20.00, do not matter."""
        meaning = json.dumps(payload, sort_keys=True).encode()
        return cls(operation, hashlib.sha256(meaning).hexdigest())


class Payments:
    """The operations of the service."""

    def __init__(self, ledger: Ledger, *, strict_keys: bool = False) -> None:
        self._ledger = ledger
        self._strict_keys = strict_keys
        # In memory is right: a key is at work only while this process works on it, and a crash
        # that cut the work short left nothing behind, because effect and reply commit together.
        self._at_work: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """List what the service answers."""
        return [
            Route("POST", "/refunds", self.create),
            Route("GET", "/refunds", self.listed),
            Route("GET", "/refunds/{id}", self.show),
            Route("POST", "/refunds/{id}/void", self.void),
        ]

    def create(self, request: Request) -> Reply:
        """Pay a refund."""
        only(request.fields, "ticket_id", "amount_usd")
        ticket_id = identifier(request.fields, "ticket_id")
        usd = str(amount(request.fields, "amount_usd"))
        intent = Intent.of("POST /refunds", ticket_id=ticket_id, amount_usd=usd)
        return self._once(request, intent, lambda db, key: _refund(db, key, ticket_id, usd))

    def void(self, request: Request, refund_id: str) -> Reply:
        """Take a refund back; one that is voided already stays as it is."""
        only(request.fields)
        intent = Intent.of(f"POST /refunds/{refund_id}/void")
        return self._once(request, intent, lambda db, key: _void(db, key, refund_id))

    def show(self, _: Request, refund_id: str) -> Reply:
        """Show one refund."""
        with self._ledger.reading() as db:
            return Reply(_shown(_row(db, refund_id)))

    def listed(self, request: Request) -> Reply:
        """List refunds, of one ticket or one key if so asked."""
        only(request.query, optional=("ticket_id", "idempotency_key"))
        wanted = "".join(f" AND {name} = ?" for name in request.query)
        order = f"SELECT * FROM refunds WHERE true{wanted} ORDER BY number"
        with self._ledger.reading() as db:
            rows = db.execute(order, tuple(request.query.values())).fetchall()
        return Reply({"refunds": [_shown(row) for row in rows]})

    def _once(self, request: Request, intent: Intent, effect: Effect) -> Reply:
        key = read_key(request.headers)
        if key is None:
            return self._without_key(request, effect)
        with self._claimed(intent, key):
            with self._ledger.reading() as db:
                first = _first_reply(db, intent, key)
            if first is not None:
                return first
            request.faults.work()
            with self._ledger.writing() as db:
                reply = effect(db, key)
                _keep(db, intent, key, reply)
        return reply

    def _without_key(self, request: Request, effect: Effect) -> Reply:
        if self._strict_keys:
            sentence = "This service wants an Idempotency-Key header on every write."
            raise Refusal(HTTPStatus.BAD_REQUEST, "key_missing", sentence)
        request.faults.work()
        with self._ledger.writing() as db:
            return effect(db, None)

    @contextmanager
    def _claimed(self, intent: Intent, key: str) -> Generator[None]:
        place = (intent.operation, key)
        with self._lock:
            _same_payload(intent, self._at_work.get(place))
            if place in self._at_work:
                sentence = "A request with this Idempotency-Key is still at work."
                raise Refusal(HTTPStatus.CONFLICT, "key_in_progress", sentence)
            self._at_work[place] = intent.fingerprint
        try:
            yield
        finally:
            with self._lock:
                del self._at_work[place]


def read_key(headers: Message) -> str | None:
    """Return the request's idempotency key, or None if it has none.

    Raises:
        Refusal: the header is not one string of at most 255 printable ASCII characters.
    """
    values = headers.get_all("Idempotency-Key", [])
    if not values:
        return None
    quoted, bare = QUOTED.fullmatch(values[0]), BARE.fullmatch(values[0])
    if len(values) > 1 or not (quoted or bare):
        sentence = "Idempotency-Key must be one string of 1 to 255 printable ASCII characters."
        raise Refusal(HTTPStatus.BAD_REQUEST, "key_malformed", sentence)
    return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else values[0]


def _same_payload(intent: Intent, known: str | None) -> None:
    if known not in {None, intent.fingerprint}:
        sentence = "This Idempotency-Key was used before, with another payload."
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "key_reused", sentence)


def _first_reply(db: sqlite3.Connection, intent: Intent, key: str) -> Reply | None:
    order = "SELECT * FROM replies WHERE operation = ? AND idempotency_key = ?"
    row = db.execute(order, (intent.operation, key)).fetchone()
    if row is None:
        return None
    _same_payload(intent, row["fingerprint"])
    return Reply(json.loads(row["body"]), row["status"], {"Idempotent-Replayed": "true"})


def _keep(db: sqlite3.Connection, intent: Intent, key: str, reply: Reply) -> None:
    body = json.dumps(reply.body, ensure_ascii=False)
    values = (intent.operation, key, intent.fingerprint, int(reply.status), body)
    db.execute("INSERT INTO replies VALUES (?,?,?,?,?)", values)


def _refund(db: sqlite3.Connection, key: str | None, ticket_id: str, usd: str) -> Reply:
    number = db.execute(
        "INSERT INTO refunds (ticket_id, amount_usd, status, created_at, idempotency_key)"
        " VALUES (?, ?, 'succeeded', ?, ?)",
        (ticket_id, usd, now(), key),
    ).lastrowid
    refund = _shown(_row(db, f"R-{number}"))
    record(db, "refund.created", ticket_id, key, refund_id=refund["id"], amount_usd=usd)
    return Reply(refund, HTTPStatus.CREATED)


def _void(db: sqlite3.Connection, key: str | None, refund_id: str) -> Reply:
    row = _row(db, refund_id)
    if row["status"] == "succeeded":
        order = "UPDATE refunds SET status = 'voided', voided_at = ? WHERE number = ?"
        db.execute(order, (now(), row["number"]))
        usd = row["amount_usd"]
        record(db, "refund.voided", row["ticket_id"], key, refund_id=refund_id, amount_usd=usd)
    return Reply(_shown(_row(db, refund_id)))


def _row(db: sqlite3.Connection, refund_id: str) -> sqlite3.Row:
    named = REFUND_ID.fullmatch(refund_id)
    order = "SELECT * FROM refunds WHERE number = ?"
    row: sqlite3.Row | None = db.execute(order, (named and int(named[1]),)).fetchone()
    if row is None:
        raise Refusal.unknown("such refund")
    return row


def _shown(row: sqlite3.Row) -> dict[str, object]:
    columns = row.keys()[1:]
    return {"id": f"R-{row['number']}", **{name: row[name] for name in columns}}


def main(words: Sequence[str] | None = None) -> int:
    """Run the service."""
    parser = service.parser("payments", "A payments service that honours idempotency keys.")
    parser.add_argument("--strict-keys", action="store_true", help="refuse writes without a key")
    arguments = parser.parse_args(words)
    return service.run(arguments, lambda: _build(arguments.db, strict_keys=arguments.strict_keys))


def _build(path: Path, *, strict_keys: bool) -> Application:
    ledger = Ledger(path, SCHEMA)
    return Application("payments", ledger, Payments(ledger, strict_keys=strict_keys).routes())


if __name__ == "__main__":
    sys.exit(main())
