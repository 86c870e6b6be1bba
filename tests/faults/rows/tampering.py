"""F22: somebody who can write to the file changes the record, and tidies up behind it.

Each of seven changes is made by four people, of whom each knows one more thing to put right: nothing,
the chain, the run's row with its seal, the leaves in the tenant's log. Against a head that was kept
elsewhere all of them stand out; without one the last of them does not, and that is shown, too.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from agentguard import Guard, idempotent, tool_contract
from agentguard.canonical import seal
from agentguard.ledger import heads
from agentguard.ledger.runs import COUNTERS, leaf_of, link
from agentguard.ledger.values import RunRef
from tests.faults.matrix import Count, Result

TENANT, RUN = "default", "r-2"
REF = RunRef(TENANT, RUN, "")
Event = dict[str, Any]
Change = Callable[[list[Event]], list[Event]]
COVERS = ("nothing", "the chain", "the chain and the row", "chain, row and log")


def edit(events: list[Event]) -> list[Event]:
    """Change what one event says."""
    data = json.loads(events[2]["data"]) | {"tool": "other"}
    events[2]["data"] = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return events


def delete(events: list[Event]) -> list[Event]:
    """Take one event out."""
    return [*events[:2], *events[3:]]


def swap(events: list[Event]) -> list[Event]:
    """Let two events change places."""
    return [*events[:2], events[3], events[2], *events[4:]]


def insert(events: list[Event]) -> list[Event]:
    """Put in an event that never was."""
    return [*events[:3], dict(events[2]), *events[3:]]


def cut(events: list[Event]) -> list[Event]:
    """Forget the end."""
    return events[:-2]


def rewrite(events: list[Event]) -> list[Event]:
    """Tell all of it as the story of somebody else."""
    return [{**event, "actor": "agent:other"} for event in events]


def regrow(events: list[Event]) -> list[Event]:
    """Forget the end, and tell another one of the same length."""
    return [*events[:-2], *({**event, "actor": "agent:other"} for event in events[-2:])]


CHANGES: tuple[Change, ...] = (edit, delete, swap, insert, cut, rewrite, regrow)


def sqlite(long: bool, seed: int) -> Result:
    """Tamper in every way, and check the whole record against the head kept before."""
    del long  # there are no more ways
    count = Count("F22", "sqlite", seed)
    unseen = []
    for change in CHANGES:
        for covers, name in enumerate(COVERS):
            place = f"{change.__name__}, {name} put right"
            alone, anchored = tried(partial(tamper, change=change, covers=covers))
            count.add([] if anchored else ["not seen"], place=place)
            unseen += [] if alone else [place]
    for trick in (vanish, renumber):
        alone, anchored = tried(trick)
        count.add([] if anchored else ["not seen"], place=trick.__name__)
        unseen += [] if alone else [trick.__name__]
    count.add(tried(erase)[1], place="an erased content")
    count.add([] if unseen else ["the oracle sees without an anchor what nobody can"], 0)
    return count.result(f"with an anchored head all are seen, without one {len(unseen)} are not")


def tried(change: Callable[[sqlite3.Connection], None]) -> tuple[list[str], list[str]]:
    """Change a record; return what is said of it without and with the head kept before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        anchor = filled(path)
        with closing(sqlite3.connect(path)) as db, db:
            db.row_factory = sqlite3.Row
            change(db)
        with closing(Guard(f"sqlite:///{path}")) as guard:
            return told(guard, None), told(guard, anchor)


def told(guard: Guard, anchor: heads.TreeHead | None) -> list[str]:
    """Return what does not fit in the record."""
    return guard.store.read(lambda tx: list(heads.contradictions(tx, TENANT, anchor)))


