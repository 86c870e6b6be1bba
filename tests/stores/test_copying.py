"""A record that moves to another store arrives whole, once, whatever kills it on its way."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard import ConfigurationError, Guard, RunHalted, StoreUnavailable
from agentguard.ledger import effects, switches
from agentguard.ledger.lifecycle import cancel_run
from agentguard.ledger.queries import broken_link
from agentguard.ledger.values import RunRef
from agentguard.protocols import Store
from agentguard.stores import copying, open_store
from agentguard.stores._tables import tables
from agentguard.testing.stores.ledger import enter, intent
from agentguard.testing.stores.processes import Child
from tests.cli import world
from tests.postgres.server import Server

NUMBERS = itertools.count()
LONG = bool(os.environ.get("AGENTGUARD_LONG"))
OWN = ("meta", "owners")


@pytest.fixture(scope="module", name="filled")
def a_filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a record with one step of every kind, and a switch that stands."""
    path = tmp_path_factory.mktemp("source") / "a.db"
    world.fill(path, world.Clock())
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.transact(switches.throw, "tool", "broken", "dana", "it is broken")
        store.transact(switches.throw, "tool", "mended", "dana", "it was broken")
        store.transact(switches.lift, "tool", "mended", "dana")
    return path


@pytest.fixture(name="source")
def a_source(filled: Path, tmp_path: Path) -> str:
    """Copy the record for one test."""
    (tmp_path / "source").mkdir()
    return f"sqlite:///{shutil.copy(filled, tmp_path / 'source' / 'a.db')}"


@pytest.fixture(name="target")
def a_target(tmp_path: Path) -> str:
    """Where an empty store can be."""
    return f"sqlite:///{tmp_path}/b.db"


@pytest.fixture(name="postgres")
def an_empty_postgres(postgres_server: Server) -> str:
    """Name a schema in which there is no store yet."""
    return f"{postgres_server.url('postgres')}?schema=copy{next(NUMBERS)}"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many pages of few rows."""
    monkeypatch.setattr(copying, "_PAGE", 7)


def record(url: str) -> dict[str, list[str]]:
    """Return every row of every table that belongs to the record, by a way of its own."""
    with sqlite3.connect(":memory:") as schema:
        from agentguard.stores.schema import TABLES

        for statement in TABLES:
            schema.execute(statement)
        names = schema.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        columns = {
            name: [row[1] for row in schema.execute(f"PRAGMA table_info({name})")]
            for (name,) in names
            if name not in OWN
        }
    schema.close()
    with closing(open_store(url)) as store:
        found = {
            name: store.read(
                lambda tx, n=name: list(tx.rows(f"SELECT {', '.join(columns[n])} FROM {n}"))
            )
            for name in columns
        }
    found["switches"] = [row for row in found["switches"] if row[0] != -1]
    return {name: sorted(repr(tuple(row)) for row in rows) for name, rows in found.items()}


def begin(url: str, key: str = "k-new", run: str = "r-new", tenant: str = "acme") -> Any:
    """Ask whether a write may start in the store at *url*."""
    ref = RunRef(tenant, run, "agent:bot")
    with closing(open_store(url)) as store:
        enter(store, ref)
        return store.transact(effects.begin, intent(ref, key))[0]


def refusal(source: str, target: str) -> str:
    """Return the sentence with which a copy is refused."""
    with pytest.raises(ConfigurationError) as refused:
        copying.copy(source, target)
    assert "\n" not in str(refused.value)
    return refused.value.message


# Whole.


def test_a_record_arrives_whole(source: str, target: str) -> None:
    """Every row is the same afterwards, counted and hashed, and every run's chain is checked."""
    copied = copying.copy(source, target)
    there = record(target)
    assert there == record(source)
    assert {part.table: part.rows for part in copied.parts} == {n: len(r) for n, r in there.items()}
    assert sum(map(len, there.values())) > 90
    assert (copied.runs, copied.broken, copied.before) == (len(there["runs"]), [], False)
    with closing(open_store(target)) as store:
        assert [store.read(broken_link, tenant, run) for tenant, run in runs(store)] == (
            [None] * copied.runs
        )


