"""F19: a store of an older schema, a newer one, and a migration that is killed at every statement.

The older store is one that the code of that time wrote (`old/schema_1.sql`): a run with a step of
every kind, three others, and one whose worker was killed in the body of its call.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from agentguard import (
    ConfigurationError,
    EffectInDoubt,
    Guard,
    GuardError,
    idempotent,
    tool_contract,
)
from agentguard.ledger import heads
from agentguard.stores.schema import APPLICATION_ID, VERSION
from agentguard.stores.sqlite import SqliteStore
from tests.faults import probes
from tests.faults.matrix import Count, Result
from tests.faults.probes import Points
from tests.faults.processes import Gate, ended, fork
from tests.faults.world import World

OLD = Path(__file__).resolve().parents[1] / "old" / "schema_1.sql"
RUNS = ("r-1", "broken", "busy", "r-killed")
OLDER = "has the older schema 1: stop its workers, then run `agentguard store migrate`"
IN_USE = "is in use by 1 process of the older schema 1: stop them"
NEWER = f"was written by a newer agentguard (schema {VERSION + 1}, this one reads {VERSION})"


def sqlite(long: bool, seed: int) -> Result:
    """Open, migrate, kill the migration, let several migrate at once, and look at what is left."""
    del long  # there are no more places
    count = Count("F19", "sqlite", seed)
    with tempfile.TemporaryDirectory(prefix="agentguard-") as folder:
        root = Path(folder)
        whole = reference(root / "whole")
        count.add(refused(root / "older", 1, OLDER), place="an older store")
        count.add(refused(root / "newer", VERSION + 1, NEWER), place="a newer store")
        for number, name in enumerate(places(root / "all")):
            problems = killed(root / str(number), number, whole)
            count.add(problems, place=f"killed at {number} {name}")
            shutil.rmtree(root / str(number))
        count.add(crowd(root / "crowd", whole), place="four migrate at once")
        count.add(in_use(root / "in use", whole), place="a worker is alive")
    return count.result("a point is a statement of the migration, or a way to open the store")


def old_store(folder: Path) -> World:
    """Make the old store, with the lock file of its dead worker."""
    folder.mkdir()
    world = World(folder)
    locks = folder / "store.db.owners"
    locks.mkdir(mode=0o700)
    with closing(sqlite3.connect(world.store)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(OLD.read_text("utf-8"))
        for (owner,) in db.execute("SELECT owner FROM owners").fetchall():
            lock = locks / f"{owner}.lock"
            lock.touch(mode=0o600)
            found = lock.stat()
            db.execute("UPDATE owners SET lock_device = ?, lock_inode = ? WHERE owner = ?",
                       (found.st_dev, found.st_ino, owner))  # fmt: skip
    return world


def migrate(world: World) -> None:
    """Do what `agentguard store migrate` does."""
    SqliteStore(world.store, migrate=True).close()


Content = dict[str, list[tuple[Any, ...]]]


def content(path: Path) -> tuple[int, Content]:
    """Read version and rows past our own code; locks and dead owners differ from store to store."""
    with closing(sqlite3.connect(path)) as db:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        names = [
            row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        rows = {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in names}
    rows["owners"] = [(*row[:2], *row[6:]) for row in rows["owners"]]
    return version, rows


def reference(folder: Path) -> dict[int, Content]:
    """Return what the store holds before its migration and after it."""
    world = old_store(folder)
    before = dict([content(world.store)])
    migrate(world)
    after = dict([content(world.store)])
    assert sorted(before | after) == [1, VERSION]
    assert all(after[VERSION][table] for table in ("runs", "events", "effects", "leaves"))
    return before | after


def refused(folder: Path, version: int, sentence: str) -> Iterator[str]:
    """Open a store of another version, and see that nothing but a sentence comes of it."""
    world = old_store(folder)
    with closing(sqlite3.connect(world.store)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        Guard(world.url).close()
        yield "it was opened"
    except ConfigurationError as error:
        if sentence not in str(error):
            yield f"it was refused with: {error}"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if after != before:
        yield f"looking at it has changed {sorted(str(p) for p in after if after[p] != before.get(p))}"


def places(folder: Path) -> list[str]:
    """Migrate in a fork, and list the places that it passed."""
    world, listing = old_store(folder), folder / "points"

    def work() -> None:
        listing.write_text(json.dumps(watched(world, None).passed))

    assert ended(fork(work)) == 0
    found: list[str] = json.loads(listing.read_text())
    assert sum("ALTER" in name for name in found) >= 5, found
    return found


def watched(world: World, chosen: int | None) -> Points:
    """Migrate, counting the statements; die at the chosen one."""
    points = Points(chosen)
    points.phase = "migration"
    probes.at_statements(points)
    migrate(world)
    return points


def killed(folder: Path, number: int, whole: dict[int, Content]) -> Iterator[str]:
    """Kill a migration at one place: the store is old or new, and the next one finishes it."""
    world = old_store(folder)
    exit_code = ended(fork(lambda: watched(world, number)))
    if exit_code != -signal.SIGKILL:
        yield f"the migration ended with {exit_code} instead of being killed"
    version, rows = content(world.store)
    yield from differences(rows, whole.get(version, {}), f"as version {version}")
    if version == 1:
        yield from refused_again(world)
    try:
        migrate(world)
    except GuardError as error:
        yield f"lost: the migration cannot be finished: {error}"
        return
    yield from differences(content(world.store)[1], whole[VERSION], "after a second migration")
    yield from goes_on(world)


def differences(found: Content, expected: Content, when: str) -> Iterator[str]:
    """Tell which tables are not as they should be."""
    for table in sorted(found.keys() | expected.keys()):
        if (rows := found.get(table, [])) != (wanted := expected.get(table, [])):
            yield f"lost: {table} {when}: {len(rows)} rows, not the {len(wanted)} there were"


def refused_again(world: World) -> Iterator[str]:
    """See that a store whose migration did not come to its end is still an old one."""
    try:
        Guard(world.url).close()
        yield "half migrated, and opened"
    except ConfigurationError as error:
        if OLDER not in str(error):
            yield f"it was refused with: {error}"


def goes_on(world: World) -> Iterator[str]:
    """Make the calls of the old worker again, with the new code."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        world.act(ticket)
        return f"paid {ticket}"

    guard = Guard(world.url)
    with closing(guard):
        for run_id in ("r-killed", "another"):
            with suppress(EffectInDoubt), guard.run("night", run_id=run_id):
                if pay("T-1") != "paid T-1":
                    yield "lost: the result of T-1"
                pay("T-killed")
        yield from (f"duplicate: {name} happened again" for name in world.effects())
        doubts = {effect.run_id for effect in guard.effects.list(state="in_doubt")}
        yield from (f"unreported: the doubt of {run}" for run in {"r-1", "r-killed"} - doubts)
        yield from (broken for run in RUNS if (broken := guard.runs.verify(run)))
        yield from guard.store.read(lambda tx: list(heads.contradictions(tx, "default")))


def crowd(folder: Path, whole: dict[int, Content]) -> Iterable[str]:
    """Let four processes migrate one store at the same moment."""
    world, gate = old_store(folder), Gate()

    def work() -> None:
        gate.wait()
        migrate(world)

    children = [fork(work) for _ in range(4)]
    gate.open(len(children))
    exits = [ended(child) for child in children]
    yield from (f"one of them ended with {code}" for code in exits if code)
    yield from differences(content(world.store)[1], whole[VERSION], "after all of them")
    yield from goes_on(world)


def in_use(folder: Path, whole: dict[int, Content]) -> Iterator[str]:
    """Migrate while a worker of the old code is alive, and once more when it is not."""
    world, locked, leave = old_store(folder), Gate(), Gate()

    def worker() -> None:
        with (folder / "store.db.owners" / "own_old.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            locked.open()
            leave.wait()

    running = fork(worker)
    locked.wait()
    try:
        migrate(world)
        yield "it was migrated under a worker"
    except ConfigurationError as error:
        if IN_USE not in str(error):
            yield f"it was refused with: {error}"
    yield from differences(content(world.store)[1], whole[1], "while a worker is alive")
    leave.open()
    ended(running)
    migrate(world)
    yield from goes_on(world)
