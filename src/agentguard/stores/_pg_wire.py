"""One connection to PostgreSQL, whose statements wait in a row and cross the network together.

Theory of operation. libpq's pipeline mode: a statement is only queued when it is sent, and goes out
with the first one whose answer is waited for. A transaction costs as many round trips as it has
answers that something depends on, and its COMMIT goes with its last writes.

psycopg opens the connection; what goes over it we say with its libpq wrapper, for two reasons. A
transaction of ours costs a quarter of the processor time so, and the wait for a COMMIT is ours: no
interrupt can turn it into a cancellation (see `Wire.commit`).
"""

from __future__ import annotations

import hashlib
import os
import select
import time
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, pq

from ._pg_sql import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGresult

ANSWER_SECONDS = 30.0
"""So long a server may take to answer; longer than any lock is waited for."""
_SEVERITY, _MESSAGE = pq.DiagnosticField.SEVERITY_NONLOCALIZED, pq.DiagnosticField.MESSAGE_PRIMARY
_GONE = ("FATAL", "PANIC")
_FAILED, _BAD = pq.ExecStatus.FATAL_ERROR, pq.ConnStatus.BAD
_GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.PIPELINE_SYNC)


class ConnectionLost(psycopg.OperationalError):
    """The server is gone or does not answer."""


class CommitUnknown(Exception):
    """The COMMIT was sent and its answer did not come."""


class CommitUnsafe(Exception):
    """The COMMIT was answered with a warning: it may not be everywhere it should be."""


class Reply:
    """What the server says to one statement; it is read where somebody asks for it.

    Attributes:
        parses: the statement that this one prepares.
        number: its place among all that were sent.
        result: libpq's, once it is there.
    """

    __slots__ = ("done", "number", "parses", "result")

    def __init__(self, parses: str | None = None) -> None:
        self.parses, self.number, self.done = parses, 0, False
        self.result: PGresult | None = None

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return [] if self.result is None else _rows(self.result)

    @property
    def changed(self) -> int:
        """How many rows a statement has changed."""
        return 0 if self.result is None else self.result.command_tuples or 0

    @property
    def tag(self) -> str:
        """What the server calls that which it has done."""
        said = None if self.result is None else self.result.command_status
        return (said or b"").decode()


class QuietConnection(psycopg.Connection[Any]):
    """A connection at whose end no Python code runs in which a signal handler's exception gets lost.

    What is raised inside of a `__del__` is printed and forgotten, Ctrl-C too. The socket is closed by
    the object below, which is not made of Python.
    """

    __del__ = dict  # type: ignore[assignment] # called without arguments, and does nothing


