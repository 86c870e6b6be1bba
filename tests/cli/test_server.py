"""The command on a store that is on a PostgreSQL server."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing

import pytest
from click.testing import CliRunner, Result

from agentguard import Guard, idempotent, tool_contract
from agentguard.cli import main
from agentguard.cli.store import INFO_KEYS
from tests.postgres.server import Server


@tool_contract(effect="write")
@idempotent(key="pay:{to}")
def pay(to: str) -> str:
    """Pay."""
    return f"paid {to}"


@pytest.fixture(name="run")
def the_command(postgres_url: str) -> Callable[..., Result]:
    """Run `agentguard` on an empty database, with a password in its address."""
    url = postgres_url.replace("postgres@", "postgres:secret@")

    def call(*words: str) -> Result:
        ended = CliRunner().invoke(main, ["--store", url, *words])
        assert "secret" not in ended.output
        return ended

    return call


@pytest.fixture(name="filled")
def a_store_with_a_run(postgres_url: str) -> None:
    """Leave a record in the database."""
    with closing(Guard(postgres_url)) as guard, guard.run("w", run_id="r"):
        pay("ada")


def test_no_command_makes_a_store_but_a_migration(run: Callable[..., Result]) -> None:
    """Looking into an empty database is refused and creates nothing; `store migrate` makes a store."""
    for words in (("runs", "list"), ("store", "info"), ("effects", "list")):
        ended = run(*words)
        assert ended.exit_code == 1
        assert "there is no store at postgresql://postgres:***@" in ended.output
    assert run("store", "migrate", "--yes").exit_code == 0
    assert "nothing to do" in run("store", "migrate").output
    assert run("runs", "list").exit_code == 0


@pytest.mark.usefixtures("filled")
def test_a_store_on_a_server_tells_what_it_holds(run: Callable[..., Result]) -> None:
    """`store info` prints address, size, schema and what it holds."""
    lines = dict(line.split("  ", 1) for line in run("store", "info").stdout.splitlines())
    assert "on PostgreSQL " in lines["size"]
    assert lines["holds"].strip().startswith("1 run, ")
    found = json.loads(run("store", "info", "-o", "json").stdout)
    assert tuple(found) == INFO_KEYS
    assert found["counts"]["effects"] == 1


@pytest.mark.usefixtures("filled")
def test_the_doctor_looks_at_a_server(run: Callable[..., Result]) -> None:
    """`doctor` names server, rights and clocks, and finds nothing wrong with a good one."""
    ended = run("doctor")
    assert ended.exit_code == 0
    found = {line.split()[0]: line.split()[1] for line in ended.stdout.splitlines()}
    assert found["server"] == found["record"] == found["files"] == found["locks"] == "ok"
    assert found["rights"] == "note"  # the tests' user is a superuser


@pytest.mark.usefixtures("filled")
def test_the_doctor_finds_a_server_that_confirms_too_early(
    run: Callable[..., Result], postgres_server: Server, postgres_url: str
) -> None:
    """`doctor` ends with 5 where a confirmed commit can be lost, and says what to set."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    ended = run("doctor")
    assert ended.exit_code == 5
    assert "set it to on" in ended.stdout


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    """Every command says that the server cannot be reached; the password stays unsaid."""
    url = "postgresql://u:secret@127.0.0.1:1/d"
    for words in (("runs", "list"), ("store", "info"), ("store", "migrate"), ("doctor",)):
        ended = CliRunner().invoke(main, ["--store", url, *words])
        assert ended.exit_code in (1, 5)
        assert "cannot be reached" in ended.output
        assert "secret" not in ended.output


def test_roles_are_printed_as_sql(run: Callable[..., Result]) -> None:
    """`store roles` prints the script, for PostgreSQL only."""
    assert "GRANT INSERT ON agentguard.events" in run("store", "roles").stdout
    ended = CliRunner().invoke(main, ["--store", "sqlite:///a.db", "store", "roles"])
    assert ended.exit_code == 2
