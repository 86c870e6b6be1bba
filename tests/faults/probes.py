"""Places to die: the guarded call, cut open from outside at every step that can be told apart.

Nothing in the product knows of this. Names are patched in the process that is to die.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

from agentguard import _durable, _pipeline, _runtime, declaration
from agentguard.stores import _files, _owner, sqlite

PHASES = {
    "open_run": "run open",
    "begin": "start",
    "settle": "settle",
    "close_run": "run close",
    "decide": "ruling on an approval",
    "resolve": "ruling on a doubt",
}


def kill() -> None:
    """End this process without another word."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def interrupt() -> None:
    """Do what Ctrl-C does, and the time limits of task queues: raise out of nowhere."""
    raise KeyboardInterrupt


class Points:
    """Counts the places as they are passed; at the chosen one something happens, once."""

    def __init__(self, chosen: int | str | None = None, happen: Callable[[], None] = kill) -> None:
        self.passed: list[str] = []
        self.phase = "store open"
        self._chosen, self._happen = chosen, happen

    def reach(self, name: str) -> None:
        """Pass a place, or never come back from it."""
        self.passed.append(name)
        if self._chosen in (len(self.passed) - 1, name):
            self._chosen = None
            self._happen()

    def around(self, owner: Any, name: str, what: str) -> None:
        """Make the places before and after one function, wherever it is looked up."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {what}")
            value = inner(*args, **kwargs)
            self.reach(f"after {what}")
            return value

        setattr(owner, name, call)

    def around_async(self, owner: Any, name: str, what: Callable[..., str]) -> None:
        """Make the places before and after one coroutine function."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {what(*args)}")
            value = await inner(*args, **kwargs)
            self.reach(f"after {what(*args)}")
            return value

        setattr(owner, name, call)


def install(points: Points, *, on_postgres: bool = False) -> None:
    """Cut open everything between a caller and the disk, or the server."""
    at_statements(points)
    _at_transactions(points)
    if on_postgres:
        _at_wires(points)
    points.around(_owner.Owner, "__init__", "the owner's lock")
    points.around(_owner.Owner, "forget", "forgetting a dead owner")
    sqlite._BUSY_FROM = 4  # so that the log file is made large in every story
    points.around(_files, "extend_wal", "making the log file large")
    points.around(_pipeline, "decide", "decide")
    points.around_async(_durable, "attempt", lambda *_: "the attempt")
    points.around_async(declaration, "guarded", lambda *_: "the guarded call")
    for runtime in (_runtime.InlineRuntime, _runtime.AsyncioRuntime):
        points.around_async(runtime, "commit", lambda *args: f"the wish to {phase_of(args[2])}")


def phase_of(verb: Callable[..., Any]) -> str:
    """Name a transaction after its verb."""
    return PHASES.get(verb.__name__, verb.__name__)


def _at_transactions(points: Points) -> None:
    inner = sqlite.SqliteStore._commit

    def commit(store: Any, batch: list[Any], **options: Any) -> None:
        points.phase = phase_of(batch[0].verb)
        inner(store, batch, **options)
        points.phase = "outside"

    sqlite.SqliteStore._commit = commit  # type: ignore[method-assign, assignment]


def at_statements(points: Points) -> None:
    """Make a place before each statement that changes something, and after each BEGIN and COMMIT."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            name = statement(sql)
            if name:
                points.reach(f"{points.phase}: before {name}")
            cursor = super().execute(sql, *values)
            if name in ("COMMIT", "BEGIN"):
                points.reach(f"{points.phase}: after {name}")
            return cursor

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


def _at_wires(points: Points) -> None:
    from agentguard.stores import _pg_commits, _pg_wire

    transaction, send = _pg_commits.Commits._transaction, _pg_wire.Wire.send
    commit, ready = _pg_wire.Wire.commit, _pg_wire.Wire._ready
    committing = False

    def in_phase(commits: Any, batch: list[Any], *args: Any) -> None:
        points.phase = phase_of(batch[0].verb)
        transaction(commits, batch, *args)
        points.phase = "outside"

    def before_each(wire: Any, sql: str, *values: Any) -> Any:
        name = statement(sql)
        if name and points.phase != "outside":  # reads leave no trace to cut off
            points.reach(f"{points.phase}: before {name}")
        return send(wire, sql, *values)

    def around_commit(wire: Any, *args: Any) -> None:
        nonlocal committing
        committing = True
        commit(wire, *args)
        committing = False
        points.reach(f"{points.phase}: after COMMIT")

    def on_its_way(wire: Any, *args: Any) -> None:
        if committing:
            points.reach(f"{points.phase}: COMMIT on its way")
        ready(wire, *args)

    for owner, name, cut_open in (
        (_pg_commits.Commits, "_transaction", in_phase),
        (_pg_wire.Wire, "send", before_each),
        (_pg_wire.Wire, "commit", around_commit),
        (_pg_wire.Wire, "_ready", on_its_way),
    ):
        setattr(owner, name, cut_open)


def statement(sql: str) -> str:
    """Name a statement that changes something; a SELECT or a setting leaves no trace to cut off."""
    words = sql.replace("(", " ").split()
    if words[0] in ("BEGIN", "COMMIT"):
        return words[0]
    if words[0] in ("INSERT", "DELETE", "CREATE", "ALTER", "DROP"):
        return f"{words[0]} {words[2]}"
    if words[0] == "UPDATE" or (words[0] == "PRAGMA" and "=" in sql and "user_version" in sql):
        return f"{words[0]} {words[1]}"
    return ""
