"""Tools that write into the PostgreSQL that holds the record: exactly once, whatever breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest

from agentguard import Guard, StoreUnavailable, current_run, idempotent, tool_contract
from tests.postgres.home import PATIENCE
from tests.postgres.proxy import Loss, Proxy
from tests.postgres.server import Server, database_of
from tests.support import ROOT


class Refused(Exception):
    """The tool's own error."""


HOWS: dict[str, Any] = {"well": lambda _connection: None}


@tool_contract(effect="write")
@idempotent(key="pay:{ticket}", same_database=True)
def pay(ticket: str, how: str = "well") -> str:
    """Write a payment into the table beside the record."""
    connection = current_run().call.connection
    connection.execute("INSERT INTO payments VALUES (%s)", (ticket,))
    HOWS[how](connection)
    return ticket


@tool_contract(effect="write")
@idempotent(key="other:{ticket}")
def act_elsewhere(ticket: str) -> str:
    """Do something that shares no transaction."""
    return ticket


def with_table(url: str) -> Guard:
    """Return a guard on a store beside which there is a table of the tool's own."""
    guard = Guard(url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE payments (ticket TEXT)")
    return guard


def payments(url: str) -> list[str]:
    """Return what was paid, as anybody sees it."""
    with psycopg.connect(url) as connection:
        return [ticket for (ticket,) in connection.execute("SELECT ticket FROM payments")]


@pytest.fixture(name="guard")
def guard_on_postgres(postgres_url: str) -> Iterator[Guard]:
    """A guard with a table of the tool's own beside its record."""
    with closing(with_table(postgres_url)) as guard:
        yield guard


def test_the_write_and_its_record_are_there_together(guard: Guard, postgres_url: str) -> None:
    """The tool's row and its success are there after one call, and after a second one."""
    with guard.run("w", run_id="r"):
        assert [pay("a"), pay("a"), pay("b")] == ["a", "a", "b"]
    assert payments(postgres_url) == ["a", "b"]
    assert {effect.state for effect in guard.effects.list()} == {"succeeded"}
    assert guard.runs.verify("r") is None


def fail(_connection: Any) -> None:
    """Break after the write."""
    raise Refused


def interrupt(_connection: Any) -> None:
    """Press Ctrl-C after the write."""
    signal.raise_signal(signal.SIGINT)


HOWS |= {
    "fails": fail,
    "is interrupted": interrupt,
    "breaks a statement": lambda connection: connection.execute("SELECT nonsense"),
    "commits": lambda connection: connection.commit(),
    "says commit": lambda connection: connection.execute(b" commit "),
    "rolls back": lambda connection: connection.execute("ROLLBACK"),
    "leaves a with block": lambda connection: connection.__exit__(None, None, None),
}


@pytest.mark.parametrize("how", [how for how in HOWS if how != "well"])
def test_a_body_that_breaks_has_written_nothing(guard: Guard, postgres_url: str, how: str) -> None:
    """Whatever breaks, and whoever would end its transaction: nothing is left or in doubt."""
    with guard.run("w"), pytest.raises((Refused, KeyboardInterrupt, psycopg.Error)):
        pay("a", how)
    assert payments(postgres_url) == []
    assert guard.effects.list("in_doubt") == []
    with guard.run("w"), suppress(StoreUnavailable):
        assert pay("b") == "b"
    assert payments(postgres_url) == ["b"]


def test_a_tool_may_use_savepoints_of_its_own(guard: Guard, postgres_url: str) -> None:
    """`connection.transaction()` undoes what went wrong inside of it, and nothing else."""

    def partly(connection: Any) -> None:
        with suppress(Refused), connection.transaction():
            connection.execute("INSERT INTO payments VALUES ('never')")
            raise Refused
        connection.execute("SAVEPOINT mine")
        connection.execute("INSERT INTO payments VALUES ('never')")
        connection.execute("ROLLBACK TO SAVEPOINT mine")

    HOWS["partly"] = partly
    with guard.run("w"):
        pay("a", "partly")
    assert payments(postgres_url) == ["a"]


def test_others_go_on_while_a_body_holds_its_transaction_open(guard: Guard) -> None:
    """Another run of the same process is not kept waiting by a slow body."""
    entered, leave = threading.Event(), threading.Event()

    def wait(_connection: Any) -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    HOWS["waits"] = wait

    def slow() -> str:
        with guard.run("slow"):
            return pay("a", "waits")

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(slow)
        assert entered.wait(PATIENCE)
        with guard.run("other"):
            assert act_elsewhere("b") == "b"
            assert pay("c") == "c"
        assert not call.done()
        leave.set()
        assert call.result(PATIENCE) == "a"


@pytest.mark.parametrize("loss", list(Loss), ids=lambda loss: loss.name)
def test_a_lost_answer_is_looked_up(postgres_server: Server, loss: Loss) -> None:
    """When the answer to the one COMMIT is lost, the write is there with its success, or neither is."""
    with database_of(postgres_server) as name, Proxy(postgres_server) as proxy:
        url = proxy.url(name)
        guard = with_table(url)
        with guard.run("w"):
            pay("before")
            rest = iter([loss])
            proxy.at_commit = lambda: next(rest, None)
            with suppress(StoreUnavailable):
                pay("a")
            there = "a" in payments(postgres_server.url(name))
            known = [effect for effect in guard.effects.list() if effect.result == 't"a"']
            assert [effect.state for effect in known] == ["succeeded"] * there
            assert pay("a") == "a"
        assert payments(postgres_server.url(name)) == ["before", "a"]
        guard.close()


KILLED = """
import os, signal, sys
from agentguard import Guard
from tests.stores import test_postgres_together as tools
tools.HOWS["is killed"] = lambda _connection: os.kill(os.getpid(), signal.SIGKILL)
with Guard(sys.argv[1]).run("w", run_id="r"):
    tools.pay("a", "is killed")
"""


def test_a_worker_killed_in_the_body_leaves_nothing(guard: Guard, postgres_url: str) -> None:
    """After a kill there is neither write nor start, and the next delivery does it."""
    words = [sys.executable, "-c", KILLED, postgres_url]
    assert (
        subprocess.run(words, cwd=ROOT, check=False, env=os.environ).returncode == -signal.SIGKILL
    )
    assert (payments(postgres_url), guard.effects.list()) == ([], [])
    with guard.run("w"):
        assert pay("a") == "a"
    assert payments(postgres_url) == ["a"]
