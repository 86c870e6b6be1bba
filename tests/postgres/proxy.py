"""A network between clients and PostgreSQL that loses what it is told to lose."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Self

from tests.postgres.home import PATIENCE, free_port
from tests.postgres.server import Server

_NO_SESSION = {80877102, 80877103, 80877104}
"""Codes of first messages that begin no session: a cancellation, and questions for encryption."""
_ANSWERS = (b"C\0\0\0\x0bCOMMIT\0", b"Z\0\0\0\x05I", b"Z\0\0\0\x05E")
"""What the server says after a COMMIT: that it is done, that no transaction is open, or that it
skipped the COMMIT of one that had failed."""
_FIELDS = (
    b"SFATAL", b"VFATAL", b"C57P01", b"Mterminating connection due to administrator command", b"",
)  # fmt: skip
_TEXT = b"".join(field + b"\0" for field in _FIELDS)
_ENDS = b"E" + struct.pack("!i", 4 + len(_TEXT)) + _TEXT
"""What a server process says that is told to end, whatever it has done before."""


class Loss(Enum):
    """What a COMMIT may lose, and with it the connection."""

    REQUEST = "the COMMIT does not reach the server: it rolls back"
    ANSWER = "the server has committed, and its answer is lost"
    LAST_WORD = "the server has committed, and before it is ready again it is told to end"
    BOTH = "the COMMIT reaches the server at the moment at which the connection breaks"


class Proxy:
    """Listens before *server* and passes everything on, in a thread of its own.

    Args:
        server: where new connections go.
        at_commit: asked for every COMMIT that a client sends; a `Loss` cuts the connection there.
        host: the address that it listens on.
    """

    def __init__(
        self,
        server: Server,
        at_commit: Callable[[], Loss | None] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.host, self.port, self.commits, self.losses = host, free_port(), 0, 0
        self.at_commit = at_commit or _nothing
        self._server = server
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listener: asyncio.Server = self._do(self._listen)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self.host, self.port)

    def _do(self, work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(PATIENCE)

    def url(self, database: str) -> str:
        """Return the address of a database behind this proxy."""
        where = f"postgresql://postgres@{self.host}:{self.port}/{database}"
        return f"{where}?sslmode=disable&gssencmode=disable"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = f"{self._server.folder}/.s.PGSQL.{self._server.port}"
            server = await asyncio.open_unix_connection(path)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(self, (reader, writer), server)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)

    def lose_nothing(self) -> None:
        """Let every COMMIT through from now on."""
        self.at_commit = _nothing

    def lead_to(self, server: Server) -> None:
        """Lead new connections to another server, as a name that has moved does."""
        self._server = server

    def stall(self) -> None:
        """Pass nothing on, in either direction, and break no connection."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def go_on(self) -> None:
        """Pass on again, what was held back first."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut(self) -> int:
        """Break all connections; return how many there were."""

        async def cut() -> int:
            pairs = list(self._pairs)
            for pair in pairs:
                pair.cut()
            return len(pairs)

        count: int = self._do(cut)
        return count

    async def flows(self) -> None:
        """Wait while it is stalled."""
        await self._flows.wait()

    def loss(self) -> Loss | None:
        """Ask what this COMMIT loses."""
        self.commits += 1
        chosen = self.at_commit()
        self.losses += chosen is not None
        return chosen

    def close(self) -> None:
        """Break all connections and listen no more."""

        async def close() -> None:
            self._listener.close()
            for pair in list(self._pairs):
                pair.cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

        self._do(close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nothing() -> None:
    """Lose nothing."""


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pair:
    """One client's connection and the server's end of it."""

    def __init__(self, proxy: Proxy, client: Ends, server: Ends) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._messages = Messages()
        self._lost: Loss | None = None

    async def run(self) -> None:
        """Pass on until one side ends; then end the other."""
        both = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        self.cut()

    async def _up(self) -> None:
        """Pass on what the client says; a COMMIT may be lost, or be the last that gets through."""
        while data := await self._client[0].read(65536):
            await self._proxy.flows()
            commits = self._messages.commits(data)
            losses = [loss for loss in (self._proxy.loss() for _ in range(commits)) if loss]
            self._lost = self._lost or (losses[0] if losses else None)
            if self._lost is Loss.REQUEST:
                return
            self._server[1].write(data)
            await self._server[1].drain()
            if self._lost is Loss.BOTH:
                return

    async def _down(self) -> None:
        """Pass on what the server says; of a COMMIT whose answer is to be lost only that it came."""
        unsaid = b""
        while data := await self._server[0].read(65536):
            await self._proxy.flows()
            if self._lost is None:
                self._client[1].write(data)
                await self._client[1].drain()
                continue
            unsaid += data
            if any(answer in unsaid for answer in _ANSWERS):
                break
        if self._lost is Loss.LAST_WORD:
            said, answer, _ = unsaid.partition(_ANSWERS[0])
            self._client[1].write(said + answer + _ENDS)
            await self._client[1].drain()

    def cut(self) -> None:
        """Break both ends at once, as a network does: what is on its way is lost."""
        for _, writer in (self._client, self._server):
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()


class Messages:
    """Reads along what a client sends, cut into pieces anywhere, and counts its COMMITs."""

    def __init__(self) -> None:
        self._rest, self._begun = b"", False

    def commits(self, data: bytes) -> int:
        """Take the next piece; return how many COMMITs end in it."""
        self._rest += data
        return sum(_is_commit(kind, body) for kind, body in self._whole())

    def _whole(self) -> Iterator[tuple[bytes, bytes]]:
        while len(self._rest) >= (head := 5 if self._begun else 4):
            (length,) = struct.unpack_from("!i", self._rest, head - 4)
            size = head - 4 + length
            if len(self._rest) < size:
                return
            kind, body = self._rest[: head - 4], self._rest[head:size]
            self._rest = self._rest[size:]
            if self._begun:
                yield kind, body
            else:
                (code,) = struct.unpack_from("!i", body)
                self._begun = code not in _NO_SESSION


def _is_commit(kind: bytes, body: bytes) -> bool:
    """Tell whether a message is a COMMIT: a simple query, or the parsing of a statement."""
    if kind == b"P":
        body = body.partition(b"\0")[2]
    return kind in (b"Q", b"P") and body[:6].upper() == b"COMMIT"
