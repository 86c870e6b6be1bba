"""What can become of a store's files: flipped bits, a log cut off or gone, an older copy put back."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.world import World

FILE, LOG = "store.db", "store.db-wal"
FILES = (FILE, LOG, "store.db.mark")
PAGE = 4096
_TABLES = "SELECT name FROM sqlite_master WHERE lower(type) = 'table' ORDER BY name"


@dataclass(frozen=True)
class State:
    """The store's files at one moment, and what they say and do while nothing is wrong with them."""

    files: dict[str, bytes]
    lines: bytes
    locks: Path
    rows: dict[str, Any]
    ends: dict[str, str]


@dataclass(frozen=True)
class Damage:
    """What has become of the files of one state.

    Attributes:
        is_mixture: a copy lies beside the log of another one. SQLite takes it for its own, and the
            documents say that nobody notices but the doctor.
    """

    name: str
    state: State
    files: dict[str, bytes]
    is_mixture: bool = False


def laid_out(state: State, files: dict[str, bytes], folder: Path) -> World:
    """Write files down where a process will look for them."""
    (folder / "store.db.owners").mkdir(parents=True)
    for name, data in {**files, "effects": state.lines}.items():
        (folder / name).write_bytes(data)
    for lock in state.locks.iterdir():
        os.link(lock, folder / "store.db.owners" / lock.name)
    return World(folder)


def rows_of(folder: Path) -> dict[str, Any]:
    """Read every row past our own code, or what SQLite says instead, table by table."""
    connection = sqlite3.connect(folder / "store.db")
    try:
        names = [name.lower() for (name,) in connection.execute(_TABLES)]  # as SQLite takes them
        return {name: rows_in(connection, name) for name in names}
    except (sqlite3.Error, ValueError) as error:
        return {"the file": str(error)}
    finally:
        connection.close()


def rows_in(connection: sqlite3.Connection, table: str) -> Any:
    """Read one table."""
    try:
        return connection.execute(f"SELECT * FROM {table}").fetchall()
    except (sqlite3.Error, ValueError) as error:
        return str(error)


def damages(flips: int, seed: str, states: dict[str, State]) -> Iterator[Damage]:
    """Think of everything that can become of the files."""
    chance = random.Random(seed)
    for name, file, share in (("closed", FILE, 0.5), ("killed", FILE, 0.2), ("killed", LOG, 0.3)):
        state = states[name]
        for _ in range(round(flips * share)):
            place, bit = chosen(chance, state.files[file]), chance.randrange(8)
            yield Damage(
                f"{name}, bit {bit} of byte {place} of {file}", state,
                {**state.files, file: flipped(state.files[file], place, bit)},
            )  # fmt: skip
    for word in (b"ag1_", b"paid T-"):  # keys and results
        yield from aimed(states["closed"], word, flips // 30, chance)
    yield from lost_logs(flips // 30, states["killed"], chance)
    yield from old_copies(states)


def aimed(state: State, word: bytes, flips: int, chance: random.Random) -> Iterator[Damage]:
    """Flip bits in the words that matter most, wherever they stand."""
    data = state.files[FILE]
    places = [found.end() for found in re.finditer(re.escape(word), data)]
    for place in (chance.choice(places) + chance.randrange(-len(word), 4) for _ in range(flips)):
        bit = chance.randrange(8)
        files = {**state.files, FILE: flipped(data, place, bit)}
        yield Damage(f"closed, aimed at {word.decode()}, bit {bit} of byte {place}", state, files)


def lost_logs(cuts: int, killed: State, chance: random.Random) -> Iterator[Damage]:
    """Cut the log off, or lose it."""
    log = killed.files[LOG]
    for size in sorted(chance.sample(range(len(log)), cuts)):
        yield Damage(f"the log cut to {size} bytes", killed, {**killed.files, LOG: log[:size]})
    yield Damage("no log", killed, {n: d for n, d in killed.files.items() if n != LOG})


def old_copies(states: dict[str, State]) -> Iterator[Damage]:
    """Put an older copy back, with no log or beside the one that is there."""
    for name in ("old", "closed"):
        old = {FILE: states[name].files[FILE]}
        for now in ("closed", "killed"):
            files = {**states[now].files, **old}
            if now == name:
                continue
            what = f"the {name} copy put back where the store was {now}"
            if LOG in files:
                yield Damage(f"{what}, beside its log", states[now], files, is_mixture=True)
                files.pop(LOG)
            yield Damage(what, states[now], files)


def chosen(chance: random.Random, data: bytes) -> int:
    """Choose a page, and a byte of it, in three of four cases one that is not empty."""
    page = chance.randrange(len(data) // PAGE) * PAGE
    used = [place for place in range(page, page + PAGE) if data[place]]
    return (
        chance.choice(used)
        if used and chance.random() < 0.75
        else chance.randrange(page, page + PAGE)
    )


def flipped(data: bytes, place: int, bit: int) -> bytes:
    """Flip one bit."""
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
