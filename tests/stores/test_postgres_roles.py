"""The roles on PostgreSQL: each may do its work, and what would rewrite the record is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest

from agentguard import Guard, Principal, budget, idempotent, requires_approval, tool_contract
from agentguard.stores._pg_roles import script
from agentguard.stores.postgres import PostgresStore
from tests.postgres.server import Server


@dataclass
class Users:
    """The address of the store for each role."""

    owner: str
    app: str
    reader: str
    admin: str


@pytest.fixture(name="users")
def users_with_roles(postgres_server: Server, postgres_url: str) -> Iterator[Users]:
    """A store whose roles are given to users of its own."""
    name = postgres_url.rpartition("/")[2]
    PostgresStore(f"{postgres_url}?schema={name}").close()
    for _ in range(2):  # as after an upgrade
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(script(name).encode())
    urls = {}
    for role in ("app", "reader", "admin"):
        user = f"{name}_{role}_user"
        postgres_server.execute(f"CREATE ROLE {user} LOGIN IN ROLE {name}_{role}")
        urls[role] = f"{postgres_url.replace('postgres@', f'{user}@')}?schema={name}"
    yield Users(f"{postgres_url}?schema={name}", **urls)
    postgres_server.execute(f"DROP SCHEMA {name} CASCADE", database=name)
    for role in ("app", "reader", "admin"):
        postgres_server.execute(f"DROP ROLE {name}_{role}_user, {name}_{role}")


@tool_contract(effect="write", rate_limit="100/minute")
@idempotent(key="pay:{to}")
@budget(max_calls=10, per="day")
def pay(to: str) -> str:
    """Pay."""
    return f"paid {to}"


@tool_contract(effect="write")
@idempotent(key="wire:{to}")
@requires_approval()
def wire(to: str) -> str:
    """Pay much."""
    return f"wired {to}"


def work(url: str) -> None:
    """Do what workers do, with a budget, a rate, a question and its answer."""
    with closing(Guard(url)) as guard:
        with guard.run("w", run_id="r", principal=Principal(agent="bot")):
            assert pay("a") == "paid a"
            with pytest.raises(Exception, match="waits for a person"):
                wire("b")
        (asked,) = guard.approvals.list()
        guard.approvals.decide(asked.id, "approve", by="dana")
        with guard.run("w", run_id="r", principal=Principal(agent="bot")):
            assert wire("b") == "wired b"
        assert guard.runs.verify("r") is None


def test_a_worker_has_all_the_rights_it_needs(users: Users) -> None:
    """With the role of an app everything works that a guarded call can need."""
    work(users.app)


FORBIDDEN = [
    "UPDATE {}.events SET data = '{{}}'",
    "UPDATE {}.events SET body = NULL",
    "DELETE FROM {}.events",
    "TRUNCATE {}.events",
    "DELETE FROM {}.effects",
    "DELETE FROM {}.runs",
    "DELETE FROM {}.approvals",
    "UPDATE {}.votes SET person = 'mallory'",
    "DELETE FROM {}.votes",
    "UPDATE {}.leaves SET hash = 'x'",
    "UPDATE {}.tenants SET hash_key = 'x'",
    "UPDATE {}.switches SET lifted_at = 1",
    "UPDATE {}.meta SET value = 'version 1'",
    "DROP TABLE {}.events",
    "ALTER TABLE {}.events DISABLE TRIGGER ALL",
    "CREATE TABLE {}.mine (a int)",
    "CREATE INDEX ON {}.events (kind)",
]


def refused(url: str, statements: list[str]) -> list[str]:
    """Try statements as the user of *url*; return those that this user has no right to."""
    found = []
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                found.append(statement)
    return found


def test_a_worker_cannot_rewrite_the_record(users: Users) -> None:
    """What would change or remove what was written down is refused to the app's role."""
    name = users.owner.rpartition("=")[2]
    tried = [statement.format(name) for statement in FORBIDDEN]
    assert refused(users.app, tried) == tried


def test_a_reader_reads_and_does_nothing_else(users: Users) -> None:
    """The reader's role sees the record without its secrets, and cannot write anywhere."""
    name = users.owner.rpartition("=")[2]
    work(users.app)
    with psycopg.connect(users.reader.partition("?")[0], autocommit=True) as connection:
        counted = connection.execute(f"SELECT count(*) FROM {name}.events").fetchone()
        assert counted is not None
        assert counted[0] > 5
        assert connection.execute(f"SELECT tenant FROM {name}.tenants").fetchall() == [("default",)]
    tried = [
        f"SELECT hash_key FROM {name}.tenants",
        f"INSERT INTO {name}.switches (kind, name, by, reason, at) VALUES ('all', '', '', '', 1)",
        f"UPDATE {name}.effects SET state = 'succeeded'",
        f"DELETE FROM {name}.owners",
        f"SELECT * FROM {name}.runs FOR UPDATE",
    ]
    assert refused(users.reader, tried) == tried


def test_an_operator_may_lift_switches_and_erase_contents_and_no_more(users: Users) -> None:
    """The admin's role does all that a worker does, lifts, and erases; the chain it cannot touch."""
    name = users.owner.rpartition("=")[2]
    work(users.admin)
    with closing(Guard(users.admin)) as guard:
        guard.kill(tool="pay", by="dana", reason="broken")
        guard.kill(tool="pay", by="dana", reason="mended", lift=True)
    erased = f"UPDATE {name}.events SET salt = NULL, body = NULL"
    tried = [f"UPDATE {name}.events SET data = ''", f"DELETE FROM {name}.events"]
    assert refused(users.admin, [erased, *tried]) == tried
    with closing(Guard(users.admin)) as guard:
        assert guard.runs.verify("r") is None
