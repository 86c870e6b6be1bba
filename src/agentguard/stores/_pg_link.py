"""How connections to PostgreSQL come about: with patience, and only to servers that keep promises."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from ..errors import ConfigurationError, StoreUnavailable
from . import _pg_server
from ._pg_wire import CommitUnknown, CommitUnsafe, ConnectionLost, QuietConnection, Wire

if TYPE_CHECKING:
    from ._pg_url import Address

_LOG = logging.getLogger("agentguard")
_PASSING = frozenset({"40001", "40P01", "55P03", "23505", "57014"})
"""Serialisation failure, deadlock, lock timeout, unique violation, cancelled statement."""
_POOLED = frozenset({"26000", "42P05"})
"""A prepared statement is not there, or there already: another server process answers."""
_ELSEWHERE = frozenset({"25006"})
"""This server only reads: it was the primary when we came."""


class Link:
    """Opens connections to one server.

    Args:
        address: where it is.
        migrate: bring an older schema up to date instead of refusing it.
        patience: seconds for which a server may be away once it was there.
    """

    def __init__(self, address: Address, *, migrate: bool, patience: float) -> None:
        self.address, self.patience = address, patience
        self._migrate = migrate
        self._prepares = address.prepares
        self._checked = False
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def open(self, kind: type[QuietConnection] = QuietConnection) -> Wire:
        """Return a connection to a server that can be relied on, once there is one.

        Raises:
            ConfigurationError: what is there is not for this version.
            StoreUnavailable: nothing is there, or it cannot be relied on.
        """
        until = time.monotonic() + (self.patience if self._checked else 0.0)
        wait = 0.05
        while True:
            try:
                return self._open(kind)
            except psycopg.Error as error:
                if time.monotonic() + wait > until:
                    raise self.failure(error) from error
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads who comes back at once
            wait = min(wait * 2, 1.0)

    def _open(self, kind: type[QuietConnection]) -> Wire:
        wire = Wire(self.address.conninfo, self.address.schema, kind)
        try:
            with self._lock:
                self._check(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    def _check(self, wire: Wire) -> None:
        server = _pg_server.look(wire)
        if server.is_standby:
            raise ConnectionLost("the server is a standby, which only reads")
        refusal = server.refusal()
        if refusal is not None:
            raise StoreUnavailable(f"the store {self.address.shown} {refusal}")
        for warning in set(server.warnings()) - self._warned:
            self._warned.add(warning)
            _LOG.warning("the store %s: %s", self.address.shown, warning)
        if not self._checked:
            self._check_schema(wire)
            self._checked = True
        # A pooler gives a number of its own for the server process that a client talks to.
        wire.prepares = server.pid == wire.pid if self._prepares is None else self._prepares

    def _check_schema(self, wire: Wire) -> None:
        wire.send("BEGIN")
        try:
            _pg_server.check_schema(
                wire, self.address.schema, self.address.shown, migrate=self._migrate
            )
            interrupts: list[BaseException] = []
            wire.commit(interrupts)
            if interrupts:
                raise interrupts[0]
        except (CommitUnknown, CommitUnsafe) as error:
            raise StoreUnavailable(f"the store {self.address.shown} failed: {error}") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"{self.address.shown}: {self.plain(error)}: let the owner of the database run"
                " `agentguard store migrate`, and give this user its role: `agentguard store roles`"
            ) from error

    def heard(self, error: psycopg.Error) -> None:
        """Learn from a failure: where another server process answers, nothing is prepared."""
        if error.sqlstate in _POOLED:
            self._prepares = False

    def failure(self, error: Exception, tries: int = 1) -> StoreUnavailable:
        """Return what is told of an error; nothing was written."""
        text = f"the store {self.address.shown} failed: {self.plain(error)}"
        if tries > 1 and isinstance(error, psycopg.Error) and error.sqlstate in _PASSING:
            text = (
                f"the store {self.address.shown} is contended: others got in the way of this"
                f" transaction {tries} times ({self.plain(error)}); nothing was written, try again"
            )
        return StoreUnavailable(text)

    def unsure(self, error: Exception) -> StoreUnavailable:
        """Return what is told when something may have been written."""
        return StoreUnavailable(
            f"the store {self.address.shown} did not say whether it committed: {self.plain(error)}",
            uncertain=True,
        )

    def plain(self, error: Exception) -> str:
        """Return an error as one line without a password."""
        if isinstance(error, psycopg.errors.CharacterNotInRepertoire):
            return "PostgreSQL keeps no text with a NUL character in it"
        return self.address.plain(error)


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is of no use after *error*."""
    state = error.sqlstate or ""
    return (
        isinstance(error, ConnectionLost)
        or state.startswith(("08", "57P", "25P"))
        or state in _ELSEWHERE | _POOLED
    )


def passes(error: psycopg.Error) -> bool:
    """Return whether the same may work in a moment."""
    return is_lost(error) or error.sqlstate in _PASSING


def after(wire: Wire, error: BaseException) -> Wire | None:
    """Return the connection again if it can be used after *error*, else close it."""
    broken = not isinstance(error, Exception) or isinstance(error, CommitUnknown)
    if not broken and not (isinstance(error, psycopg.Error) and is_lost(error)):
        with contextlib.suppress(psycopg.Error):
            wire.rollback()
            return wire
    wire.close()  # whatever was open there is undone by the server
    return None
