"""`agentguard store copy`: how a move is asked for, shown and told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli import world
from tests.cli.conftest import Call


def test_the_command_copies_and_tells(run: Call, store: Path, tmp_path: Path) -> None:
    """`store copy` says what it did, as lines and as JSON with the documented keys."""
    source, target = f"sqlite:///{store}", f"sqlite:///{tmp_path}/b.db"
    assert run("store", "copy", source, target).exit_code == 2
    looked = run("store", "copy", source, target, "--dry-run")
    assert "nothing was changed" in looked.stderr
    assert not (tmp_path / "b.db").exists()
    told = run("store", "copy", source, target, "--yes")
    assert told.exit_code == 0, told.stderr
    assert "events" in told.stdout
    assert "same in both" in told.stdout
    again = run("store", "copy", source, target, "--yes", "--json")
    data = json.loads(again.stdout)
    assert tuple(data) == ("source", "target", "before", "tables", "runs", "broken")
    assert data["before"] is True


def test_the_command_refuses_in_a_sentence(run: Call, store: Path, tmp_path: Path) -> None:
    """A copy that cannot be made ends with 1 and one line."""
    ended = run("store", "copy", f"sqlite:///{tmp_path}/none.db", f"sqlite:///{store}", "--yes")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1


def test_the_command_tells_damage_by_its_exit_code(run: Call, store: Path, tmp_path: Path) -> None:
    """A record whose chains were broken already is copied, and the command ends with 5."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE events SET actor = 'eve' WHERE seq = 2")
        connection.commit()
    ended = run("store", "copy", f"sqlite:///{store}", f"sqlite:///{tmp_path}/b.db", "--yes")
    assert ended.exit_code == 5
    assert "in the source too" in ended.stdout


def test_a_terminal_shows_a_bar(store: Path, tmp_path: Path) -> None:
    """On a terminal the copy draws how far it is, and leaves only its report."""
    source = f"sqlite:///{store}"
    code, drawn = world.on_terminal("store", "copy", source, f"sqlite:///{tmp_path}/b.db", "--yes")
    assert code == 0
    assert "events" in drawn
    assert "━" in drawn
