"""Tools that write into the store's own database: exactly once, whatever is killed when."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ConfigurationError,
    Guard,
    Retry,
    StoreUnavailable,
    VerificationFailed,
    budget,
    current_run,
    idempotent,
    tool_contract,
    verified_by,
)


class Refused(Exception):
    """The database refused what the tool wanted."""


TRIES: list[str] = []


@tool_contract(effect="write")
@idempotent(key="pay:{ticket}", same_database=True)
@budget(max_calls=20)
def pay(ticket: str, how: str = "well") -> str:
    """Write a payment into the table beside the record."""
    connection = current_run().call.connection
    connection.execute("INSERT INTO payments (ticket) VALUES (?)", (ticket,))
    HOWS[how](connection)
    return ticket


def fail(_connection: Any) -> None:
    """Break after the write."""
    raise Refused


def nest(_connection: Any) -> None:
    """Make a guarded write inside of the body."""
    pay("nested")


HOWS: dict[str, Callable[[Any], object]] = {
    "well": lambda _connection: None,
    "fails": fail,
    "commits": lambda connection: connection.commit(),
    "rolls back": lambda connection: connection.execute("ROLLBACK"),
    "forges": lambda connection: connection.execute("UPDATE effects SET state = 'succeeded'"),
    "erases": lambda connection: connection.execute("DELETE FROM events"),
    "nests": nest,
}
SAYS = {
    "fails": (Refused, "^$"),
    "commits": (sqlite3.DatabaseError, "not authorized"),
    "rolls back": (sqlite3.DatabaseError, "not authorized"),
    "forges": (sqlite3.DatabaseError, "prohibited|not authorized"),
    "erases": (sqlite3.DatabaseError, "prohibited|not authorized"),
    "nests": (ConfigurationError, "while its transaction is open"),
}


@tool_contract(effect="write", retry=Retry(attempts=3))
@idempotent(key="flaky:{ticket}", same_database=True)
def flaky(ticket: str) -> str:
    """Break twice after the write, then do it."""
    current_run().call.connection.execute("INSERT INTO payments (ticket) VALUES (?)", (ticket,))
    TRIES.append(ticket)
    if len(TRIES) < 3:
        raise Refused
    return ticket


@tool_contract(effect="write")
@idempotent(key="doubted:{ticket}", same_database=True)
@verified_by(lambda _arguments, _result: False)
def doubted(ticket: str) -> str:
    """Write what no verifier confirms."""
    current_run().call.connection.execute("INSERT INTO payments (ticket) VALUES (?)", (ticket,))
    return ticket


@pytest.fixture(name="store")
def store_file(tmp_path: Path) -> Path:
    """Return a store's file that has a table of the tool's own."""
    path = tmp_path / "store.db"
    Guard(store=f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE payments (ticket TEXT)")
    return path


@pytest.fixture(name="guard")
def guard_on_it(store: Path) -> Any:
    """Return a guard on the store."""
    guard = Guard(store=f"sqlite:///{store}")
    yield guard
    guard.close()


def payments(store: Path) -> list[str]:
    """Return what was paid, as anybody sees it in the file."""
    with closing(sqlite3.connect(store)) as connection:
        return [ticket for (ticket,) in connection.execute("SELECT ticket FROM payments")]


def test_effect_and_record_are_there_together(guard: Guard, store: Path) -> None:
    """What the tool wrote is committed with its record, and given back to whoever asks again."""
    with guard.run("w"):
        assert [pay("T-1"), pay("T-1")] == ["T-1", "T-1"]
    assert payments(store) == ["T-1"]
    assert [effect.state for effect in guard.effects.list()] == ["succeeded"]


@pytest.mark.parametrize("how", SAYS)
def test_a_body_that_breaks_has_done_nothing(guard: Guard, store: Path, how: str) -> None:
    """The tool's error reaches the caller, its writes are undone, and nothing is in doubt."""
    kind, says = SAYS[how]
    with guard.run("w", run_id="r"):
        with pytest.raises(kind, match=says):
            pay("T-1", how)
        assert payments(store) == []
        (effect,) = guard.effects.list()
        assert effect.state == "failed_retryable"
        assert pay("T-2") == "T-2"
    assert payments(store) == ["T-2"]
    assert guard.runs.verify("r") is None


