"""What stands behind a PostgreSQL URL, for people who ask; nothing is created by a look."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from ..errors import StoreUnavailable
from . import _pg_server
from ._pg_url import Address, parse
from ._pg_wire import Wire

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._pg_server import Server

_US = 1_000_000
_SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r'"
)
_SESSION = (
    "SELECT current_user, r.rolsuper, coalesce((SELECT s.ssl FROM pg_stat_ssl s"
    " WHERE s.pid = pg_backend_pid()), false),"
    " (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    " FROM pg_roles r WHERE r.rolname = current_user"
)


@dataclass(frozen=True, slots=True)
class About:
    """One store on a server.

    Attributes:
        shown: its URL, without a password.
        schema: the version of the store, or None where there is none.
        bytes: what tables and indexes take.
        pooled: a pooler answers in between.
        encrypted: this connection is; on a unix socket it need not be.
        user: who we are there.
        is_superuser: we may do anything there.
        behind_s: seconds by which this machine's clock is behind the database's.
    """

    shown: str
    server: Server
    schema: int | None
    bytes: int
    pooled: bool
    encrypted: bool
    user: str
    is_superuser: bool
    behind_s: float


def about(url: str) -> About:
    """Look at what *url* names.

    Raises:
        ConfigurationError: it is no URL.
        StoreUnavailable: nothing is there.
    """
    address = parse(url)
    with _wire(address) as wire:
        server = _pg_server.look(wire)
        before = time.time()
        user, is_superuser, encrypted, now = wire.ask(_SESSION).rows[0]
        return About(
            shown=address.shown,
            server=server,
            schema=_pg_server.schema_version(wire, address.schema),
            bytes=wire.wait(wire.send(_SIZE, (address.schema,))).rows[0][0],
            pooled=server.pid != wire.pid,
            encrypted=encrypted,
            user=user,
            is_superuser=is_superuser,
            behind_s=now / _US - (before + time.time()) / 2,
        )


@contextlib.contextmanager
def _wire(address: Address) -> Generator[Wire]:
    try:
        wire = Wire(address.conninfo, address.schema)
        try:
            yield wire
        finally:
            wire.close()
    except psycopg.Error as error:
        raise StoreUnavailable(
            f"the store {address.shown} cannot be reached: {address.plain(error)}"
        ) from error
