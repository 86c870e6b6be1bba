"""The tools of `refund_and_close_ticket`: four functions over HTTP, and decorators that guard them.

Without the decorators these are the tools that a team has already. `UNGUARDED` is just that: the
demo runs both, with the same agent, the same tickets and the same mishaps.
"""

from __future__ import annotations

import inspect
import os
from decimal import Decimal
from typing import Annotated, Any

import httpx
from pydantic import Field

from agentguard import (
    ConfigurationError,
    Happened,
    NotHappened,
    Retry,
    Unknown,
    Verdict,
    budget,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)

PAYMENTS = os.environ.get("PAYMENTS_URL", "http://127.0.0.1:8001")
HELPDESK = os.environ.get("HELPDESK_URL", "http://127.0.0.1:8002")
HTTP = httpx.Client(timeout=30, trust_env=False)  # loopback: no proxy has a say

TicketId = Annotated[str, Field(pattern=r"^T-\d{4}$")]
Json = dict[str, Any]


# What is asked when nobody knows whether a write happened. These only read.


def find_refund(call: Any) -> Happened | NotHappened:
    """Look for the refund under this call's key: payments keeps keys, so "no" is a sure no."""
    for refund in _refunds(call.arguments["ticket_id"]):
        if refund["idempotency_key"] == call.idempotency_key:
            return Happened(refund)
    return NotHappened()


def find_comment(call: Any) -> Happened | Unknown:
    """Look for the comment with this call's mark; without one it may still be on its way."""
    for comment in _ticket(call.arguments["ticket_id"])["comments"]:
        if _mark(call.idempotency_key) in comment["text"]:
            return Happened(comment)
    return Unknown("the helpdesk keeps no keys, and no comment bears the mark of this one")


def find_closed(call: Any) -> Happened | Unknown:
    """Look whether the ticket is closed; if not, closing it may still be on its way."""
    ticket = _ticket(call.arguments["ticket_id"])
    return Happened(ticket) if ticket["status"] == "closed" else Unknown("the ticket is open")


def ledger_matches_ticket(arguments: Json, _result: Json) -> Verdict:
    """Reconcile what payments paid for the ticket with what the ticket asks for."""
    asked = Decimal(_ticket(arguments["ticket_id"])["amount_usd"])
    refunds = _refunds(arguments["ticket_id"])
    paid = sum(Decimal(each["amount_usd"]) for each in refunds if each["status"] == "succeeded")
    return Verdict(paid == asked, reason=f"the ticket asks for {asked}, payments paid {paid}")


# The tools.


@tool_contract(effect="read", scopes=["tickets:read"], retry=Retry(attempts=3))
def get_ticket(ticket_id: TicketId) -> Json:
    """Read a ticket: who asks for what, and how much money."""
    return _ticket(ticket_id)


@tool_contract(
    effect="write",
    scopes=["refunds:write"],
    facts={"refund_usd": "amount_usd"},
    retry=Retry(attempts=3),
)
@idempotent(key="refund:{ticket_id}", reconcile=find_refund)
@requires_approval(when="amount_usd > 50", roles=["finance"])
@budget(max_calls=3, max_spend_usd="200", cost="amount_usd")
@verified_by(ledger_matches_ticket)
def issue_refund(ticket_id: TicketId, amount_usd: Decimal) -> Json:
    """Pay money back to the customer of a ticket."""
    payload = {"ticket_id": ticket_id, "amount_usd": f"{amount_usd:f}"}
    return _send(f"{PAYMENTS}/refunds", payload)  # with the key in the header Idempotency-Key


@tool_contract(effect="write", scopes=["tickets:write"])
@idempotent(key="comment:{ticket_id}:{text}", reconcile=find_comment)
def comment_ticket(ticket_id: TicketId, text: str) -> Json:
    """Write to the customer of a ticket."""
    marked = f"{text} {_mark(key)}" if (key := _key()) else text
    return _send(f"{HELPDESK}/tickets/{ticket_id}/comments", {"text": marked})


@tool_contract(effect="write", scopes=["tickets:write"])
@idempotent(key="close:{ticket_id}", reconcile=find_closed)
def close_ticket(ticket_id: TicketId) -> Json:
    """Close a ticket; its customer gets a mail."""
    return _send(f"{HELPDESK}/tickets/{ticket_id}/close", {})


GUARDED = (get_ticket, issue_refund, comment_ticket, close_ticket)
UNGUARDED = tuple(inspect.unwrap(tool) for tool in GUARDED)
SCOPES = frozenset({"tickets:read", "tickets:write", "refunds:write"})


# HTTP.


def _key() -> str:
    """Return the key of the effect that is being executed; there is none without agentguard."""
    try:
        return current_run().call.idempotency_key
    except ConfigurationError:
        return ""


def _mark(key: str) -> str:
    return f"[{key[:12]}]"


def _send(url: str, payload: Json) -> Json:
    headers = {"Idempotency-Key": key} if (key := _key()) else {}
    reply: Json = HTTP.post(url, json=payload, headers=headers).raise_for_status().json()
    return reply


def _ticket(ticket_id: str) -> Json:
    ticket: Json = HTTP.get(f"{HELPDESK}/tickets/{ticket_id}").raise_for_status().json()
    return ticket


def _refunds(ticket_id: str) -> list[Json]:
    reply = HTTP.get(f"{PAYMENTS}/refunds", params={"ticket_id": ticket_id}).raise_for_status()
    refunds: list[Json] = reply.json()["refunds"]
    return refunds