class Wire:
    """A connection in pipeline mode.

    Args:
        conninfo: what libpq is given.
        schema: the schema of our tables.
        kind: psycopg's class of the connection.

    Attributes:
        prepares: whether statements are prepared by name. Behind a transaction pooler the next
            transaction may meet another server process, which does not know the name.
        trips: how often the server was waited for.
    """

    def __init__(
        self, conninfo: str, schema: str, kind: type[QuietConnection] = QuietConnection
    ) -> None:
        self.connection = kind.connect(conninfo, autocommit=True, prepare_threshold=None)
        self._pg = self.connection.pgconn
        self._schema, self.prepares = schema, False
        self._known: dict[str, bytes] = {}
        self._pending: deque[Reply] = deque()
        self._queued_so_far = self._asked_for = self.trips = 0
        self._warnings: list[str] = []
        self._pg.notice_handler = self._noticed
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._socket, self._poll = self._pg.socket, select.poll()
        self.pid = self._pg.backend_pid

    def _noticed(self, notice: PGresult) -> None:
        if notice.error_field(_SEVERITY) == b"WARNING":
            self._warnings.append((notice.error_field(_MESSAGE) or b"").decode(errors="replace"))

    def send(self, sql: str, values: Sequence[Any] = ()) -> Reply:
        """Queue one statement and return where its answer will be."""
        text = translate(sql, self._schema)
        plain = [_DUMPS.get(type(value), _text)(value) for value in values]
        formats = [_FORMATS.get(type(value), 0) for value in values]
        try:
            if self.prepares and values:  # the others are short, or said once
                self._pg.send_query_prepared(self._name(text), plain, formats)
            else:
                self._pg.send_query_params(text.encode(), plain, param_formats=formats)
        except psycopg.OperationalError as error:
            raise ConnectionLost(str(error)) from error
        return self._queued(Reply())

    def _queued(self, reply: Reply) -> Reply:
        self._pending.append(reply)
        self._queued_so_far += 1
        reply.number = self._queued_so_far
        return reply

    def _name(self, text: str) -> bytes:
        """Return the name under which the server knows *text*, having it parsed at its first use."""
        name = self._known.get(text)
        if name is None:
            name = b"agentguard_" + hashlib.sha256(text.encode()).hexdigest()[:24].encode()
            self._pg.send_prepare(name, text.encode())
            self._queued(Reply(parses=text))
            self._known[text] = name
        return name

    def wait(self, reply: Reply) -> Reply:
        """Return *reply* once it is answered, with all that was queued before.

        Raises:
            ConnectionLost: it will not be.
            psycopg.Error: the server refused this statement or one before.
        """
        if not reply.done:
            if reply.number > self._asked_for:  # the server keeps its answers until it is asked
                self._pg.send_flush_request()
                self._asked_for, self.trips = self._queued_so_far, self.trips + 1
            self._receive(reply, self._ready)
        return reply

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Reply:
        """Return the answer to one statement that is a transaction of its own."""
        reply = self.send(sql, values)
        self._synchronise(self._ready)
        return reply

    def commit(self, interrupts: list[BaseException]) -> None:
        """Queue COMMIT and wait for everything, whatever signal handlers raise: *interrupts* gets it.

        To cancel a COMMIT is worse than to wait for it: one that waits for a standby is then done
        here and nowhere else, and PostgreSQL calls that a success with a warning.

        Raises:
            CommitUnknown: it was sent, and no answer came.
            CommitUnsafe: it was answered with a warning.
            psycopg.Error: the transaction failed; it can be rolled back.
        """

        def ready(events: int, until: float) -> None:
            while True:
                try:
                    return self._ready(events, until)
                except psycopg.Error:
                    raise
                except BaseException as interrupt:  # noqa: BLE001 - raised by whoever called us
                    interrupts.append(interrupt)

        self._warnings.clear()
        commit = self.send("COMMIT")
        try:
            self._synchronise(ready)
        except ConnectionLost as error:
            raise CommitUnknown(str(error)) from error
        if self._warnings:
            raise CommitUnsafe(self._warnings[0])
        if commit.tag != "COMMIT":
            raise psycopg.InternalError(f"the server answered COMMIT with {commit.tag}")

    def rollback(self) -> None:
        """Take back what was not committed, and be ready for the next transaction.

        Raises:
            ConnectionLost: the server has taken it back, or will.
        """
        self._pg.pipeline_sync()  # nothing after an error is heard before this
        self._queued(Reply())
        self.send("ROLLBACK")
        try:
            self._synchronise(self._ready)
        except ConnectionLost:
            raise
        except psycopg.Error:
            return  # of the transaction that is no more, and told already

    def lend(self) -> None:
        """Leave the pipeline, so that psycopg's connection can be used; the transaction stays open."""
        self._synchronise(self._ready)
        self._pg.exit_pipeline_mode()

    def take_back(self) -> None:
        """Enter the pipeline again."""
        self._pg.enter_pipeline_mode()

    def finish(self) -> None:
        """End a transaction that only read; its answer is heard with the next one."""
        self.send("COMMIT")
        self._pg.pipeline_sync()
        self._queued(Reply())
        self._pg.flush()

    def _synchronise(self, ready: Callable[[int, float], None]) -> None:
        self._pg.pipeline_sync()
        self.trips += 1
        self._receive(self._queued(Reply()), ready)

    def _receive(self, last: Reply, ready: Callable[[int, float], None]) -> None:
        """Take in answers up to *last*; the first refusal is raised in the end."""
        pg, refusal = self._pg, None
        until = time.monotonic() + ANSWER_SECONDS
        try:
            unsent = pg.flush()
            while not last.done:
                while unsent or pg.is_busy():
                    ready(select.POLLIN | (select.POLLOUT if unsent else 0), until)
                    pg.consume_input()
                    unsent = pg.flush() if unsent else 0
                result = pg.get_result()
                if result is not None:
                    refused = self._take(self._pending.popleft(), result)
                    refusal = refusal or refused
                elif pg.status == _BAD:
                    raise ConnectionLost("the server closed the connection")
        except psycopg.OperationalError as error:
            raise ConnectionLost(str(refusal or error)) from error
        if refusal is not None and refusal.diag.severity_nonlocalized in _GONE:
            # Said by a server process that ends; it may have committed before it said so.
            raise ConnectionLost(str(refusal)) from refusal
        if refusal is not None:
            raise refusal

    def _ready(self, events: int, until: float) -> None:
        """Wait until the socket is."""
        self._poll.register(self._socket, events)
        left = until - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise ConnectionLost(f"the server has not answered for {ANSWER_SECONDS:.0f} seconds")

    def _take(self, reply: Reply, result: PGresult) -> psycopg.Error | None:
        """Fill *reply*, and return the refusal if it is one."""
        reply.done = True
        if result.status in _GOOD:
            reply.result = result
            return None
        if reply.parses is not None:
            del self._known[reply.parses]
        return errors.error_from_result(result) if result.status == _FAILED else None

    def number_of(self, name: str) -> int:
        """Return the number of an advisory lock that stands for *name* in our schema."""
        digest = hashlib.sha256(f"{self._schema}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def close(self) -> None:
        """Give the connection up."""
        self.connection.close()

    def drop_in_child(self) -> None:
        """Let go of a connection that belongs to the parent, without a word to the server."""
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._socket)
        os.close(nothing)
        self.close()


