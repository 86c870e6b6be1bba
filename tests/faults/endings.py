"""Stories of safe endings, for the process that kills workers: it is `zygote` with these to tell."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from agentguard import DecisionRefused, Guard, budget, current_run, falls_back_to, idempotent
from agentguard.tickets import FileTickets, Ticket
from tests.faults import zygote
from tests.faults.stories import RUN, STORIES, Worker


class Watched(FileTickets):
    """A file of tickets, with places to die before and after a ticket is in it."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.world.folder / "tickets")
        self._points = worker.points

    def file(self, ticket: Ticket) -> str:
        """File a ticket."""
        self._points.reach("before a ticket is filed")
        reference = super().file(ticket)
        self._points.reach("after a ticket is filed")
        return reference


class Once:
    """A backend that makes a ticket of whatever comes, and promises nothing."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def file(self, ticket: Ticket) -> str:
        """File a ticket."""
        self._worker.points.reach("before a ticket is filed")
        self._worker.world.act("ticket", ticket.key.rpartition("/")[0])
        self._worker.points.reach("after a ticket is filed")
        return "B-1"


async def _fall(worker: Worker, tickets: Any) -> None:
    worker.guard = Guard(worker.world.url, tickets=tickets)

    def act(ticket: str) -> str:
        worker.act(ticket)
        raise RuntimeError("connection reset")

    pay = worker.payer(act, falls_back_to("ticket"))
    other = worker.payer(worker.act)
    async with worker.run():
        await worker.call(pay, "T-1")
        await worker.call(other, "denied")


async def fallen(worker: Worker) -> None:
    """A write nobody knows of ends its run in a ticket; what the agent writes then must not happen."""
    await _fall(worker, Watched(worker))


async def fallen_once(worker: Worker) -> None:
    """The same with a backend that does not know a ticket again."""
    await _fall(worker, Once(worker))


async def asked(worker: Worker) -> None:
    """A run asks instead of going over a budget, a person answers, and it goes on."""
    worker.open()
    gate = worker.tool(
        worker.act,
        idempotent(key="gate:{ticket}"),
        budget(max_calls=0),
        falls_back_to("ask", question="Go on?"),
    )
    pay = worker.payer(worker.act)
    for _ in range(2):
        async with worker.run():
            if current_run().answer is None:
                await worker.call(gate, "denied")
            await worker.call(pay, "T-1")
        with contextlib.suppress(DecisionRefused):  # answered already
            worker.guard.runs.answer(RUN, "yes", by="dana")
            worker.points.reach("after a person's answer")


STORIES.update({story.__name__: story for story in (fallen, fallen_once, asked)})

if __name__ == "__main__":
    zygote.main(sys.argv[1])
