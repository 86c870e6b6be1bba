"""A shop that passes every check, and the ways to make one of them fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

from agentguard import (
    ApprovalRequired,
    Guard,
    GuardError,
    Happened,
    NoEffect,
    NotHappened,
    Principal,
    Retry,
    budget,
    compensated_by,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.config import Settings, loads
from agentguard.readiness import Project, Telemetry, project_of, read_sample
from agentguard.testing import FakeClock

AGENT = Principal("support", scopes=frozenset({"refunds:write", "refunds:read"}))
GOOD = """\
agent_run:
  workflow: refund
  autonomy: auto
  max_steps: 20
  max_model_calls: 6
  max_spend_usd: 4
  falls_back_to: draft
  routing:
    planner_model: planner
  approvals:
    refund_usd_over: 50
  logging:
    trace: opentelemetry
    retention_days: 30
  costs:
    models:
      planner: {input_usd: 10, output_usd: 30}
  slos:
    refunded: {workflow: refund, sli: success, target: 0.95, window: 28d}
    alone: {workflow: refund, sli: escalation, target: 0.8, window: 28d}
"""


def paid(arguments: dict[str, Any], _result: Any) -> bool:
    """Find the refund in the books; those of T-wrong are not there."""
    return not arguments["ticket_id"].startswith("T-wrong")


def find(_call: Any) -> Happened | NotHappened:
    """Look for the refund by its key."""
    return NotHappened()


def void(result: Any) -> str:
    """Take a refund back."""
    return f"void {result}"


def refund(ticket_id: str, amount_usd: Decimal) -> str:
    """Give money back."""
    del amount_usd
    return ticket_id


PARTS: dict[Callable[..., Any], tuple[tuple[Any, ...], dict[str, Any]]] = {
    tool_contract: (
        (),
        {
            "effect": "write", "name": "refund", "scopes": ["refunds:write"],
            "facts": {"refund_usd": "amount_usd"}, "timeout": 30, "isolation": "thread",
            "retry": Retry(attempts=3, wait=0.0, max_wait=0.0),
        },
    ),
    idempotent: ((), {"key": "refund:{ticket_id}", "reconcile": find}),
    requires_approval: ((), {"when": "amount_usd > 50"}),
    budget: ((), {"max_calls": 3, "max_spend_usd": "200", "cost": "amount_usd"}),
    verified_by: ((paid,), {}),
    compensated_by: ((void,), {}),
    falls_back_to: (("draft",), {"on": ("tool_timeout",)}),
}  # fmt: skip
"""The decorators of a tool that passes every check, and what they are given."""


def tool(
    body: Callable[..., Any] = refund, *, without: tuple[Any, ...] = (), **contract: Any
) -> Any:
    """Return the good tool, *without* some decorators, or with another body or *contract*."""
    made: Any = body
    for decorate, (args, options) in PARTS.items():
        if decorate not in without:
            given = options | (contract if decorate is tool_contract else {})
            made = decorate(*args, **given)(made)
    return made


def declared(body: Callable[..., Any], decorate: Callable[..., Any], **changes: Any) -> Any:
    """Return the good tool, with other options of one decorator."""
    given = PARTS[decorate][1] | changes
    return decorate(**{n: v for n, v in given.items() if v is not None})(
        tool(body, without=(decorate,))
    )


@tool_contract(effect="read", scopes=["refunds:read"])
def get_refund(ticket_id: str) -> str:
    """Look a refund up."""
    return ticket_id


def settings(text: str = GOOD) -> Settings:
    """Read a configuration."""
    return loads(text)


class Shop:
    """The shop at work, on a store of its own."""

    def __init__(self, url: str = "memory://", text: str = GOOD) -> None:
        self.clock = FakeClock()
        self.guard = Guard(url, config=settings(text), principal=AGENT, clock=self.clock)
        self.refund = tool()
        self.seconds: Callable[[int], float] = lambda number: 10 + number % 3
        self.tokens: Callable[[int], int] = lambda number: 1000 + number % 3
        self.amount: Callable[[int], int] = lambda number: 75 if number % 20 == 0 else 20
        self.ticket: Callable[[int], str] = "T-{}".format
        self.model = "planner"
        self.reason = "it is due"

    def work(self, count: int = 50) -> Shop:
        """Let the agent make so many refunds; people decide on the large ones."""
        for number in range(count):
            ticket, amount = self.ticket(number), self.amount(number)
            for _part in range(2):
                with suppress(ApprovalRequired, GuardError), self.guard.run(run_id=f"r-{ticket}"):
                    self._work(number, ticket, amount)
                    break
                self.decide()
            self.clock.advance(60)
        return self

    def _work(self, number: int, ticket: str, amount: int) -> None:
        run = current_run()
        self.clock.advance(self.seconds(number))
        call = run.model_started(model=self.model, messages=[])
        run.model_finished(call, output="", input_tokens=self.tokens(number), output_tokens=0)
        self.refund(ticket_id=ticket, amount_usd=Decimal(amount))

    def decide(self) -> None:
        """Let a person approve what waits."""
        for each in self.guard.approvals.list("pending"):
            self.guard.approvals.decide(each.id, "approve", by="dana", reason=self.reason)

    def project(self, *tools: Any, text: str = GOOD, **options: Any) -> Project:
        """Return the shop as it is graded."""
        record = read_sample(self.guard.store, **options)
        return good(*tools, text=text, record=record)


def good(*tools: Any, text: str = GOOD, record: Any = None, principal: Any = AGENT) -> Project:
    """Return a project that passes every check of the minimum bar."""
    given = [*(tools or (tool(), get_refund)), principal]
    made = project_of(given, settings(text), record)
    return with_telemetry(made, Telemetry(sdk=True, targets=("OTEL_EXPORTER_OTLP_ENDPOINT",)))


def with_telemetry(project: Project, found: Telemetry) -> Project:
    """Return the project where telemetry is set up so, whatever this machine has."""
    from dataclasses import replace

    return replace(project, telemetry=found)


def lose_a_reply(shop: Shop) -> None:
    """Leave an effect in doubt that nobody rules on."""

    @tool_contract(effect="write")
    @idempotent(key="lost:{ticket_id}")
    def lost(ticket_id: str) -> str:
        raise RuntimeError(ticket_id)

    with suppress(GuardError), shop.guard.run(run_id="r-lost"):
        lost("T-1")


@contextmanager
def _held() -> Iterator[threading.Event]:
    word = threading.Event()
    try:
        yield word
    finally:
        before = [t for t in threading.enumerate() if t.daemon and t.name.startswith("Thread-")]
        word.set()
        for thread in before:
            thread.join(30)


def answer_late(shop: Shop) -> None:
    """Let a body say that it has written, after a person has ruled that it had not."""
    with _held() as word:

        @tool_contract(effect="write", timeout=0.05, isolation="thread")
        @idempotent(key="slow:{ticket_id}")
        def slow(ticket_id: str) -> str:
            word.wait()
            return ticket_id

        with suppress(GuardError), shop.guard.run(run_id="r-slow"):
            slow("T-1")
        (doubt,) = (e for e in shop.guard.effects.list("in_doubt") if e.tool == "slow")
        shop.guard.effects.resolve(doubt.id, "failed", by="dana", reason="it is not there")


def retry_dearly(shop: Shop) -> None:
    """Spend a lot on second tries."""
    tries: list[int] = []

    @tool_contract(effect="write", retry=Retry(attempts=2, wait=0.0, max_wait=0.0))
    @idempotent(key="dear:{number}")
    @budget(cost="1")
    def dear(number: int) -> int:
        tries.append(number)
        if tries.count(number) == 1:
            raise NoEffect("busy")
        return number

    for number in range(5):
        with shop.guard.run(run_id=f"r-dear-{number}"):
            dear(number)
