"""A SQLite store that has lost what it acknowledged says so, and starts nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard, StoreUnavailable, idempotent, tool_contract
from agentguard.stores.sqlite import SqliteStore


@pytest.fixture(name="path")
def path_of_a_store(tmp_path: Path) -> Path:
    """Give a place for a store."""
    return tmp_path / "store.db"


def payer(path: Path) -> Any:
    """Make a tool that pays, noting it beside the store."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        with path.with_name("paid").open("a") as paid:
            paid.write(f"{ticket}\n")
        return ticket

    return pay


def paying(path: Path, *tickets: str) -> list[str]:
    """Pay in a store that is opened for it and closed again; return all that was ever paid."""
    guard, pay = Guard(f"sqlite:///{path}"), payer(path)
    try:
        with guard.run("paying", run_id="r"):
            for ticket in tickets:
                pay(ticket)
    finally:
        guard.close()
    return path.with_name("paid").read_text().split()


def test_an_older_copy_that_was_put_back_is_refused(path: Path, tmp_path: Path) -> None:
    """A key that was used after the copy was made is not started again."""
    paying(path, "T-1")
    old = shutil.copy(path, tmp_path / "old.db")
    paying(path, "T-2")
    shutil.copy(old, path)
    with pytest.raises(StoreUnavailable, match=r"holds \d+ commits, and \d+ were"):
        paying(path, "T-2")
    assert path.with_name("paid").read_text().split() == ["T-1", "T-2"]


def test_a_log_that_is_gone_is_refused(path: Path) -> None:
    """Who was killed leaves commits in the log; a store without them does not open."""
    child = os.fork()
    if not child:
        store = SqliteStore(path)
        store.transact(lambda tx: tx.now)
        os._exit(0)
    os.waitpid(child, 0)
    Path(f"{path}-wal").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        SqliteStore(path)


@pytest.mark.parametrize("said", [None, b"", b"9 8", b"nonsense", b"\xff" * 64])
def test_a_mark_that_is_not_whole_says_nothing(path: Path, said: bytes | None) -> None:
    """Where nothing is known, nothing is refused, and the next commit makes the mark anew."""
    paying(path, "T-1")
    mark = Path(f"{path}.mark")
    before = mark.read_bytes()
    if said is None:
        mark.unlink()
    else:
        mark.write_bytes(said)
    assert paying(path, "T-1", "T-2") == ["T-1", "T-2"]
    assert int(mark.read_bytes().split()[0]) > int(before.split()[0])


def test_a_newer_copy_than_the_mark_knows_is_taken(path: Path) -> None:
    """A power cut may leave an older mark, and an operator the newest copy: both lose nothing."""
    paying(path, "T-1")
    mark = Path(f"{path}.mark")
    before = mark.read_bytes()
    paying(path, "T-2")
    mark.write_bytes(before)
    assert paying(path, "T-2", "T-3") == ["T-1", "T-2", "T-3"]


def test_a_row_whose_key_has_changed_on_the_disk_is_not_started_anew(path: Path) -> None:
    """A flipped bit in a key does not make the key free: the row beside the gap is damaged."""
    paying(path, *[f"T-{number}" for number in range(5)])
    guard = Guard(f"sqlite:///{path}")
    keys = [effect.id.encode() for effect in guard.effects.list()]
    guard.close()
    data, mark = path.read_bytes(), Path(f"{path}.mark")
    for key in keys:
        mark.unlink()
        path.write_bytes(data.replace(key, key[:20] + bytes([key[20] ^ 1]) + key[21:]))
        with pytest.raises(StoreUnavailable, match="not as it was written"):
            paying(path, *[f"T-{number}" for number in range(5)])
    assert len(path.with_name("paid").read_text().split()) == 5