def test_it_may_be_tried_again(guard: Guard, store: Path) -> None:
    """A write that was undone can be tried again without a hook, and happens once."""
    TRIES.clear()
    with guard.run("w"):
        assert flaky("T-1") == "T-1"
    assert (len(TRIES), payments(store)) == (3, ["T-1"])


def test_what_a_verifier_does_not_confirm_is_undone(guard: Guard, store: Path) -> None:
    """A failed verdict takes the write back, so that nothing is in doubt."""
    with guard.run("w"), pytest.raises(VerificationFailed):
        doubted("T-1")
    assert payments(store) == []
    assert [effect.state for effect in guard.effects.list()] == ["failed_retryable"]


def test_an_interrupt_undoes_all_of_it(guard: Guard, store: Path) -> None:
    """Ctrl-C inside the body leaves neither the write nor a call that is executing."""
    HOWS["interrupted"] = lambda _connection: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), guard.run("w"):
        pay("T-1", "interrupted")
    assert payments(store) == []
    assert all(effect.state == "failed_retryable" for effect in guard.effects.list())


def test_a_commit_that_fails_leaves_nothing(guard: Guard, store: Path) -> None:
    """If the transaction cannot be kept, neither is there, and the call may be made again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = store.with_name(f"{store.name}-wal")
    HOWS["fills"] = lambda _connection: resource.setrlimit(
        resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1])
    )
    with guard.run("w"):
        try:
            with pytest.raises(StoreUnavailable):
                pay("T-1", "fills")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert payments(store) == []
        assert guard.effects.list() == []
        HOWS["fills"] = HOWS["well"]
        assert pay("T-1", "fills") == "T-1"
    assert payments(store) == ["T-1"]


def test_killed_anywhere_it_happens_once(store: Path) -> None:
    """Killed at any statement, a worker leaves the write with its success or neither of them."""
    for place in range(1, 400):
        ticket = f"T-{place}"
        killed = killed_at(place, store, ticket)
        with closing(sqlite3.connect(store)) as connection:
            state = connection.execute(
                "SELECT state FROM effects WHERE result LIKE ?", (f"%{ticket}%",)
            ).fetchone()
        assert payments(store).count(ticket) == (state == ("succeeded",)), place
        with closing(Guard(store=f"sqlite:///{store}")) as guard, guard.run("again"):
            assert pay(ticket) == ticket
            assert guard.effects.list(state="in_doubt") == []
        assert payments(store).count(ticket) == 1, place
        if not killed:
            assert place > 20
            return
    pytest.fail("it was still killed at the last place")


def killed_at(place: int, store: Path, ticket: str) -> bool:
    """Run one call in a process that kills itself at its n-th statement; whether it was killed."""
    child = os.fork()
    if child == 0:
        sys.setprofile(_killer(place))
        with closing(Guard(store=f"sqlite:///{store}")) as guard, guard.run("w", run_id=ticket):
            pay(ticket)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _killer(place: int) -> Callable[[Any, str, Any], None]:
    seen = 0

    def profile(_frame: Any, event: str, function: Any) -> None:
        nonlocal seen
        if event in ("c_call", "c_return") and getattr(function, "__name__", "") == "execute":
            seen += 1
            if seen == place:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def test_only_a_plain_write_can_share() -> None:
    """Async tools, timeouts, reads, hooks and dedupe windows are refused, each with its reason."""

    async def body(ticket: str) -> None:
        """Do nothing."""

    shared = idempotent(key="a:{ticket}", same_database=True)
    tool: Any = tool_contract(effect="write")(shared(body))
    with pytest.raises(ConfigurationError, match="plain def without timeout"):
        Guard(store="memory://").bind(tool.__agentguard__)
    with pytest.raises(ConfigurationError, match="leave out reconcile"):
        idempotent(key="a", same_database=True, downstream_dedupe="24h")
