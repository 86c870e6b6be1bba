"""A small agent that is watched: `python -m tests.collectors.agent ENDPOINT PROTOCOL`.

It pays a refund, asks for it again, waits for a person with two others, and goes on once somebody
has said yes to both; the books confirm one of them and deny the other. It prints what it got.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from agentguard import (
    ApprovalRequired,
    Guard,
    Verdict,
    VerificationFailed,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.otel import Protocol, set_up

WORKFLOW = "refund_and_close_ticket"


def books_agree(arguments: dict[str, Any], _result: Any) -> Verdict:
    """Confirm what the books can have."""
    small = arguments["amount"] < 100
    return Verdict(small, reason="" if small else "the books say 0")


@tool_contract(effect="write")
@idempotent(key="refund:{ticket}")
@requires_approval(when="amount > 50")
@verified_by(books_agree)
def refund(ticket: str, amount: Decimal) -> str:
    """Pay money back."""
    return f"refunded {amount}"


def work(guard: Guard) -> Iterator[str]:
    """Let everything happen; yield what the calls came to."""
    with guard.run(WORKFLOW, run_id="r-1"):
        yield refund("T-1", Decimal(20))
        yield refund("T-1", Decimal(20))
        yield tried("T-2", 75)
    with guard.run(WORKFLOW, run_id="r-2"):
        yield tried("T-3", 200)
    for waiting in guard.approvals.list("pending"):
        guard.approvals.decide(waiting.id, "approve", by="dana")
    with guard.run(WORKFLOW, run_id="r-1"):
        yield tried("T-2", 75)
    try:
        with guard.run(WORKFLOW, run_id="r-2"):
            refund("T-3", Decimal(200))
    except VerificationFailed:
        yield "denied by the books"
    yield f"broken chains: {[run.id for run in guard.runs.list() if guard.runs.verify(run.id)]}"


def tried(ticket: str, amount: int) -> str:
    """Make a refund, or say what is in its way."""
    try:
        return refund(ticket, Decimal(amount))
    except ApprovalRequired:
        return "waits for a person"


def main(endpoint: str, protocol: Protocol) -> None:
    """Work, with telemetry on its way to *endpoint*; say last how many seconds the work took."""
    with set_up("refunds", endpoint=endpoint, protocol=protocol):
        guard = Guard("memory://")
        began = time.perf_counter()
        said = [*work(guard)]
        took = time.perf_counter() - began
        guard.close()
        sys.stdout.write("\n".join([*said, f"{took:.3f}"]))


if __name__ == "__main__":
    main(sys.argv[1], "grpc" if sys.argv[2] == "grpc" else "http/protobuf")
