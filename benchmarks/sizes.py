"""Ledgers that are large: what a start, a look-up and a replay cost beside 10³ records and 10⁶."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .filled import (
    PER_RUN,
    Ledger,
    PostgresLedger,
    SqliteLedger,
    Template,
    copied_run,
    fill,
    record_template,
    recorded_ticket,
)
from .laps import Caller, NotAvailable, Place, Subject, SyncWork, timed, timed_for
from .parts import timed_part
from .postgres import database
from .subjects import AMOUNT, as_write, guard_at, guarded_write, needs_agentguard

if TYPE_CHECKING:
    from agentguard import Guard

Kind = Literal["SQLite", "PostgreSQL"]
Operation = Literal["start", "look-up", "replay"]

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = SIZES[:2]
TROUBLE = "trouble.txt"
KINDS: tuple[Kind, ...] = ("SQLite", "PostgreSQL")
OPERATIONS: tuple[Operation, ...] = ("start", "look-up", "replay")


def prepare(place: Place, sizes: tuple[int, ...], say: Callable[[str], None]) -> None:
    """Fill ledgers of *sizes*, on every store there is; what goes wrong is told by `filled_url`."""
    try:
        template = record_template(place.shared)
        for size in sizes:
            fill_one(place, template, size, say)
    except Exception as error:  # noqa: BLE001 - the other groups are measured all the same
        (place.shared / TROUBLE).write_text(f"{type(error).__name__}: {error}")


def fill_one(place: Place, template: Template, size: int, say: Callable[[str], None]) -> None:
    """Fill the ledgers of one size, and note where they are."""
    file = place.shared / f"ledger-{size}.db"
    urls: dict[Kind, str] = {"SQLite": f"sqlite:///{file}"}
    ledgers: list[Ledger] = [SqliteLedger(template, file)]
    try:
        urls["PostgreSQL"], _ = database(place, f"ledger_{size}")
        ledgers.append(PostgresLedger(template, urls["PostgreSQL"]))
    except NotAvailable as reason:
        urls.pop("PostgreSQL", None)
        (place.shared / TROUBLE).write_text(str(reason))
    fill(template, size, ledgers, partial(told, say, size))
    for kind, url in urls.items():
        address_file(place, kind, size).write_text(url)


def told(say: Callable[[str], None], size: int, done: int) -> None:
    """Say how far a ledger is filled."""
    say(f"size: filling {size:_} records, {done:,} done")


def address_file(place: Place, kind: Kind, size: int) -> Path:
    """Say where the address of a filled ledger stands."""
    return place.shared / f"{kind}-{size}.url"


def filled_url(place: Place, kind: Kind, size: int) -> str:
    """Find a ledger that `prepare` has filled."""
    found, trouble = address_file(place, kind, size), place.shared / TROUBLE
    if found.exists():
        return found.read_text()
    raise NotAvailable(
        trouble.read_text() if trouble.exists() else f"no ledger of {size:,} was filled"
    )


@contextmanager
def operation(place: Place, *, kind: Kind, size: int, name: Operation) -> Iterator[SyncWork]:
    """One operation on a ledger of one size, on records chosen at random."""
    guard = guard_at(filled_url(place, kind, size))
    yield {"start": starting, "look-up": looking_up, "replay": replaying}[name](guard, size)


def starting(guard: Guard, size: int) -> SyncWork:
    """Start new effects."""
    write = timed_part("start")

    def work(caller: Caller, steps: int) -> list[float]:
        with guard.run("bench", run_id=f"{caller.name}-start"):
            return write([f"{ticket}-new" for ticket in caller.tickets(steps)])

    return work


def looking_up(guard: Guard, size: int) -> SyncWork:
    """Show one effect, by its id alone, as an operator asks for it; a few are enough if it is slow."""
    chosen = random.Random(size)
    ids = [
        event.data["key"]
        for number in chosen.choices(range(size // PER_RUN), k=30)
        for event in guard.runs.events(copied_run(number), tenant="default")
        if event.kind == "step.started"
    ]

    def work(caller: Caller, steps: int) -> list[float]:
        return timed_for(0.3, guard.effects.show, chosen.choices(ids, k=steps))

    return work


def replaying(guard: Guard, size: int) -> SyncWork:
    """Ask for what was done before."""
    tool: Any = as_write(guarded_write)

    def work(caller: Caller, steps: int) -> list[float]:
        numbers = random.Random(caller.name).choices(range(size), k=steps)
        with guard.run("bench", run_id=f"{caller.name}-replay"):
            return timed(lambda ticket: tool(ticket, AMOUNT), [recorded_ticket(n) for n in numbers])

    return work


def subjects(kind: Kind, name: Operation) -> list[Subject]:
    """One subject a size, each beside the smallest."""
    names = {size: f"{name}, {size:,} records, {kind}" for size in SIZES}
    return [
        Subject(
            named,
            "size",
            "ours",
            needs_agentguard(partial(operation, kind=kind, size=size, name=name)),
            beside=names[SIZES[0]],
            full=size not in QUICK_SIZES,
        )
        for size, named in names.items()
    ]


SIZE = [one for kind in KINDS for name in OPERATIONS for one in subjects(kind, name)]
