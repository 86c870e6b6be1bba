"""Ours: a guarded read, write and replay, everything on, written against public names only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

from .floors import IMPORT_BASE, imported
from .laps import (
    MANY,
    AsyncWork,
    Caller,
    NotAvailable,
    Opener,
    Place,
    Subject,
    SyncWork,
    timed,
    timed_async,
)
from .postgres import own_database
from .spans import batching_tracer

if TYPE_CHECKING:
    from agentguard import Guard

AMOUNT = Decimal(20)
PLENTY = 1_000_000_000
"""A limit no lap reaches: counting it durably is what is measured, not its end."""
LIMITS: dict[str, Any] = {"max_steps": PLENTY, "max_tool_calls": PLENTY}

Tool: TypeAlias = Callable[[str, Decimal], str]
AsyncTool: TypeAlias = Callable[[str, Decimal], Awaitable[str]]
GuardIn: TypeAlias = Callable[[Place], "Guard"]


def needs_agentguard(opener: Callable[..., Any]) -> Callable[..., Any]:
    """Say "not built yet" where a public name is still missing."""

    @wraps(opener)
    def open_or_explain(*arguments: Any, **options: Any) -> Any:
        try:
            from agentguard import Guard, budget, idempotent, requires_approval, tool_contract  # noqa: F401
        except ImportError as error:
            raise NotAvailable(f"agentguard is not built yet ({error})") from None
        return opener(*arguments, **options)

    return open_or_explain


def new_guard(place: Place, store: str = "agentguard") -> Guard:
    """Make a guard on a new SQLite file, with every default as it ships."""
    from agentguard import Guard

    return Guard(f"sqlite:///{place.folder / store}.db")


def postgres_guard(place: Place) -> Guard:
    """Make a guard on an empty database of PostgreSQL, with every default as it ships."""
    return guard_at(own_database(place))


def guard_at(url: str) -> Guard:
    """Make a guard, or say that there is no such store yet."""
    from agentguard import ConfigurationError, Guard

    try:
        return Guard(url)
    except ConfigurationError as error:
        raise NotAvailable(
            f"the PostgreSQL store is not there yet ({type(error).__name__})"
        ) from None


def guarded_read(ticket_id: str, amount_usd: Decimal) -> str:
    """Read a ticket."""
    return ticket_id


def guarded_write(ticket_id: str, amount_usd: Decimal) -> str:
    """Refund a ticket."""
    return ticket_id


async def guarded_write_async(ticket_id: str, amount_usd: Decimal) -> str:
    """Refund a ticket, awaited."""
    return ticket_id


def as_read(tool: Tool) -> Tool:
    """Declare what a read has: a contract; its run counts it against steps and tool calls."""
    from agentguard import tool_contract

    return tool_contract(effect="read")(tool)


def as_write(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Declare everything a write can have; the approval's condition is asked and answered no."""
    from agentguard import budget, idempotent, requires_approval, tool_contract

    tool = budget(max_calls=PLENTY, max_spend_usd=str(PLENTY), cost="amount_usd")(tool)
    tool = requires_approval(when="amount_usd > 50", roles=["finance"])(tool)
    tool = idempotent(key="refund:{ticket_id}")(tool)
    return tool_contract(effect="write", facts={"refund_usd": "amount_usd"})(tool)


@needs_agentguard
@contextmanager
def read(place: Place, *, with_spans: bool) -> Iterator[SyncWork]:
    """A guarded read in a run, under the SDK's tracer provider or under none."""
    guard, tool = new_guard(place), as_read(guarded_read)
    with batching_tracer() if with_spans else nullcontext() as tracing:

        def work(caller: Caller, steps: int) -> list[float]:
            if tracing:
                tracing.forget()
            with guard.run("bench", run_id=caller.name, **LIMITS):
                return timed(lambda ticket: tool(ticket, AMOUNT), caller.tickets(steps))

        yield work


