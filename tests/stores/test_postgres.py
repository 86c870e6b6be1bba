"""The store on PostgreSQL: what it opens and refuses, and what it answers when commits go astray."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentguard import (
    ConfigurationError,
    Guard,
    GuardError,
    StoreUnavailable,
    idempotent,
    tool_contract,
)
from agentguard.ledger import settling
from agentguard.protocols import Tx
from agentguard.stores import _pg_server, open_store, schema
from agentguard.stores._pg_owner import runtime_folder
from agentguard.stores._pg_sql import translate
from agentguard.stores._pg_url import parse, redacted
from agentguard.stores.postgres import PostgresStore
from agentguard.testing import FakeClock
from agentguard.testing.stores.crowd import gathered, look, note, noted, together
from tests.postgres.home import PATIENCE, until
from tests.postgres.proxy import Loss, Proxy
from tests.postgres.server import Server, database_of
from tests.support import ROOT


@pytest.fixture(name="store")
def open_store_on_postgres(postgres_url: str) -> Iterator[PostgresStore]:
    """An open store in a database of its own."""
    with closing(PostgresStore(postgres_url)) as store:
        yield store


def refusal(url: str, **options: Any) -> str:
    """Open what is no store and return the sentence that says so."""
    with pytest.raises(GuardError) as refused:
        PostgresStore(url, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# The address.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:1/d?schema=x", "postgresql://u:***@h:1/d?schema=x"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=/run&password=secret&user=u", "postgresql:///d?host=/run&password=***&user=u"),
        ("postgresql://u:se/cr@et@h/d", "postgresql://u:***@h/d"),
        ("postgres://h:5432/d", "postgres://h:5432/d"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    """Whatever a password is made of and wherever it stands, stars stand for it."""
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:se/cret@h/d", "postgresql://u:secret@[::1/d", "postgresql://u:secret@h/d?nothing=1",
        "postgresql://u:secret@127.0.0.1:1/d", "postgresql://u:secret@h/d?schema=Not-plain",
        "postgresql://u:secret@h/d?lease=long", "postgresql://u:secret@h/d?prepare=perhaps",
    ],
)  # fmt: skip
def test_a_refused_address_tells_no_password(url: str) -> None:
    """The sentence that refuses an address, or a server that is not there, names no password."""
    assert "cret" not in refusal(url)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://db.example/d", "verify-full"),
        ("postgresql://localhost,db.example/d", "verify-full"),
        ("postgresql://db.example/d?sslmode=require", "require"),
        ("postgresql://localhost/d", None),
        ("postgresql://127.0.0.1/d", None),
        ("postgresql:///d?host=/run/postgresql", None),
        ("postgresql:///d", None),
    ],
)
def test_a_server_elsewhere_has_to_prove_who_it_is(url: str, mode: str | None) -> None:
    """Over a network the default is a verified certificate; on this machine, libpq's own."""
    said = psycopg.conninfo.conninfo_to_dict(parse(url).conninfo)
    assert said.get("sslmode") == mode


def test_statements_are_translated_but_not_their_texts() -> None:
    """Placeholders get numbers and our tables their schema; what stands in quotes stays."""
    said = "SELECT '?', a FROM runs r JOIN events e ON e.x = ? WHERE b LIKE ? ESCAPE '?' FROM notes"
    assert translate(said, "ag") == (
        "SELECT '?', a FROM ag.runs r JOIN ag.events e ON e.x = $1 WHERE b LIKE $2 ESCAPE '?' FROM notes"
    )


def test_two_stores_live_in_one_database(postgres_url: str) -> None:
    """Each has a schema of its own, and neither sees the other's rows."""
    one, two = PostgresStore(postgres_url), PostgresStore(f"{postgres_url}?schema=other")
    with closing(one), closing(two):
        one.transact(note, "a")
        assert (noted(one), noted(two)) == (["a"], [])


# Opening.