def _text(value: Any) -> bytes:
    """Return a value of a rarer type, an enumeration's for example, as text."""
    return (value if isinstance(value, str) else str(value)).encode()


def _as_it_is(value: bytes | None) -> bytes | None:
    return value


_DUMPS: dict[type, Callable[[Any], bytes | None]] = {
    str: str.encode, bytes: _as_it_is, type(None): _as_it_is, int: b"%d".__mod__, bool: b"%d".__mod__,
}  # fmt: skip
_FORMATS: dict[type, int] = {str: 1, bytes: 1}
"""Text travels as bytes do, with its length: the server refuses a NUL in it, and libpq cuts nothing
off there."""


def _rows(result: PGresult) -> list[tuple[Any, ...]]:
    get, width = result.get_value, result.nfields
    loads = [_LOADS.get(result.ftype(column), bytes.decode) for column in range(width)]
    found = []
    for row in range(result.ntuples):
        values = [get(row, column) for column in range(width)]
        found.append(
            tuple([v if v is None else load(v) for v, load in zip(values, loads, strict=True)])
        )
    return found


def _bytes(value: bytes) -> bytes:
    return bytes.fromhex(value[2:].decode())


def _number(value: bytes) -> int | Decimal:
    """Return a sum: PostgreSQL adds integers up to its type without a limit."""
    found = Decimal(value.decode())
    return int(found) if found == found.to_integral_value() else found


_LOADS: dict[int, Callable[[bytes], Any]] = {
    16: b"t".__eq__, 17: _bytes, 20: int, 21: int, 23: int, 26: int, 700: float, 701: float,
    1700: _number,
}  # fmt: skip
"""By the type's number in pg_type: bool, bytea, int8, int2, int4, oid, float4, float8, numeric."""
