"""The tool of the refund desk, with everything that makes its outcome one to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import httpx

from agentguard import (
    Happened,
    Principal,
    Unknown,
    budget,
    compensated_by,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.verifiers import ledger_reconciliation

Json = dict[str, Any]
TIMEOUT_S = 1.0
AGENT = Principal(agent="refund-agent", scopes=frozenset({"refunds:write"}))


class Services:
    """Payments and the helpdesk, over HTTP."""

    def __init__(self, payments: str, helpdesk: str) -> None:
        self._payments, self._helpdesk = payments, helpdesk
        self._http = httpx.Client(timeout=30, trust_env=False)

    def refunds(self, ticket_id: str) -> list[Json]:
        """List a ticket's refunds."""
        found: list[Json] = self._get(f"{self._payments}/refunds", ticket_id=ticket_id)["refunds"]
        return found

    def pay(self, ticket_id: str, amount_usd: Decimal) -> Json:
        """Pay a refund, under the key of the guarded call."""
        payload = {"ticket_id": ticket_id, "amount_usd": f"{amount_usd:f}"}
        return self._post(f"{self._payments}/refunds", payload)

    def void(self, result: Json) -> Json:
        """Take a refund back: what undoes `pay`."""
        return self._post(f"{self._payments}/refunds/{result['id']}/void", {})

    def find(self, call: Any) -> Happened | Unknown:
        """Look for the refund of a call whose end nobody knows."""
        for refund in self.refunds(call.arguments["ticket_id"]):
            if refund["idempotency_key"] == call.idempotency_key:
                return Happened(refund)
        return Unknown("payments does not have it yet")

    def asked(self, arguments: Mapping[str, Any]) -> Decimal:
        """Return what the ticket asks for."""
        ticket = self._get(f"{self._helpdesk}/tickets/{arguments['ticket_id']}")
        return Decimal(ticket["amount_usd"])

    def paid(self, arguments: Mapping[str, Any]) -> Decimal:
        """Return what was paid for the ticket and not taken back."""
        stands = [r for r in self.refunds(arguments["ticket_id"]) if r["status"] == "succeeded"]
        return sum((Decimal(refund["amount_usd"]) for refund in stands), Decimal(0))

    def _get(self, url: str, **params: str) -> Json:
        found: Json = self._http.get(url, params=params).raise_for_status().json()
        return found

    def _post(self, url: str, payload: Json) -> Json:
        headers = {"Idempotency-Key": current_run().call.idempotency_key}
        reply: Json = self._http.post(url, json=payload, headers=headers).raise_for_status().json()
        return reply


def refund_tool(services: Services) -> Callable[..., Json]:
    """Return the guarded tool."""

    def void(result: Json) -> Json:
        return services.void(result)

    @tool_contract(
        effect="write",
        scopes=["refunds:write"],
        facts={"refund_usd": "amount_usd"},
        timeout=TIMEOUT_S,
        isolation="thread",
    )
    @idempotent(key="refund:{ticket_id}:{amount_usd}", reconcile=services.find)
    @requires_approval(when="amount_usd > 50", roles=["finance"])
    @budget(max_calls=3, max_spend_usd="1000", cost="amount_usd")
    @verified_by(ledger_reconciliation(services.asked, services.paid, owner="controlling"))
    @compensated_by(void)
    @falls_back_to("ticket", on=("tool_timeout", "verifier_unavailable", "effect_in_doubt"))
    def issue_refund(ticket_id: str, amount_usd: Decimal) -> Json:
        """Pay money back to the customer of a ticket."""
        return services.pay(ticket_id, amount_usd)

    return issue_refund
