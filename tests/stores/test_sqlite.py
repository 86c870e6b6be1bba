"""The embedded store: what it opens, what it refuses, and what is left when writing fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ConfigurationError,
    Guard,
    GuardError,
    StoreUnavailable,
    idempotent,
    tool_contract,
)
from agentguard.protocols import Tx
from agentguard.stores import _files, open_store, schema
from agentguard.stores._writer import Item, Writer
from agentguard.stores.sqlite import SqliteStore
from agentguard.testing import FakeClock
from tests.support import ROOT, World


@pytest.fixture(name="path")
def path_of_a_store(tmp_path: Path) -> Path:
    """Where a store can be, in a folder that is not there yet."""
    return tmp_path / "folder" / "a.db"


@pytest.fixture(name="store")
def store_in_a_file(path: Path) -> Iterator[SqliteStore]:
    """An open store with one table of ours."""
    store = SqliteStore(path, clock=FakeClock())
    store.transact(lambda tx: tx.run("CREATE TABLE notes (text TEXT UNIQUE)"))
    yield store
    store.close()


def note(tx: Tx, text: str) -> str:
    """Write something down."""
    tx.run("INSERT INTO notes VALUES (?)", (text,))
    return text


def notes(store: SqliteStore) -> list[str]:
    """Return what is written down."""
    return [text for (text,) in store.read(lambda tx: tx.rows("SELECT text FROM notes"))]


def paying(world: World) -> Callable[[str], str]:
    """Make a tool that writes."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        return world.happen(to)

    return pay


def filled(path: Path, world: World) -> None:
    """Leave a store behind in which ada was paid."""
    guard = Guard(f"sqlite:///{path}")
    with guard.run("w", run_id="r"):
        paying(world)("ada")
    guard.close()


def refusal(path: Path, **options: Any) -> str:
    """Open what is no store and return the sentence that says so."""
    with pytest.raises(GuardError) as refused:
        SqliteStore(path, **options)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below *folder*."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


# What is opened.


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://a.db", "sqlite:///", "a.db", ""])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    """A URL that this version has no store for is answered with those it has."""
    with pytest.raises(ConfigurationError, match=r"write sqlite:///agentguard\.db"):
        open_store(url)


def test_a_url_names_a_path_of_here_or_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three slashes begin a path in the working folder, four a path of the machine."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there.db"):
        open_store(url).close()
    assert {f.name for f in tmp_path.iterdir() if f.is_file()} == {"here.db", "there.db"}


def test_a_store_is_for_its_owner_only(path: Path) -> None:
    """Nobody else can read the store's file, its log, its mark, its locks or its folder."""
    old = os.umask(0)
    store = SqliteStore(path)
    store.transact(lambda tx: tx.now)
    os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.glob("a.db*")}
    files = dict.fromkeys(("a.db", "a.db-wal", "a.db-shm", "a.db.mark"), 0o600)
    assert modes == {**files, "a.db.owners": 0o700}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in (path.parent / "a.db.owners").iterdir()} <= {
        0o600
    }
    store.close()


def test_every_connection_is_durable(store: SqliteStore) -> None:
    """Writers and readers use a write-ahead log and sync it before they say done."""
    for _ in range(2):
        for connection in (store._writing(), store._reading()):
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        store._disconnect()


def test_what_is_committed_is_there_for_the_next_process(path: Path, tmp_path: Path) -> None:
    """A store that is opened again serves what was done, and does not do it again."""
    world = World(tmp_path / "world.txt")
    filled(path, world)
    filled(path, world)
    assert world.effects == ["ada"]


def test_readers_cannot_write(store: SqliteStore) -> None:
    """Only a transaction changes the store; what a reader sees is committed."""
    store.transact(note, "a")
    with pytest.raises(StoreUnavailable):
        store.read(lambda tx: tx.run("DELETE FROM notes"))
    assert notes(store) == ["a"]


