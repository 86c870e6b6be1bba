"""`demo --slo`: payments go down, the workflow loses its autonomy, people look, and it comes back.

Nothing is staged: payments is a process that is ended and started again, the agent's calls fail by
themselves, and what an operator sees is what `agentguard` prints. At the end the record is held
against the journals of both services.
"""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path

import httpx

from agentguard import ApprovalRequired, Guard, GuardError, Principal, config

from . import tools
from .screen import Screen
from .world import World

WORKFLOW = "refund_and_close_ticket"
CONFIG = f"""\
agent_run:
  workflow: {WORKFLOW}
  slos:
    refunds_done:                 # nine runs in ten end well, of the last twenty
      workflow: {WORKFLOW}
      target: 0.9
      last: 20
      min: 5
      demote: {{burning: approve, exhausted: approve, restore: {{good: 2}}}}
"""
WELL, TICKETS = 6, 14
AT_MOST = 5
"""So many failures may come before autonomy is gone: more would be later than declared."""


class Broken(Exception):
    """The demo did not go as it is told."""


class Story:
    """The world, the guard, and what has happened so far."""

    def __init__(self, directory: Path, screen: Screen, world: World) -> None:
        self.directory, self.screen, self.world = directory, screen, world
        self.file = directory / "agent_run.yaml"
        self.file.write_text(CONFIG, "utf-8")
        who = Principal(agent="support-agent", subject="kim", scopes=tools.SCOPES)
        self.guard = Guard(screen.store, config=config.load(self.file), principal=who)
        self.tickets = iter(f"T-{2001 + number}" for number in range(TICKETS))
        self.failed: list[str] = []
        tools.PAYMENTS, tools.HELPDESK = world.payments_url, world.helpdesk_url

    def work(self, ticket: str) -> Exception | None:
        """Let the agent work on a ticket, or go on with it; return what stopped it."""
        try:
            with self.guard.run(run_id=run_of(ticket)):
                amount = Decimal(tools.get_ticket(ticket)["amount_usd"])
                tools.issue_refund(ticket, amount)
                tools.comment_ticket(ticket, "Your money is on its way.")
                tools.close_ticket(ticket)
        except (GuardError, httpx.HTTPError) as stopped:
            return stopped
        return None

    @property
    def stage(self) -> str | None:
        """The stage at which the workflow's autonomy ends; None if nowhere."""
        [level] = self.guard.slos.status()
        return level.head.stage

    def paid(self) -> int:
        """Return how many refunds payments has made, by its own journal."""
        return len(self.world.journal("payments"))

    def see(self, *words: str) -> None:
        """Show what an operator sees."""
        of_slos = words[0] == "slo"
        seen = [*words, "--config", self.screen.seen(self.file)] if of_slos else words
        self.screen.say(f"   $ agentguard {' '.join(seen)}", "cyan")
        self.screen.show(*words, *(["--config", str(self.file)] if of_slos else []))

    def approve(self) -> int:
        """Have a person look at what waits and say yes to it."""
        waiting = self.guard.approvals.list(status="pending")
        for approval in waiting:
            self.guard.approvals.decide(
                approval.id, "approve", by="dana", roles=["finance"], reason="looked at it"
            )
        return len(waiting)


def run_of(ticket: str) -> str:
    """Return the id of the run that works on a ticket."""
    return f"slo-{ticket}"


def play(directory: Path, screen: Screen) -> int:
    """Play it; 0 only if journals and record say that it really happened."""
    began = time.monotonic()
    file = directory / "tickets.json"
    file.write_text(json.dumps([_ticket(number) for number in range(TICKETS)]), "utf-8")
    screen.say("A service level takes autonomy away, and gives it back", "bold")
    screen.tell(
        f"The configuration says: of the last twenty runs of {WORKFLOW} nine in ten end well. If it"
        " is sure that they do not, each of its writes waits for a person, until two runs in a row"
        " have ended well."
    )
    with World(directory / "slo", tickets=file) as world:
        story = Story(directory, screen, world)
        try:
            for number, act in enumerate((well, down, waits, back), 1):
                screen.say()
                screen.say(f"{number}  {(act.__doc__ or '').splitlines()[0]}", "bold")
                act(story)
            check(story)
        except Broken as broken:
            screen.say(f"This did not go as it should: {broken}: please report it.", "bold red")
            return 1
        finally:
            story.guard.close()
    seconds = time.monotonic() - began
    screen.say()
    screen.say(
        f"Taken away and given back, as journals and record tell. ({seconds:.0f} s)", "green"
    )
    screen.export()
    config_file = screen.seen(directory / "agent_run.yaml")
    screen.say(f"  {screen.program()} slo report refunds_done --config {config_file}", "cyan")
    return 0