def test_many_open_an_empty_database_at_once(postgres_url: str) -> None:
    """Whoever comes first makes the tables, the others find them."""
    stores = together([lambda: PostgresStore(postgres_url)] * 6)
    names = [str(number) for number in range(6)]
    together(
        [partial(store.transact, note, name) for store, name in zip(stores, names, strict=True)]
    )
    assert noted(stores[0]) == names
    for store in stores:
        store.close()


def set_version(url: str, version: int) -> None:
    """Pretend that a store has another version."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE agentguard.meta SET value = %s WHERE key = 'schema'", (f"version {version}",)
        )


def test_a_newer_store_is_refused(postgres_url: str) -> None:
    """A store of a later version is left alone, with the advice to upgrade."""
    PostgresStore(postgres_url).close()
    set_version(postgres_url, 99)
    assert "was written by a newer agentguard (schema 99" in refusal(postgres_url)


def test_an_older_store_waits_for_its_migration(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older schema is migrated when that is asked for, whole or not at all."""
    PostgresStore(postgres_url).close()
    set_version(postgres_url, schema.VERSION - 1)
    assert "run `agentguard store migrate`" in refusal(postgres_url)
    broken = ("ALTER TABLE runs ADD COLUMN colour TEXT DEFAULT 'blue'", "DROP TABLE nowhere")
    monkeypatch.setattr(_pg_server, "MIGRATIONS", {schema.VERSION - 1: broken})
    assert 'table "nowhere" does not exist' in refusal(postgres_url, migrate=True)
    monkeypatch.setattr(_pg_server, "MIGRATIONS", {schema.VERSION - 1: broken[:1]})
    with closing(PostgresStore(postgres_url, migrate=True)) as store:
        assert store.read(lambda tx: tx.rows("SELECT colour FROM runs")) == []
    PostgresStore(postgres_url).close()


def test_without_the_right_to_make_tables_the_sentence_says_who_has_it(
    postgres_server: Server, postgres_url: str
) -> None:
    """A user who may not make the tables is told what the database's owner has to run."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE guest_{name} LOGIN")
    said = refusal(postgres_url.replace("postgres@", f"guest_{name}@"))
    assert "agentguard store migrate" in said
    postgres_server.execute(f"DROP ROLE guest_{name}")


@pytest.mark.parametrize("value", ["off", "local"])
def test_a_server_that_confirms_too_early_is_refused(
    postgres_server: Server, postgres_url: str, value: str
) -> None:
    """A database in which a confirmed commit may be lost is no store."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {value}")
    assert f"synchronous_commit={value}" in refusal(postgres_url)


# Verbs that others get in the way of.


def rename(tx: Tx, first: str, second: str, gate: threading.Barrier) -> None:
    """Change two rows, one after the other."""
    tx.changed("UPDATE meta SET value = value || 'x' WHERE key = ?", (f"note:{first}",))
    if not gate.broken:
        with_patience(gate)
    tx.changed("UPDATE meta SET value = value || 'x' WHERE key = ?", (f"note:{second}",))


def with_patience(gate: threading.Barrier) -> None:
    """Wait for the other one, unless it cannot come any more."""
    try:
        gate.wait(0.5)
    except threading.BrokenBarrierError:
        return


def test_who_is_caught_in_a_deadlock_is_done_all_the_same(
    postgres_url: str, store: PostgresStore
) -> None:
    """Two transactions that wait for each other are both done once, one after the other."""
    with closing(PostgresStore(postgres_url)) as other:
        for key in "ab":
            store.transact(note, key)
        gate = threading.Barrier(2)
        together(
            [
                lambda: store.transact(rename, "a", "b", gate),
                lambda: other.transact(rename, "b", "a", gate),
            ]
        )
        assert [store.read(look, key) for key in "ab"] == ["xx", "xx"]