def runs(store: Store) -> list[Any]:
    """Return tenant and id of all runs."""
    return list(store.read(lambda tx: list(tx.rows("SELECT tenant, run_id FROM runs"))))


def test_a_record_moves_to_postgres_and_back(source: str, target: str, postgres: str) -> None:
    """From SQLite to PostgreSQL and from there to another file, not one value changes."""
    before = record(source)
    out = copying.copy(source, postgres)
    assert record(postgres) == before
    back = copying.copy(postgres, target)
    assert record(target) == before
    assert [part.digest for part in back.parts] == [part.digest for part in out.parts]


@pytest.mark.parametrize("kind", ["target", "postgres"])
def test_work_goes_on_in_the_destination(
    source: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """What was done is not done again there, new calls start, and new switches find a number."""
    target = request.getfixturevalue(kind)
    with closing(open_store(source)) as store:
        for _ in range(25):
            store.transact(switches.throw, "agent", "old", "dana", "stop")
        store.transact(switches.lift, "agent", "old", "dana")
        done = store.read(lambda tx: tx.row(
            "SELECT tenant, key, run_id FROM effects WHERE state = 'succeeded'"))  # fmt: skip
    copying.copy(source, target)
    tenant, key, _ = done
    assert type(begin(target, key, tenant=tenant)).__name__ in ("Replay", "Refused")
    assert type(begin(target)).__name__ == "Started"
    with closing(open_store(target)) as store:
        assert [s["name"] for s in store.read(switches.thrown)] == ["broken"]
        for _ in range(3):
            store.transact(switches.throw, "tool", "pay", "dana", "stop")
        assert len(store.read(switches.thrown)) == 4


def test_nothing_starts_in_the_source_afterwards(source: str, target: str, tmp_path: Path) -> None:
    """The record moved: the source tells whoever calls there where it is, and moves nowhere else."""
    copying.copy(source, target)
    refused = begin(source)
    assert isinstance(refused.error, RunHalted)
    assert f"moves to {target}" in refused.error.message
    assert f"moves to {target}, or has: go on there" in refusal(
        source, f"sqlite:///{tmp_path}/c.db"
    )


def test_a_copy_that_is_done_is_done(source: str, target: str) -> None:
    """The same command again changes nothing, also when work has gone on in the destination."""
    copying.copy(source, target)
    begin(target)
    before = record(target)
    assert copying.copy(source, target).before
    assert record(target) == before


# Killed.


class Killed:
    """Kills this process at one of the places that a copy passes."""

    def __init__(self, at: int) -> None:
        self.left = at
        write = copying._write_page

        def writing(*arguments: Any) -> None:
            self.told()
            write(*arguments)
            self.told()  # everything is written, nothing is committed

        copying._write_page = writing  # type: ignore[assignment]

    def told(self, *_: Any) -> None:
        """Pass a place, or die there."""
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def copy_and_die(source: str, target: str, at: int) -> bool:
    """Copy in a fork that is killed at its place *at*; return whether it came to its end before."""

    def work(say: Callable[[Any], None]) -> None:
        copying.copy(source, target, Killed(at).told)
        say("done")
        os._exit(0)

    child = Child(work)
    ended = child.heard() == ["done"]
    child.close()
    return ended


@pytest.mark.parametrize("kind", ["target", "postgres"])
def test_a_copy_that_is_killed_anywhere_goes_on(
    filled: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """After a SIGKILL at any place nothing starts in either store, and the same command ends it."""
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    places = itertools.count(1) if LONG else itertools.chain([1, 2, 3], itertools.count(4, 11))
    for at in places:
        (tmp_path / f"{at}").mkdir()
        source = f"sqlite:///{shutil.copy(filled, tmp_path / f'{at}' / 'a.db')}"
        target = f"sqlite:///{tmp_path}/{at}/b.db"
        if server is not None:
            target = f"{server.url('postgres')}?schema=kill{next(NUMBERS)}"
        if copy_and_die(source, target, at):
            break
        for url in (source, target):
            assert isinstance(begin(url, run=f"r-{at}").error, RunHalted), at
        copying.copy(source, target)
        assert record(target) == record(source), at
    assert at > 40


def test_a_copy_goes_on_where_it_stopped(source: str, target: str) -> None:
    """A copy that was killed late does not begin anew."""
    pages: list[list[str]] = [[], []]
    for number, most in enumerate((15, 10_000)):
        seen = pages[number]

        def told(what: str, *_: int, seen: list[str] = seen, most: int = most) -> None:
            seen.append(what)
            if len(seen) == most:
                raise KeyboardInterrupt

        try:
            copying.copy(source, target, told)
        except KeyboardInterrupt:
            continue
    first, second = pages
    copied = [what for what in second if " " not in what]
    assert "runs" in first
    assert "runs" not in copied
    assert copied[0] == first[-1]
    assert record(target) == record(source)


# Changed on the way.


def test_what_changes_meanwhile_is_copied_again(source: str, target: str) -> None:
    """A person who decides during the copy is no harm: what was copied already is copied again."""
    changed: list[str] = []

    def told(what: str, *_: int) -> None:
        if what == "leaves" and not changed:
            with closing(open_store(source)) as store:
                tenant, run = runs(store)[0]
                store.transact(cancel_run, tenant, run, "dana", "enough")
                changed.append(run)

    copying.copy(source, target, told)
    assert changed
    assert record(target) == record(source)


def test_a_source_that_does_not_stand_still_is_not_called_copied(source: str, target: str) -> None:
    """While something goes on writing, the copy does not end, and nothing starts in the destination."""
    turns = itertools.count()

    def told(what: str, *_: int) -> None:
        if what.endswith("budgets"):
            with closing(open_store(source)) as store:
                store.transact(
                    lambda tx: tx.run("UPDATE budgets SET spent = spent + ?", (next(turns) + 1,))
                )

    with pytest.raises(StoreUnavailable, match="changes while it is copied"):
        copying.copy(source, target, told)
    assert isinstance(begin(target).error, RunHalted)


def test_a_row_that_arrives_wrong_is_found(source: str, target: str) -> None:
    """A value that the destination keeps differently is seen by the comparison and written again."""
    spoilt: list[str] = []

    def told(what: str, *_: int) -> None:
        if what == "switches" and not spoilt:
            with closing(open_store(target)) as store:
                store.transact(lambda tx: tx.run("UPDATE events SET at = at + 1 WHERE seq = 2"))
                store.transact(lambda tx: tx.run("DELETE FROM votes"))
                store.transact(lambda tx: tx.run(
                    "INSERT INTO rates (tenant, tool, next_at) VALUES ('x', 'x', 1)"))  # fmt: skip
                spoilt.append("all")

    copying.copy(source, target, told)
    assert record(target) == record(source)


def test_damage_of_the_source_is_told(source: str, target: str) -> None:
    """A chain that was broken before is copied as it is, and named."""
    with closing(open_store(source)) as store:
        store.transact(lambda tx: tx.run("UPDATE events SET actor = 'eve' WHERE seq = 2"))
    copied = copying.copy(source, target)
    assert copied.broken
    assert all("event 2 of run" in said for said in copied.broken)
    assert record(target) == record(source)


# Refused.


def test_a_destination_that_holds_something_is_refused(
    source: str, target: str, filled: Path, tmp_path: Path
) -> None:
    """A record is never mixed with another one."""
    begin(target)
    before = record(target)
    assert "holds something already" in refusal(source, target)
    assert "name an empty store" in refusal(source, target)
    assert record(target) == before
    assert type(begin(source)).__name__ == "Started"


def test_a_copy_of_another_record_is_refused(
    source: str, target: str, filled: Path, tmp_path: Path
) -> None:
    """The destination of one record takes no other one."""
    copying.copy(source, target)
    (tmp_path / "other").mkdir()
    other = f"sqlite:///{shutil.copy(filled, tmp_path / 'other' / 'a.db')}"
    assert "another record: name an empty store" in refusal(other, target)


@pytest.fixture(name="worker")
def a_worker(source: str) -> Iterator[Child]:
    """Start a process that executes an effect in the source."""
    child = Child(lambda say: say(type(begin_here(open_store(source))).__name__))
    try:
        assert child.hear() == "Started"
        yield child
    finally:
        child.close()


def begin_here(store: Store) -> Any:
    """Begin an effect and keep the store open."""
    ref = RunRef("acme", "r-live", "agent:bot")
    enter(store, ref)
    return store.transact(effects.begin, intent(ref, "k-live"))[0]


def test_a_source_that_is_at_work_is_refused(source: str, target: str, worker: Child) -> None:
    """While a worker lives, the sentence names its process, and the worker is not disturbed."""
    said = refusal(source, target)
    assert f"process {worker.pid} on " in said
    assert "stop these workers, then run the same command again" in said
    assert type(begin(source)).__name__ == "Started"


def test_effects_of_killed_workers_are_put_in_doubt_first(
    source: str, target: str, worker: Child
) -> None:
    """What a killed worker left arrives as a doubt, which a person rules on there."""
    worker.kill()
    copying.copy(source, target)
    with closing(Guard(target)) as guard:
        assert guard.effects.show("k-live").state == "in_doubt"


def test_an_effect_of_which_nothing_is_known_is_refused(
    source: str, target: str, worker: Child
) -> None:
    """An effect whose process left no proof has to be ruled on before, in one sentence."""
    worker.kill()
    for lock in Path(f"{source.removeprefix('sqlite:///')}.owners").iterdir():
        lock.unlink()
    assert "rule with `agentguard effects resolve k-live`" in refusal(source, target)


def test_a_text_that_the_destination_cannot_hold_is_named(source: str, postgres: str) -> None:
    """A row that PostgreSQL refuses is named by its key, and the copy can go on once it is mended."""
    sql = "INSERT INTO rates (tenant, tool, next_at) VALUES ('acme', ?, 1)"
    with closing(open_store(source)) as store:
        store.transact(lambda tx: tx.run(sql, ("a\0b",)))
    with pytest.raises(StoreUnavailable, match="rates from acme, a") as refused:
        copying.copy(source, postgres)
    assert "run the same command again once that is mended" in refused.value.message
    with closing(open_store(source)) as store:
        store.transact(lambda tx: tx.run("DELETE FROM rates"))
    copying.copy(source, postgres)
    assert record(postgres) == record(source)


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("sqlite:///a.db", "sqlite:///a.db", "is both source and destination"),
        ("sqlite:///nowhere.db", "sqlite:///b.db", "there is no store at sqlite:///nowhere.db"),
        ("memory://", "sqlite:///b.db", "a store in memory is seen by nobody else"),
    ],
)
def test_what_cannot_be_copied_is_refused(
    source: str, target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names for nothing are answered in one sentence, and no file is made."""
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(source, target)
    assert list(tmp_path.iterdir()) == []


def test_every_table_is_copied_but_those_of_the_store_itself() -> None:
    """A table that a later schema brings is copied without anybody thinking of it."""
    names = {table.name for table in tables()}
    assert {"runs", "events", "leaves", "effects", "approvals", "votes", "budgets"} <= names
    assert names.isdisjoint(OWN)
    assert all(table.columns[: len(table.key)] == table.key for table in tables())