def filled(path: Path) -> heads.TreeHead:
    """Make three runs with a write each, and return the head that is kept elsewhere."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        return f"paid {ticket}"

    guard = Guard(f"sqlite:///{path}")
    for name in ("r-1", RUN, "r-3"):
        with guard.run("work", run_id=name):
            pay(name)
    guard.store.transact(heads.place, TENANT)
    anchor = guard.store.read(heads.head, TENANT)
    assert told(guard, anchor) == []
    guard.close()
    return anchor


def tamper(db: sqlite3.Connection, change: Change, covers: int) -> None:
    """Change the events of one run, and put right as much as *covers* says."""
    where = "tenant = ? AND run_id = ?"
    old = [dict(row) for row in db.execute(f"SELECT * FROM events WHERE {where} ORDER BY seq",
                                           (TENANT, RUN))]  # fmt: skip
    new = list(renewed(change([dict(event) for event in old]), chained=covers >= 1))
    assert new != old
    db.execute(f"DELETE FROM events WHERE {where}", (TENANT, RUN))
    for event in new:
        marks = ", ".join("?" * len(event))
        db.execute(f"INSERT INTO events ({', '.join(event)}) VALUES ({marks})", [*event.values()])
    if covers >= 2:
        put_row_right(db, new[-1])
    if covers >= 3:
        put_log_right(db, old, new)


def renewed(events: list[Event], *, chained: bool) -> Iterator[Event]:
    """Number events anew, and link them anew if the tamperer knows how."""
    prev = bytes(32)
    for seq, event in enumerate(events, 1):
        again = {**event, "seq": seq}
        if chained:
            again["hash"] = prev = link(
                REF, seq, event["at"], event["step"], event["kind"], event["actor"],
                event["data"], prev,
            )  # fmt: skip
        yield again


def put_row_right(db: sqlite3.Connection, last: Event) -> None:
    """Let the run's row name the new end, and seal it."""
    db.execute("UPDATE runs SET head_seq = ?, head_hash = ? WHERE run_id = ?",
               (last["seq"], last["hash"], RUN))  # fmt: skip
    row = db.execute(f"SELECT {', '.join(COUNTERS)} FROM runs WHERE run_id = ?", (RUN,)).fetchone()
    db.execute("UPDATE runs SET seal = ? WHERE run_id = ?", (seal(TENANT, RUN, *row), RUN))


def put_log_right(db: sqlite3.Connection, old: list[Event], new: list[Event]) -> None:
    """Let the leaves stand for the new events; one whose event is gone stands for the last one."""
    for (seq,) in db.execute("SELECT seq FROM leaves WHERE run_id = ?", (RUN,)).fetchall():
        at = len(new) if seq == len(old) else seq
        digest = leaf_of(RUN, at, new[at - 1]["hash"])
        db.execute("UPDATE leaves SET seq = ?, hash = ? WHERE run_id = ? AND seq = ?",
                   (at, digest, RUN, seq))  # fmt: skip


def vanish(db: sqlite3.Connection) -> None:
    """Let a run disappear everywhere, and close the gap in the log."""
    gone = [row[0] for row in db.execute("SELECT position FROM leaves WHERE run_id = ?", (RUN,))]
    for table in ("events", "runs", "effects", "leaves"):
        db.execute(f"DELETE FROM {table} WHERE run_id = ?", (RUN,))
    for position in sorted(gone, reverse=True):
        db.execute("UPDATE leaves SET position = -position WHERE position > ?", (position,))
        db.execute("UPDATE leaves SET position = -position - 1 WHERE position < 0")


def renumber(db: sqlite3.Connection) -> None:
    """Let two runs change places in the log."""
    for old, new in ((0, 99), (2, 0), (99, 2)):
        db.execute("UPDATE leaves SET position = ? WHERE position = ?", (new, old))


def erase(db: sqlite3.Connection) -> None:
    """Erase what an event was about, as somebody who asked for it may have it."""
    changed = db.execute("UPDATE events SET salt = NULL, body = NULL WHERE body IS NOT NULL")
    assert changed.rowcount