def test_who_loses_a_race_for_a_new_row_runs_again_and_sees_it(
    postgres_url: str, store: PostgresStore
) -> None:
    """Of many that insert what is not there, one inserts and the others find it, and none fails."""

    def claim(tx: Tx, meeting: Iterator[Callable[[], object]]) -> bool:
        if look(tx, "key") is not None:
            return False
        for meet in meeting:  # in the first try
            meet()
        note(tx, "key")
        return True

    others = [PostgresStore(postgres_url) for _ in range(3)]
    gate = threading.Barrier(4)
    ends = together(
        partial(each.transact, claim, iter([partial(gate.wait, PATIENCE)]))
        for each in (store, *others)
    )
    assert sorted(ends) == [False, False, False, True]
    for each in others:
        each.close()


def test_a_verb_that_never_gets_through_says_so(store: PostgresStore) -> None:
    """A verb that breaks the same constraint each time ends, and nothing of it is kept."""

    def twice(tx: Tx) -> None:
        note(tx, "half")
        note(tx, "half")

    with pytest.raises(StoreUnavailable, match="got in the way of this transaction") as failed:
        store.transact(twice)
    assert not failed.value.uncertain
    assert noted(store) == []


def test_text_that_postgresql_cannot_keep_is_refused(store: PostgresStore) -> None:
    """A NUL character is refused in a sentence, never cut off."""
    with pytest.raises(StoreUnavailable, match="NUL"):
        store.transact(note, "a\0b")
    assert noted(store) == []


# Connections that break.


def losing(*losses: Loss | None) -> Callable[[], Loss | None]:
    """Lose these COMMITs, one after the other, and none after them."""
    rest = iter(losses)
    return lambda: next(rest, None)


@pytest.mark.parametrize("loss", list(Loss), ids=lambda loss: loss.name)
@pytest.mark.parametrize("before", [0, 2], ids=["first", "later"])
def test_a_commit_whose_answer_is_lost_is_looked_up(
    postgres_server: Server, loss: Loss, before: int
) -> None:
    """Whatever a COMMIT loses on its way, the verb is done once and its caller is told so."""
    with database_of(postgres_server) as name, Proxy(postgres_server) as proxy:
        store = PostgresStore(proxy.url(name))
        for number in range(before):
            store.transact(note, str(number))
        proxy.at_commit = losing(loss)
        done: list[str] = []
        assert (
            store.transact(
                lambda tx: (tx.after_commit(lambda: done.append("x")), note(tx, "it"))[1]
            )
            == "it"
        )
        assert proxy.losses == 1
        assert noted(store) == [*map(str, range(before)), "it"]
        assert set(done) == {"x"}
        store.close()


def test_a_commit_that_cannot_be_looked_up_is_told_as_uncertain(postgres_server: Server) -> None:
    """When the answer of COMMIT is lost and the server stays away, the caller hears that nobody knows."""
    with database_of(postgres_server) as name, Proxy(postgres_server) as proxy:
        store = PostgresStore(proxy.url(name), patience=0.5)
        store.transact(note, "before")
        proxy.at_commit = lambda: Loss.ANSWER
        with pytest.raises(StoreUnavailable, match="did not say whether it committed") as failed:
            store.transact(note, "it")
        assert failed.value.uncertain
        proxy.at_commit = lambda: None
        assert noted(store) == ["before", "it"]
        store.close()


def test_a_server_that_goes_away_for_a_moment_is_waited_for(own_postgres: Server) -> None:
    """Verbs and queries that meet a restart are done after it."""
    store = PostgresStore(own_postgres.url())
    store.transact(note, "before")
    own_postgres.crash()
    with ThreadPoolExecutor(2) as pool:
        write, read = pool.submit(store.transact, note, "after"), pool.submit(noted, store)
        own_postgres.start()
        assert write.result(PATIENCE) == "after"
        assert "before" in read.result(PATIENCE)
    store.close()


