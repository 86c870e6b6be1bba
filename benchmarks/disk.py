"""Bytes on the disk: what a step leaves there, in short runs and in long ones, here and at peers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeAlias

from . import peers, postgres_peers
from .frameworks import scripted_model
from .laps import Caller, Opener, Place, Role, Subject, SyncWork, need
from .postgres import own_size
from .subjects import postgres_guard, read, write

Sizing: TypeAlias = Callable[[Place], int]

LENGTHS = (10, 100, 400, 1000)
SHORT_AND_LONG = (10, 400)
FULL_ONLY = (100, 400)


def files_size(place: Place) -> int:
    """Return the bytes of all pages in use, whether they are in the file yet or still in its WAL."""
    total = 0
    for file in place.folder.glob("*.db"):
        with closing(sqlite3.connect(file)) as connection:
            asked = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PAGES)
            pages, free, size = asked
            total += (pages - free) * size
    return total


PAGES = ("page_count", "freelist_count", "page_size")


@contextmanager
def bytes_of(place: Place, *, opener: Opener, length: int, size_of: Sizing) -> Iterator[SyncWork]:
    """Have *opener* do its steps in runs of *length*, and weigh what they leave.

    A run's own rows are shared out among its steps, so short runs weigh more a step.
    """
    with opener(place) as work:
        steps_of: Any = work

        def weighed(caller: Caller, steps: int) -> list[float]:
            runs, before = max(1, steps // length), size_of(place)
            for run in range(runs):
                steps_of(Caller(0, f"{caller.name}-run{run}"), length)
            return [(size_of(place) - before) / (runs * length)]

        yield weighed


@contextmanager
def tool_node(place: Place) -> Iterator[SyncWork]:
    """LangChain's `create_agent`, each tool call a step of a graph whose state SqliteSaver keeps."""
    need("langgraph-checkpoint-sqlite", "langgraph.checkpoint.sqlite")
    need("langchain", "langchain.agents")
    from langchain.agents import create_agent
    from langgraph.checkpoint.sqlite import SqliteSaver

    def find_ticket(ticket_id: str) -> str:
        """Find a ticket."""
        return ticket_id

    with SqliteSaver.from_conn_string(str(place.folder / "langgraph.db")) as saver:

        def work(caller: Caller, steps: int) -> list[float]:
            agent: Any = create_agent(scripted_model(steps), [find_ticket], checkpointer=saver)
            config = {**peers.thread_of(caller), "recursion_limit": 4 * steps}
            agent.invoke({"messages": [("user", "look")]}, config, durability="sync")
            return []

        yield work


def subjects(
    what: str, role: Role, opener: Any, library: str = "", *,
    lengths: tuple[int, ...] = SHORT_AND_LONG, size_of: Sizing = files_size, kind: str = "write",
) -> list[Subject]:  # fmt: skip
    """One subject a length, each beside the shortest."""
    names = {length: f"{what}, runs of {length:,}" for length in lengths}
    return [
        Subject(
            name,
            "disk",
            role,
            partial(bytes_of, opener=opener, length=length, size_of=size_of),
            library,
            beside=names[lengths[0]],
            unit="bytes",
            kind=f"{kind}, {length} steps",
            full=length in FULL_ONLY,
        )
        for length, name in names.items()
    ]


def on_postgres(what: str, role: Role, opener: Any, library: str = "") -> list[Subject]:
    """The same in a database of its own."""
    what, kind = f"{what}, PostgreSQL", "PostgreSQL"
    return subjects(what, role, opener, library, size_of=own_size, kind=kind)


READ: Opener = partial(read, with_spans=False)
ON_POSTGRES: Opener = partial(write, guard_in=postgres_guard)
DISK = [
    *subjects("LangGraph @task", "peer", peers.langgraph, "LangGraph"),
    *subjects("LangGraph create_agent", "peer", tool_node, lengths=LENGTHS[:3]),
    *subjects("DBOS step", "peer", peers.ON_WAL, "DBOS"),
    *subjects("Powertools", "peer", peers.powertools, "Powertools"),
    *on_postgres("LangGraph @task", "peer", postgres_peers.langgraph, "LangGraph"),
    *on_postgres("DBOS step", "peer", postgres_peers.dbos, "DBOS"),
    *subjects("guarded write", "ours", write, lengths=LENGTHS),
    *subjects("guarded read", "ours", READ, lengths=LENGTHS, kind="read"),
    *on_postgres("guarded write", "ours", ON_POSTGRES),
]