def test_time_does_not_run_backwards_in_a_process(path: Path) -> None:
    """A transaction never gets an earlier time than one before it."""
    clock = FakeClock()
    store = SqliteStore(path, clock=clock)
    before = store.transact(lambda tx: tx.now)
    clock.set_back(days=1)
    assert store.transact(lambda tx: tx.now) == before
    clock.advance(days=1, seconds=1)
    assert store.transact(lambda tx: tx.now) == before + 1_000_000
    store.close()


# What is not a store.


@pytest.mark.parametrize("content", [b"hello", b"x" * 10_000, b"SQLite format 4\0" * 300])
def test_a_file_of_something_else_is_refused(path: Path, content: bytes) -> None:
    """A file that is not SQLite's is named, and left as it is."""
    path.parent.mkdir()
    path.write_bytes(content)
    assert "is not a SQLite file: name a new file" in refusal(path)
    assert files(path.parent) == {"a.db": content}


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_another_program_is_refused(path: Path, journal: str) -> None:
    """Somebody else's SQLite database is named, and not one byte of it changes."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = files(path.parent)
    assert "is a database of another program: name a new file" in refusal(path)
    assert files(path.parent) == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """A file that was made beforehand, to give it rights, is as good as none."""
    path.parent.mkdir()
    path.touch()
    SqliteStore(path).close()
    assert path.read_bytes().startswith(b"SQLite format 3\0")


def test_a_newer_store_is_refused(path: Path, tmp_path: Path) -> None:
    """A store of a later version is left alone, with the advice to upgrade."""
    filled(path, World(tmp_path / "world.txt"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = files(path.parent)
    assert "was written by a newer agentguard (schema 99" in refusal(path)
    assert files(path.parent) == before


def test_an_older_store_waits_for_its_migration(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older schema is migrated when that is asked for, not before, and keeps its rows."""
    world = World(tmp_path / "world.txt")
    filled(path, world)
    next_version(monkeypatch, "ALTER TABLE runs ADD COLUMN colour TEXT DEFAULT 'blue'")
    assert "run `agentguard store migrate`" in refusal(path)
    store = SqliteStore(path, migrate=True)
    assert store.read(lambda tx: tx.row("SELECT run_id, colour FROM runs")) == ("r", "blue")
    store.close()
    filled(path, world)
    assert world.effects == ["ada"]