async def test_an_event_loop_goes_on_while_the_server_does_not_answer(
    postgres_server: Server,
) -> None:
    """Neither the look before a call nor its commits keep other tasks of the loop waiting."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    async def pay(to: str) -> str:
        return f"paid {to}"

    with database_of(postgres_server) as name, Proxy(postgres_server) as proxy:
        guard = Guard(proxy.url(name))
        async with guard.run("w"):
            assert await pay("ada") == "paid ada"
            proxy.stall()
            call = asyncio.create_task(pay("bob"))
            for _ in range(50):  # each of them would hang with the call
                await asyncio.sleep(0)
            assert not call.done()
            proxy.go_on()
            assert await call == "paid bob"
        guard.close()


def test_a_server_that_stays_away_fails_all_that_wait(own_postgres: Server) -> None:
    """Nobody waits longer than the patience, however many wait, and nothing was written."""
    store = PostgresStore(own_postgres.url(), patience=0.5)
    store.transact(note, "before")
    own_postgres.crash()
    ends = gathered_while_away(store)
    assert {type(end) for end in ends} == {StoreUnavailable}
    assert not any(end.uncertain for end in ends)
    store.close()


def gathered_while_away(store: PostgresStore) -> list[Any]:
    """Let some verbs come together while there is no server."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(store.transact, note, str(number)) for number in range(8)]
        return [call.exception(PATIENCE) for call in calls]


def test_a_backend_that_is_terminated_costs_nothing(
    postgres_server: Server, postgres_url: str, store: PostgresStore
) -> None:
    """An operator who ends our sessions does not fail a call."""
    store.transact(note, "before")
    assert noted(store) == ["before"]
    name = postgres_url.rpartition("/")[2]
    assert postgres_server.terminate_backends(name) >= 2
    assert store.transact(note, "after") == "after"
    assert noted(store) == ["after", "before"]


# Commits that wait for a standby that does not answer.

WORKER = """
import os, sys, signal
from agentguard.stores.postgres import PostgresStore
from agentguard.testing.stores.crowd import note
store = PostgresStore(sys.argv[1])
store.transact(note, "before")
print("ready", flush=True)
sys.stdin.readline()
try:
    store.transact(note, "it")
    print("returned", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture(name="hanging")
def server_whose_commits_hang(own_postgres: Server) -> Iterator[Callable[[str], None]]:
    """A server of which one can say that its commits wait for a standby that is not there."""
    yield lambda standby: own_postgres.configure(synchronous_standby_names=standby)
    own_postgres.configure(synchronous_standby_names="")


def test_an_interrupt_does_not_cancel_a_commit(
    own_postgres: Server, hanging: Callable[[str], None]
) -> None:
    """Ctrl-C during a COMMIT that waits for its standby is raised after that has confirmed."""
    words = [sys.executable, "-c", WORKER, own_postgres.url()]
    worker = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    hanging("nobody")
    worker.stdin.write("go\n")
    worker.stdin.flush()
    until(lambda: own_postgres.waiting_for_standby("postgres"), "the COMMIT to wait")
    worker.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.3)
    assert own_postgres.waiting_for_standby("postgres")
    hanging("")
    assert worker.communicate(timeout=PATIENCE)[0] == "interrupted\n"
    with closing(PostgresStore(own_postgres.url())) as store:
        assert noted(store) == ["before", "it"]


def test_a_commit_that_no_standby_confirmed_is_uncertain(
    own_postgres: Server, hanging: Callable[[str], None]
) -> None:
    """Whoever cancels the wait for a standby makes the commit one of which nobody can be sure."""
    store = PostgresStore(own_postgres.url(), patience=0.5)
    store.transact(note, "before")
    hanging("nobody")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(store.transact, note, "it")
        until(lambda: own_postgres.waiting_for_standby("postgres"), "the COMMIT to wait")
        own_postgres.cancel_backends("postgres")
        failure = call.exception(PATIENCE)
    assert isinstance(failure, StoreUnavailable)
    assert failure.uncertain
    assert "synchronous replication" in str(failure)
    hanging("")
    store.close()


def test_a_commit_cut_off_while_it_waits_is_not_taken_for_confirmed(
    own_postgres: Server, hanging: Callable[[str], None]
) -> None:
    """A commit that is on the primary alone when its connection ends is uncertain, not done."""
    store = PostgresStore(own_postgres.url(), patience=1.0)
    store.transact(note, "before")
    hanging("nobody")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(store.transact, note, "it")
        until(lambda: own_postgres.waiting_for_standby("postgres"), "the COMMIT to wait")
        own_postgres.terminate_backends("postgres", own_postgres.waiting_for_standby("postgres"))
        until(lambda: own_postgres.waiting_for_standby("postgres"), "it to be looked up")
        hanging("")
        assert call.result(PATIENCE) == "it"  # confirmed after all, by a later commit
    store.close()


# Leases.


@pytest.fixture(name="elsewhere")
def owners_on_several_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Give what makes the stores that are opened next seem to be on another host."""
    folders = iter(str(tmp_path / str(number)) for number in range(9))

    def move() -> None:
        monkeypatch.setenv("AGENTGUARD_RUNTIME_DIR", next(folders))

    return move


