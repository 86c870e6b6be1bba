"""An agent works through the tickets, making its mistakes; people decide what is left to them."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from agentguard import ApprovalRequired, Guard, GuardError
from agentguard.tickets import FileTickets

from ..refund_and_close_ticket.world import World
from .desk import AGENT, Services, refund_tool
from .judge import table, truth
from .script import Ticket, calls, tickets, write

WORKFLOW = "refund_and_close_ticket"
CONFIG = Path(__file__).with_name("agent_run.yaml")


class Desk:
    """The agent's side of the desk, and its people's."""

    def __init__(self, world: World, guard: Guard) -> None:
        self.world, self.guard = world, guard
        self.refund: Callable[..., Any] = refund_tool(
            Services(world.payments_url, world.helpdesk_url)
        )

    def work(self, ticket: Ticket) -> None:
        """Let the agent work on a ticket until it is done, refused, or waits for somebody."""
        with contextlib.suppress(GuardError), self._run(ticket):
            for ticket_id, amount in calls(ticket):
                with self._spoilt(ticket):
                    self._asked(ticket_id, amount)

    def _run(self, ticket: Ticket) -> Any:
        run = self.guard.run(WORKFLOW, run_id=f"r-{ticket.id}")
        return _planned(run, ticket)

    def _asked(self, ticket_id: str, amount: Decimal) -> None:
        """Make one call; what the model is told of a refusal sends it on to its next call."""
        try:
            self.refund(ticket_id=ticket_id, amount_usd=amount)
        except ApprovalRequired:
            raise
        except GuardError as error:
            if error.halts:
                raise

    @contextlib.contextmanager
    def _spoilt(self, ticket: Ticket) -> Iterator[None]:
        """Let the services fail as the script says, for one call."""
        if ticket.mistake == "reply lost":
            self.world.fault("payments", drop_reply=1)
        elif ticket.mistake == "tool timeout":
            self.world.fault("payments", hold_reply=1)
        elif ticket.mistake == "verifier outage":
            self.world.fault("helpdesk", on="reads", fail_503=1)
        try:
            yield
        finally:
            if ticket.mistake == "tool timeout":
                self.world.release("payments")

    def decide(self, ticket: Ticket) -> None:
        """Let finance decide on what waits, then let the agent go on."""
        for approval in self.guard.approvals.list("pending"):
            said = "approve" if ticket.owed else "reject"
            self.guard.approvals.decide(
                approval.id, said, by="dana", roles=["finance"], reason=f"{ticket.owed} is owed"
            )
        self.work(ticket)

    def rule(self) -> int:
        """Let a person look into the ledger for every doubt that is left, and say what is true."""
        doubts = self.guard.effects.list(state="in_doubt", limit=1000)
        for effect in doubts:
            there = self.world.refunds(effect.run_id.removeprefix("r-"))
            paid = any(refund["idempotency_key"] == effect.id for refund in there)
            ruling = "happened" if paid else "not_happened"
            self.guard.effects.resolve(effect.id, ruling, by="dana", reason="payments' own list")
        return len(doubts)


@contextlib.contextmanager
def _planned(run: Any, ticket: Ticket) -> Iterator[None]:
    with run:
        plan = {"tool": "issue_refund", "arguments": {"ticket_id": ticket.id}}
        run.plan([plan], outside="refuse")
        yield


def play(folder: Path, count: int, say: Callable[[str], None]) -> int:
    """Play all tickets, print what caught what, and return 0 if the ledger is what is true."""
    found = tickets(count)
    folder.mkdir(parents=True, exist_ok=True)
    write(found, folder / "tickets.json")
    guard = Guard.from_config(
        CONFIG,
        store=f"sqlite:///{folder}/agentguard.db",
        principal=AGENT,
        tickets=FileTickets(folder / "filed.jsonl"),
    )
    with World(folder, tickets=folder / "tickets.json") as world, contextlib.closing(guard):
        desk = Desk(world, guard)
        for number, ticket in enumerate(found, 1):
            desk.work(ticket)
            if "over the limit" in ticket.mistake:
                desk.decide(ticket)
            if sys.stdout.isatty() and number % 10 == 0:
                print(f"\r\033[K  {number} of {count}", end="", flush=True)
        ruled = desk.rule()
        for line in table(found, guard, folder / "filed.jsonl", ruled):
            say(line)
        wrong = truth(found, world)
    for line in wrong or [f"The ledger is what is true for all {count} tickets."]:
        say(line)
    return 1 if wrong else 0


def main(words: list[str] | None = None) -> int:
    """Read the command line and play."""
    parser = argparse.ArgumentParser(prog="five_hundred_tickets", description=__doc__)
    parser.add_argument("--tickets", type=int, default=500)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args(words)
    if given.dir is not None:
        return play(given.dir.resolve(), given.tickets, print)
    with tempfile.TemporaryDirectory() as folder:
        return play(Path(folder), given.tickets, print)