def next_version(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Pretend that the next version of the schema has come."""
    monkeypatch.setattr(_files, "MIGRATIONS", (*schema.MIGRATIONS, statements))
    monkeypatch.setattr(_files, "VERSION", schema.VERSION + 1)


def test_a_migration_that_breaks_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration is whole or not at all: the old version goes on with the old schema."""
    world = World(tmp_path / "world.txt")
    filled(path, world)
    with monkeypatch.context() as patched:
        next_version(patched, "ALTER TABLE runs ADD COLUMN colour TEXT", "DROP TABLE nowhere")
        assert "no such table: nowhere" in refusal(path, migrate=True)
    store = SqliteStore(path)
    columns = store.read(lambda tx: list(tx.rows("SELECT name FROM pragma_table_info('runs')")))
    assert ("colour",) not in columns
    store.close()


def test_a_network_disk_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is not put where locks cannot be trusted."""
    mounts = path.parent.parent / "mounts"
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nserver:/x {path.parent.parent} nfs4 rw 0 0\n"
        f"/dev/vdb {path.parent}2 ext4 rw 0 0\n"
    )
    monkeypatch.setattr(_files, "_MOUNTS", mounts)
    assert "lies on a network file system (nfs4)" in refusal(path)
    assert _files.file_system(Path("/")) == "ext4"


# Damage.


def test_a_damaged_page_never_repeats_an_effect(path: Path, tmp_path: Path) -> None:
    """Whichever page is destroyed, a recorded call is served or refused, and does not run."""
    world = World(tmp_path / "world.txt")
    filled(path, world)
    whole = path.read_bytes()
    said = set()
    for start in range(0, len(whole), 4096):
        path.write_bytes(whole[:start] + b"\xff" * 200 + whole[start + 200 :])
        said.add(call_again(path, world))
        assert world.effects == ["ada"]
    assert said <= {"done ada", "StoreUnavailable", "ConfigurationError"}
    assert {"StoreUnavailable", "ConfigurationError"} <= said


def call_again(path: Path, world: World) -> str:
    """Call what was done already, over whatever is in the file now."""
    guard = None
    try:
        guard = Guard(f"sqlite:///{path}")
        with guard.run("w", run_id="r2"):
            return paying(world)("ada")
    except GuardError as error:
        return type(error).__name__ + " in lines" * str(error).count("\n")
    finally:
        if guard is not None:
            guard.close()


@pytest.mark.parametrize("part", [10, 100, 1000, 4096, 0.3, 0.5, 0.9])
def test_a_cut_file_never_repeats_an_effect(path: Path, tmp_path: Path, part: float) -> None:
    """A store that lost its end serves or refuses what it recorded, in one sentence."""
    world = World(tmp_path / "world.txt")
    filled(path, world)
    size = path.stat().st_size
    os.truncate(path, int(part * size) if part < 1 else int(part))
    assert call_again(path, world) in ("done ada", "StoreUnavailable", "ConfigurationError")
    assert world.effects == ["ada"]


def test_damage_is_told_with_the_way_out(path: Path, tmp_path: Path) -> None:
    """A file that is damaged is called so, and the sentence names a backup."""
    filled(path, World(tmp_path / "world.txt"))
    whole = bytearray(path.read_bytes())
    for start in range(4096, len(whole), 4096):
        whole[start : start + 200] = b"\xff" * 200
    path.write_bytes(whole)
    assert "malformed; restore it from a backup" in refusal_of_a_guard(path)


def refusal_of_a_guard(path: Path) -> str:
    """Open a store and use it, and return the sentence of its failure."""
    with pytest.raises(StoreUnavailable) as refused:
        Guard(f"sqlite:///{path}")
    return str(refused.value)


def test_a_check_finds_damage(path: Path, tmp_path: Path) -> None:
    """The store can be asked whether its file is whole."""
    filled(path, World(tmp_path / "world.txt"))
    store = SqliteStore(path)
    assert store.check() == "ok"
    store.close()
    whole = bytearray(path.read_bytes())
    whole[-4096:-3896] = b"\xff" * 200
    path.write_bytes(whole)
    store = SqliteStore(path)
    assert store.check() != "ok"
    store.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_vanishes_stops_its_writers(
    path: Path, tmp_path: Path, *, replaced: bool
) -> None:
    """Nothing is written into a file that nobody can find any more, and nothing starts."""
    world = World(tmp_path / "world.txt")
    guard, pay = Guard(f"sqlite:///{path}"), paying(world)
    with contextlib.suppress(StoreUnavailable), guard.run("w", run_id="r"):
        pay("ada")
        for file in path.parent.glob("a.db*"):
            if file.is_file():
                file.unlink()
        if replaced:
            filled(path, World(tmp_path / "elsewhere.txt"))
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            pay("bob")
    assert world.effects == ["ada"]
    guard.close()


# Rights, as an ordinary user has them.

AS_SOMEBODY = """
import os, sys
from pathlib import Path
from agentguard import Guard, GuardError, idempotent, tool_contract
from agentguard.stores import sqlite
import encodings.ascii, rfc8785, agentguard._durable, agentguard._signature
agentguard._signature.load()
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    guard = Guard("sqlite:///" + sys.argv[1])
    with guard.run("w", run_id="r"):
        print("opened")
except GuardError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(name="shared")
def folder_for_everybody() -> Iterator[Path]:
    """A folder that another user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o777)


def as_somebody(path: Path) -> str:
    """Open a store as an ordinary user and return what was said."""
    words = [sys.executable, "-c", AS_SOMEBODY, str(path)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.count("\n") == 1
    return ended.stdout


@pytest.mark.parametrize("there_is_a_store", [False, True])
def test_a_folder_that_cannot_be_written_is_refused(
    shared: Path, *, there_is_a_store: bool
) -> None:
    """A store in a folder without the right to write is refused in one sentence."""
    path = shared / "a.db"
    if there_is_a_store:
        SqliteStore(path).close()
        path.chmod(0o666)
    shared.chmod(0o555)
    before = files(shared)
    assert as_somebody(path).startswith("StoreUnavailable the store ")
    assert files(shared) == before


def test_a_file_that_cannot_be_written_is_refused(shared: Path) -> None:
    """A store that may only be read is refused in one sentence."""
    path = shared / "a.db"
    SqliteStore(path).close()
    path.chmod(0o444)
    said = as_somebody(path)
    assert said.startswith("StoreUnavailable the store ")
    assert "Permission denied): give another path or its rights" in said


def test_the_same_user_may_open_it(shared: Path) -> None:
    """The two tests above fail for the rights alone: with them, the store opens."""
    assert as_somebody(shared / "a.db") == "opened\n"


@pytest.mark.parametrize("name", ["", "file/a.db"])
def test_a_path_that_can_hold_no_file_is_refused(tmp_path: Path, name: str) -> None:
    """A folder is no store, and nothing lies below a file."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path / name)


# A full disk.

FULL_DISK = """
import json, os, resource, sys
from pathlib import Path
from agentguard import Guard, GuardError, idempotent, tool_contract
from tests.support import World

folder, unlimited = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
told = []
for limit in range(0, 280_000, 4096):
    here = folder / str(limit)
    here.mkdir()
    world = World(here / "world.txt")

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        return world.happen(to)

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited))
    try:
        first = Guard(f"sqlite:///{here}/a.db")
        with first.run("w", run_id="r"):
            said = pay("ada")
    except GuardError as error:
        said = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    ran = len(world.effects)
    second = Guard(f"sqlite:///{here}/a.db")
    known = [effect.state for effect in second.effects.list()]
    with second.run("w", run_id="r"):
        again = pay("ada")
    whole = second.runs.verify("r") is None and second.store.check() == "ok"
    told.append([said, ran, known, again, len(world.effects), whole])
print(json.dumps(told))
"""


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Wherever the disk fills up, each call is done and known, or not done, and told in a sentence.

    Once there is room again the same call is served or done: one effect, and a whole chain.
    """
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    told = json.loads(ended.stdout)
    for said, ran, known, again, in_the_end, whole in told:
        assert "\n" not in said
        assert said.partition(":")[0] in (
            "done ada", "StoreUnavailable", "EffectRecordingFailed",
        )  # fmt: skip
        assert len(known) == ran
        assert (said == "done ada") <= (known == ["succeeded"])
        assert (again, in_the_end, whole) == ("done ada", 1, True)
    assert len({said.partition(":")[0] for said, *_ in told}) == 3


def test_no_body_starts_without_room_for_its_record(tmp_path: Path, path: Path) -> None:
    """A start that cannot be written down does not happen, for any of the callers that wait."""
    world = World(tmp_path / "world.txt")

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    async def pay(to: str, note: str) -> str:
        return world.happen(to)

    async def crowd() -> list[Any]:
        async with guard.run("w", run_id="r"):
            guard.store.transact(fill)
            calls = [pay(str(number), "x" * 5000) for number in range(8)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            guard.store.transact(lambda tx: tx.row("PRAGMA max_page_count = 1000000"))
            return ends

    guard = Guard(f"sqlite:///{path}")
    assert {type(end) for end in asyncio.run(crowd())} == {StoreUnavailable}
    assert world.effects == []
    assert guard.effects.list() == []
    guard.close()


def fill(tx: Tx) -> None:
    """Leave no room for another page in the file."""
    pages = tx.row("PRAGMA page_count")
    assert pages is not None
    tx.row(f"PRAGMA max_page_count = {pages[0]}")


# Commits in company.


class Gate:
    """A verb that holds the writer until a crowd has gathered behind it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.entered, self.open = store, threading.Event(), threading.Event()

    def verb(self, tx: Tx) -> None:
        """Wait inside a transaction."""
        self.entered.set()
        assert self.open.wait(30)

    def crowd(self, *verbs: Callable[[Tx], Any]) -> list[Any]:
        """Let *verbs* come while one transaction is under way; return how each of them ended."""
        ends: dict[int, Any] = {}
        done = threading.Semaphore(0)

        def deliver(number: int) -> Callable[[Any, BaseException | None], None]:
            def told(result: Any, error: BaseException | None) -> None:
                ends[number] = error if error is not None else result
                done.release()

            return told

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(self.store.transact, self.verb)
            assert self.entered.wait(30)
            for number, verb in enumerate(verbs):
                self.store.submit(deliver(number), verb)
            self.open.set()
            first.result(30)
            for _ in verbs:
                assert done.acquire(timeout=30)
        return [ends[number] for number in range(len(verbs))]


def commits(store: SqliteStore) -> list[str]:
    """Return a list that grows with every commit of *store*."""
    seen: list[str] = []
    store._writing().set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    return seen


def test_a_crowd_shares_a_commit(store: SqliteStore) -> None:
    """Verbs that come while another commits are made durable together, in their order."""
    seen = commits(store)
    texts = [str(number) for number in range(20)]
    ends = Gate(store).crowd(*(lambda tx, text=text: note(tx, text) for text in texts))
    assert ends == notes(store) == texts
    assert len(seen) == 2


@pytest.mark.parametrize(
    "failing",
    [
        lambda tx: [note(tx, "half"), 1 // 0],
        lambda tx: [note(tx, "half"), note(tx, "half")],
        lambda tx: [note(tx, "half"), tx.run("INSERT INTO notes VALUES (?)", ())],
    ],
    ids=["raises", "breaks a constraint", "lacks a value"],
)
def test_a_verb_that_fails_undoes_only_itself(
    store: SqliteStore, failing: Callable[[Tx], Any]
) -> None:
    """In a shared commit, one verb's error is its own: the others are kept, nothing of it is."""
    before, error, after = Gate(store).crowd(
        lambda tx: note(tx, "before"), failing, lambda tx: note(tx, "after")
    )
    assert isinstance(error, (ZeroDivisionError, StoreUnavailable))
    assert [before, after] == notes(store) == ["before", "after"]


def test_a_commit_that_fails_fails_for_all(store: SqliteStore) -> None:
    """When a shared commit cannot be written, everybody in it is told and nothing of it is there."""
    store.transact(fill)
    ends = Gate(store).crowd(
        lambda tx: note(tx, "a"), lambda tx: note(tx, "x" * 50_000), lambda tx: note(tx, "b")
    )
    assert [type(end) for end in ends] == [StoreUnavailable] * 3
    assert "database or disk is full" in str(ends[0])
    assert notes(store) == []


def test_a_lone_verb_that_fails_changes_nothing(store: SqliteStore) -> None:
    """An error inside a transaction takes back all that the transaction had done."""
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda tx: [note(tx, "half"), 1 // 0])
    assert notes(store) == []
    assert store.transact(note, "whole") == "whole"


# Closing.


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    """After it was closed, a store answers nothing and writes nothing; closing twice is fine."""
    store.close()
    store.close()
    for use in (
        lambda: store.transact(note, "a"),
        lambda: store.read(lambda tx: tx.now),
        lambda: store.submit(lambda *_: None, note, "a"),
    ):
        with pytest.raises(StoreUnavailable, match="is closed"):
            use()


def test_nothing_hangs_when_a_store_is_closed(store: SqliteStore) -> None:
    """Who comes while the store closes is answered: done and kept, or refused."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(attempt, store, str(number)) for number in range(200)]
        store.close()
        ends = [call.result(30) for call in calls]
    again = SqliteStore(store.path)
    assert sorted(end for end in ends if end is not None) == sorted(notes(again))
    again.close()


def test_nobody_is_forgotten_by_a_writer_that_ends(tmp_path: Path) -> None:
    """Who comes at the moment in which the writer's thread ends is answered, too."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(12):
            store = SqliteStore(tmp_path / f"{number}.db")
            callers = [
                threading.Thread(target=attempts, args=(store,), daemon=True) for _ in range(8)
            ]
            for caller in callers:
                caller.start()
            store.close()
            for caller in callers:
                caller.join(10)
            assert not any(caller.is_alive() for caller in callers)
    finally:
        sys.setswitchinterval(before)


def test_what_waits_for_a_commit_is_done_though_a_signal_handler_raises_in_it(
    store: SqliteStore,
) -> None:
    """It is durable by then: whoever waits for that is told, in a second try."""
    tries: list[str] = []

    def done() -> None:
        tries.append("try")
        if len(tries) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.transact(lambda tx: (note(tx, "kept"), tx.after_commit(done)))
    assert (tries, notes(store)) == (["try", "try"], ["kept"])


def test_a_writer_refuses_once_it_is_closed() -> None:
    """Who has seen the store open and comes too late starts neither a batch nor a thread."""
    batches: list[list[Item]] = []
    writer = Writer(batches.append)
    writer.close()
    before = threading.active_count()
    for late in (lambda: writer.call(note, ()), lambda: writer.put(Item(None, note, ()))):
        with pytest.raises(StoreUnavailable, match="is closed"):
            late()
    assert (batches, threading.active_count()) == ([], before)


def test_a_verb_that_waits_while_its_store_closes_opens_it_no_more(store: SqliteStore) -> None:
    """A verb in the caller's own thread, which no queue knows, is refused: its owner has no lock."""
    found: list[str | None] = []
    caller = threading.Thread(target=lambda: found.append(attempt(store, "late")))
    with store.lock:
        caller.start()
        while not store._writer._busy:  # all that it can do without the lock
            time.sleep(0)
        store.close()
    caller.join(10)
    again = SqliteStore(store.path)
    assert (found, notes(again)) == ([None], [])
    again.close()


def attempts(store: SqliteStore) -> None:
    """Write again and again, whatever the store says."""
    for number in range(12):
        attempt(store, str(number))


def attempt(store: SqliteStore, text: str) -> str | None:
    """Write *text* down, unless the store does not take it any more."""
    try:
        return store.transact(note, text)
    except StoreUnavailable:
        return None


# Several processes, and none at all.

WORKER = """
import sys
from pathlib import Path
from agentguard import Guard, idempotent, tool_contract
from tests.support import World

world = World(Path(sys.argv[2]))

@tool_contract(effect="write")
@idempotent(key="pay:{to}")
def pay(to: str) -> str:
    return world.happen(to)

guard = Guard("sqlite:///" + sys.argv[1])
with guard.run("w"):
    for number in range(25):
        assert pay(f"{number}") == f"done {number}"
"""


def test_processes_share_a_store(path: Path, tmp_path: Path) -> None:
    """Workers that do the same things at the same time do each of them once."""
    world = tmp_path / "world.txt"
    words = [sys.executable, "-c", WORKER, str(path), str(world)]
    workers = [subprocess.Popen(words, cwd=ROOT) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert sorted(World(world).effects, key=int) == [str(number) for number in range(25)]
    guard = Guard(f"sqlite:///{path}")
    assert {effect.state for effect in guard.effects.list()} == {"succeeded"}
    assert [guard.runs.verify(run.id) for run in guard.runs.list()] == [None] * 4
    guard.close()


def test_a_store_in_memory_is_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`memory://` keeps the same record, for threads too, as long as it lives, and no file."""
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path / "world.txt")
    pay = paying(world)
    guard, other = Guard("memory://"), Guard("memory://")
    with guard.run("w", run_id="r") as run, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run_in(run, pay), range(8)))
    assert results == ["done ada"] * 8
    assert world.effects == ["ada"]
    assert guard.runs.verify("r") is None
    assert other.runs.list() == []
    assert [file.name for file in tmp_path.iterdir()] == ["world.txt"]
    guard.close()
    other.close()


def run_in(run: Any, pay: Callable[[str], str]) -> str:
    """Call in a run of one's own thread."""
    with run.guard.run("w", run_id=f"t{threading.get_ident()}"):
        return pay("ada")