def standing(store: PostgresStore, owner: str) -> tuple[bool, bool, bool]:
    """Return whether *owner* is dead, is lost, is alive, as *store* sees it."""
    return store.read(lambda tx: (tx.is_dead(owner), tx.is_lost(owner), tx.is_alive(owner)))


def test_an_owner_on_another_host_is_known_by_its_lease(
    postgres_url: str, elsewhere: Callable[[], None]
) -> None:
    """While its lease runs it lives, afterwards it is lost; it is never taken for dead."""
    clock = FakeClock()
    elsewhere()
    there = PostgresStore(postgres_url, clock=clock)
    owner = there.transact(lambda tx: tx.owner)
    elsewhere()
    here = PostgresStore(postgres_url, clock=clock)
    assert standing(here, owner) == (False, False, True)
    clock.advance(seconds=29)
    assert standing(here, owner) == (False, False, True)
    clock.advance(seconds=1)
    assert standing(here, owner) == (False, True, False)
    there.transact(lambda tx: tx.now)
    assert standing(here, owner) == (False, False, True)
    there._owner.drop()
    assert standing(here, owner) == (False, False, True)
    for store in (here, there):
        store.close()


def test_on_one_host_a_free_lock_is_death_before_the_lease_is_over(
    postgres_url: str, elsewhere: Callable[[], None]
) -> None:
    """Whoever can look at the lock need not wait; a lock that is held is life, with or without lease."""
    clock = FakeClock()
    elsewhere()
    here, there = (PostgresStore(postgres_url, clock=clock) for _ in range(2))
    owner = there.transact(lambda tx: tx.owner)
    clock.advance(seconds=60)
    assert standing(here, owner) == (False, True, True)
    there._owner.drop()
    assert standing(here, owner) == (True, True, False)
    for store in (here, there):
        store.close()