@needs_agentguard
@contextmanager
def write_to_new_store(place: Place) -> Iterator[SyncWork]:
    """Guarded writes on a new file each lap, as the floor has it; opening it is not a step."""
    tool = as_write(guarded_write)
    with batching_tracer() as tracing:

        def work(caller: Caller, steps: int) -> list[float]:
            tracing.forget()
            with new_guard(place, caller.name).run("bench", run_id=caller.name):
                return timed(lambda ticket: tool(ticket, AMOUNT), caller.tickets(steps))

        yield work


@needs_agentguard
@contextmanager
def write(place: Place, *, guard_in: GuardIn = new_guard) -> Iterator[SyncWork]:
    """Guarded writes of a sync tool, each caller in a run of its own."""
    guard, tool = guard_in(place), as_write(guarded_write)
    with batching_tracer() as tracing:

        def work(caller: Caller, steps: int) -> list[float]:
            if caller.number == 0:
                tracing.forget()
            with guard.run("bench", run_id=caller.name, **LIMITS):
                return timed(lambda ticket: tool(ticket, AMOUNT), caller.tickets(steps))

        yield work


@needs_agentguard
@contextmanager
def write_async(place: Place, *, guard_in: GuardIn = new_guard) -> Iterator[AsyncWork]:
    """Guarded writes of an async tool, each caller in a run of its own."""
    guard, tool = guard_in(place), as_write(guarded_write_async)
    with batching_tracer() as tracing:

        async def work(caller: Caller, steps: int) -> list[float]:
            if caller.number == 0:
                tracing.forget()
            async with guard.run("bench", run_id=caller.name):
                return await timed_async(lambda ticket: tool(ticket, AMOUNT), caller.tickets(steps))

        yield work


@needs_agentguard
@contextmanager
def replay(place: Place, *, guard_in: GuardIn = new_guard) -> Iterator[SyncWork]:
    """A guarded write whose effect is recorded already, asked for again."""
    guard, tool = guard_in(place), as_write(guarded_write)
    with guard.run("bench", run_id="recorded"):
        tool("T-1", AMOUNT)

    def work(caller: Caller, steps: int) -> list[float]:
        with guard.run("bench", run_id=caller.name, loops="off"):  # it is one, on purpose
            return timed(lambda ticket: tool(ticket, AMOUNT), ["T-1"] * steps)

    yield work


READ_WITH_SPANS: Opener = partial(read, with_spans=True)
READ_WITHOUT: Opener = partial(read, with_spans=False)
ON_POSTGRES: Opener = partial(write, guard_in=postgres_guard)
IN_TASKS_ON_POSTGRES: Opener = partial(write_async, guard_in=postgres_guard)
REPLAY_ON_POSTGRES: Opener = partial(replay, guard_in=postgres_guard)
IMPORT: Opener = needs_agentguard(partial(imported, "import agentguard", IMPORT_BASE))

SUBJECTS = [
    Subject("guarded read, SDK span", "read", "ours", READ_WITH_SPANS),
    Subject("guarded read, no provider", "read", "ours", READ_WITHOUT),
    Subject("guarded write, new store", "write", "ours", write_to_new_store),
    Subject("guarded write, used store", "write", "ours", write),
    Subject("guarded write, threads", "writers", "ours", write, callers=MANY),
    Subject("guarded write, tasks", "writers", "ours", write_async, callers=MANY, mode="tasks"),
    Subject("guarded replay", "replay", "ours", replay),
    Subject("guarded write", "write-postgres", "ours", ON_POSTGRES),
    Subject("guarded write, threads", "writers-postgres", "ours", ON_POSTGRES, callers=MANY),
    Subject(
        "guarded write, tasks",
        "writers-postgres",
        "ours",
        IN_TASKS_ON_POSTGRES,
        callers=MANY,
        mode="tasks",
    ),
    Subject("guarded replay", "replay-postgres", "ours", REPLAY_ON_POSTGRES),
    Subject("agentguard", "import", "ours", IMPORT),
]