def _ticket(number: int) -> dict[str, str]:
    return {
        "id": f"T-{2001 + number}", "customer": f"Customer {number + 1}",
        "order_id": f"O-{6001 + number}", "subject": "Refund please", "message": "It was broken.",
        "amount_usd": f"{10 + number}.00",
    }  # fmt: skip


def expect(fact: object, sentence: str) -> None:
    """Go on only if *fact* holds."""
    if not fact:
        raise Broken(sentence)


def well(story: Story) -> None:
    """All is well: the agent pays, tells the customer, closes the ticket."""
    for _ in range(WELL):
        stopped = story.work(next(story.tickets))
        expect(stopped is None, f"a ticket failed while all was well: {stopped}")
    expect(story.paid() == WELL, "payments did not pay what was asked for")
    story.see("slo", "status")


def down(story: Story) -> None:
    """Payments goes down: its process is ended, and runs fail by themselves."""
    story.world.kill("payments")
    while story.stage is None and len(story.failed) < AT_MOST:
        ticket = next(story.tickets)
        stopped = story.work(ticket)
        expect(isinstance(stopped, httpx.ConnectError), f"{ticket} should have failed: {stopped}")
        story.failed.append(ticket)
        story.screen.say(f"   {ticket}  issue_refund: {stopped}", "dim")
    expect(story.stage == "approve", f"autonomy is still there after {AT_MOST} failures")
    story.screen.say(f"   After {len(story.failed)} failures its autonomy is gone:")
    story.see("slo", "status")


def waits(story: Story) -> None:
    """Payments is up again, and still the next write waits for a person."""
    story.world.start("payments")
    paid, ticket = story.paid(), next(story.tickets)
    stopped = story.work(ticket)
    expect(isinstance(stopped, ApprovalRequired), f"the write did not wait: {stopped}")
    expect(story.paid() == paid, "something was paid that nobody had approved")
    story.failed.append(ticket)
    story.see("approvals", "list")


def back(story: Story) -> None:
    """People look at each write, two runs end well: autonomy is back by rule."""
    for ticket in reversed(story.failed):
        approved = 0
        while isinstance(stopped := story.work(ticket), ApprovalRequired):
            approved += story.approve()
        expect(stopped is None, f"{ticket} did not end: {stopped}")
        how = f"{approved} writes approved by dana" if approved else "nobody was asked"
        story.screen.say(f"   {ticket}  done, {how}", "dim")
    expect(story.stage is None, "autonomy did not come back")
    for ticket in story.tickets:
        expect(story.work(ticket) is None, "a ticket failed after all was well again")
    story.see("slo", "status")


def check(story: Story) -> None:
    """Hold the record against the journals of both services."""
    refunds = [effect["ticket_id"] for effect in story.world.journal("payments")]
    wanted = [f"T-{2001 + number}" for number in range(TICKETS)]
    expect(sorted(refunds) == wanted, f"payments paid {len(refunds)} times for {TICKETS} tickets")
    closed = [e for e in story.world.journal("helpdesk") if e["effect"] == "ticket.closed"]
    expect(len(closed) == TICKETS, f"{len(closed)} of {TICKETS} tickets are closed")
    runs = [run_of(ticket) for ticket in wanted]
    broken = [run for run in runs if story.guard.runs.verify(run) is not None]
    expect(not broken, f"the record is broken in {', '.join(broken)}")
    events = sorted(
        (event for run in runs for event in story.guard.runs.events(run)),
        key=lambda event: (event.at, event.seq),
    )
    changes = [event for event in events if event.kind == "autonomy.changed"]
    told = [(event.data["from"], event.data["to"]) for event in changes]
    expect(told == [("auto", "approve"), ("approve", "auto")], f"the record tells {told}")
    between = [event for event in events if changes[0].at < event.at < changes[1].at]
    asked = {(e.run_id, e.step) for e in events if e.kind == "approval.used"}
    unasked = [
        event for event in between
        if event.kind == "step.started" and (event.run_id, event.step) not in asked
    ]  # fmt: skip
    expect(not unasked, "a write started unasked while autonomy was gone")
