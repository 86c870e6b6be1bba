"""Runs that are long: what a start and a settlement cost after 10 steps, and after 1,000."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from .laps import Caller, Place, Subject, SyncWork
from .parts import Part, timed_part
from .subjects import GuardIn, needs_agentguard, new_guard, postgres_guard

LENGTHS = (10, 100, 400, 1000)


@contextmanager
def late(place: Place, *, part: Part, length: int, guard_in: GuardIn) -> Iterator[SyncWork]:
    """Writes of a run that has *length* steps already, or up to a fifth more."""
    guard, write = guard_in(place), timed_part(part)
    with ExitStack() as run:
        room = 0

        def work(caller: Caller, steps: int) -> list[float]:
            nonlocal room
            if steps > room:
                run.close()
                run.enter_context(guard.run("bench", run_id=caller.name))
                write([f"{ticket}-before" for ticket in caller.tickets(length)])
                room = length // 5
            room -= steps
            return write(caller.tickets(steps))

        yield work


def subjects(part: Part, kind: str, guard_in: GuardIn, lengths: tuple[int, ...]) -> list[Subject]:
    """One subject a length, each beside the shortest."""
    names = {length: f"{part} after {length:,} steps, {kind}" for length in lengths}
    return [
        Subject(
            name,
            "length",
            "ours",
            needs_agentguard(partial(late, part=part, length=length, guard_in=guard_in)),
            beside=names[lengths[0]],
            full=length in LENGTHS[1:-1],
        )
        for length, name in names.items()
    ]


LENGTH = [
    *subjects("start", "SQLite", new_guard, LENGTHS),
    *subjects("settle", "SQLite", new_guard, LENGTHS),
    *subjects("whole", "PostgreSQL", postgres_guard, (LENGTHS[0], LENGTHS[-1])),
]