def test_a_lock_file_that_is_gone_proves_nothing(
    postgres_url: str, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    """Where lock files were cleaned away, nobody is taken for dead."""
    elsewhere()
    here, there = (PostgresStore(postgres_url) for _ in range(2))
    owner = there.transact(lambda tx: tx.owner)
    there._owner.drop()
    for file in tmp_path.glob("*/*.lock"):
        file.unlink()
    assert standing(here, owner) == (False, False, True)
    for store in (here, there):
        store.close()


def test_lock_files_lie_where_nobody_else_can_put_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder that others may write to, or that is no folder, is not used for proofs."""
    for name, mode in (("closed", 0o700), ("open", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to(tmp_path / "closed")
    (tmp_path / "file").touch()
    found = {}
    for name in ("closed", "open", "link", "file", "new"):
        monkeypatch.setenv("AGENTGUARD_RUNTIME_DIR", str(tmp_path / name))
        found[name] = runtime_folder() is not None
    assert found == {"closed": True, "open": False, "link": False, "file": False, "new": True}


def test_a_lease_is_renewed_while_a_body_is_at_work(postgres_url: str) -> None:
    """A body that takes longer than the lease is not taken for lost."""

    @tool_contract(effect="write")
    @idempotent(key="slow:{name}")
    def slow(name: str) -> str:
        ((owner, _),) = leases()
        until(renewed, "the lease to be renewed four times")
        assert not other.read(lambda tx: tx.is_lost(owner))
        return "done"

    def renewed() -> bool:
        seen.update(leases())
        return len(seen) > 4

    def leases() -> Any:
        return other.read(lambda tx: tx.rows("SELECT owner, lease_until FROM owners"))

    seen: set[Any] = set()
    other = PostgresStore(postgres_url)
    guard = Guard(f"{postgres_url}?lease=1s")
    with guard.run("w"):
        assert slow("a") == "done"
    guard.close()
    other.close()


def test_owners_of_the_past_cost_nothing_and_go_away(postgres_url: str) -> None:
    """However many workers have ended elsewhere, a sweep asks as often; a week later they are gone."""
    clock = FakeClock()
    with closing(PostgresStore(postgres_url, clock=clock)) as store:
        store.transact(settling.sweep)
        wire = store._commits.wire()
        asked = []
        for number in (0, 50):
            for other in range(number):
                store.transact(
                    lambda tx, name=other: tx.run(
                        "INSERT INTO owners (owner, host, pid, started_at, lease_until)"
                        " VALUES (?, 'elsewhere', 1, ?, ?)",
                        (f"own_{name}", tx.now, tx.now),
                    )
                )
            before = wire.trips
            store.transact(settling.sweep)
            asked.append(wire.trips - before)
        assert asked[0] == asked[1]
        clock.advance(days=8)
        store.transact(lambda tx: tx.now)
        assert store.read(lambda tx: tx.row("SELECT count(*) FROM owners")) == (1,)


# A pooler between.


def test_behind_a_transaction_pooler_nothing_is_prepared(pooled_url: str) -> None:
    """The store finds out by itself that a pooler is between, and works through it."""
    with closing(PostgresStore(pooled_url)) as store, closing(PostgresStore(pooled_url)) as other:
        assert not store._commits.wire().prepares
        names = [str(number) for number in range(20)]
        together(
            [
                partial(each.transact, note, name)
                for each, name in zip([store, other] * 10, names, strict=True)
            ]
        )
        assert noted(store) == sorted(names)


def test_a_direct_connection_prepares(store: PostgresStore) -> None:
    """Without a pooler the server parses a statement once."""
    assert store._commits.wire().prepares


# Processes.


def test_a_fork_leaves_its_parents_connections_alone(store: PostgresStore) -> None:
    """A child that ends, and one that works, take nothing away from the parent's session."""
    store.transact(note, "before")
    session = store._commits.wire()
    child = os.fork()
    if not child:
        code = 1
        try:
            store.transact(note, "child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.transact(note, "after") == "after"
    assert store._commits.wire() is session
    assert noted(store) == ["after", "before", "child"]


def test_a_store_that_is_closed_leaves_no_owner_behind(postgres_url: str) -> None:
    """A process that ends in good order and owns nothing is forgotten at once."""
    with closing(PostgresStore(postgres_url)) as store:
        store.transact(note, "a")
    with closing(PostgresStore(postgres_url)) as store:
        assert store.read(lambda tx: tx.rows("SELECT owner FROM owners")) == []


def test_a_crowd_shares_a_commit(store: PostgresStore) -> None:
    """Verbs that come while another commits are made durable together."""
    store.transact(note, "before")
    names = [str(number) for number in range(20)]
    before = store.transact(lambda tx: tx.row("SELECT commits FROM owners"))
    assert gathered(store, [partial(note, key=name) for name in names]) == names
    after = store.transact(lambda tx: tx.row("SELECT commits FROM owners"))
    assert after[0] - before[0] == 3  # the gate, the crowd, this look


@pytest.mark.parametrize("url", ["postgresql://", "postgres://"])
def test_both_schemes_name_this_store(url: str, postgres_url: str) -> None:
    """A URL with either of PostgreSQL's schemes opens it."""
    with closing(open_store(postgres_url.replace("postgresql://", url))) as store:
        assert isinstance(store, PostgresStore)


def test_without_psycopg_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not installed the driver is told what to install."""
    monkeypatch.setitem(sys.modules, "agentguard.stores.postgres", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentguard\[postgres\]'"):
        open_store("postgresql://h/d")
