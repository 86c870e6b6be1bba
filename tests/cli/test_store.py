"""`agentguard store`: what the file is, and bringing it up to date."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentguard.cli import store as store_commands
from agentguard.stores import _files, schema
from tests.cli.conftest import Call


def test_a_store_tells_what_it_holds(run: Call, store: Path) -> None:
    """`store info` prints place, size, schema and what waits."""
    lines = dict(line.split("  ", 1) for line in run("store", "info").stdout.splitlines())
    assert lines["store"].strip() == str(store)
    assert lines["holds"].strip().startswith("4 runs, ")
    assert lines["waiting"].strip() == "2: agentguard approvals list"
    assert lines["in doubt"].strip() == "1: agentguard effects list --state in_doubt"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_store_as_json_has_the_documented_keys(run: Call, form: str) -> None:
    """`store info` as json has exactly the documented keys."""
    found = json.loads(run("store", "info", "-o", form).stdout)
    assert tuple(found) == store_commands.INFO_KEYS
    assert found["counts"]["runs"] == 4


def test_the_newest_schema_needs_no_migration(run: Call) -> None:
    """`store migrate` of a current store does nothing and says so."""
    ended = run("store", "migrate")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "nothing to do" in ended.stderr


@pytest.fixture(name="newer_code")
def code_of_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this code know one schema more than the store has."""
    more = (*schema.MIGRATIONS, ("CREATE TABLE tomorrow (id INTEGER PRIMARY KEY) STRICT",))
    monkeypatch.setattr(_files, "MIGRATIONS", more)
    monkeypatch.setattr(_files, "VERSION", len(more) + 1)
    monkeypatch.setattr(store_commands, "VERSION", len(more) + 1)


@pytest.mark.usefixtures("newer_code")
def test_an_older_store_is_migrated_on_a_yes_only(run: Call) -> None:
    """`store migrate` looks with `--dry-run`, refuses without `--yes`, and then does it."""
    assert "store migrate" in run("runs", "list").stderr
    told = f"from schema {schema.VERSION} to {schema.VERSION + 1}; nothing was changed"
    assert told in run("store", "migrate", "--dry-run").stderr
    assert run("store", "migrate").exit_code == 2
    assert run("store", "migrate", "--yes").exit_code == 0
    assert json.loads(run("store", "info", "--json").stdout)["schema"] == schema.VERSION + 1
    assert run("runs", "list").exit_code == 0


def test_a_store_of_tomorrow_is_refused(run: Call, store: Path) -> None:
    """A schema newer than this code is named, and nothing is changed."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
    ended = run("store", "migrate", "--yes")
    assert ended.exit_code == 1
    assert "schema 99" in ended.stderr
    assert "schema 99" in run("runs", "list").stderr


def test_a_database_of_another_program_is_refused(run: Call, store: Path) -> None:
    """A SQLite file of something else is not migrated."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA application_id = 7")
    ended = run("store", "migrate", "--yes")
    assert ended.exit_code == 1
    assert "another program" in ended.stderr
