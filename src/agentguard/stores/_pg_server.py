"""Whether a server can keep the promises, and whether there is a store of ours in its database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ._pg_sql import creation, definition
from .schema import SINCE_2, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._pg_tx import Reading
    from ._pg_wire import Wire

OLDEST = 130_000
MIGRATIONS: dict[int, tuple[str, ...]] = {2: SINCE_2}
"""By the version that they begin with: the statements that make a store one version newer.

The first stores on PostgreSQL have version 2.
"""
_MIGRATING = 0x41474431
"""Names the advisory lock under which tables are made and changed."""
_SETTINGS = (
    "server_version_num", "server_encoding", "fsync", "full_page_writes", "synchronous_commit",
    "synchronous_standby_names",
)  # fmt: skip
_LOOK = (
    f"SELECT {', '.join(f'current_setting({name!r}, true)' for name in _SETTINGS)},"  # noqa: S608
    " pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication), pg_backend_pid()"
)
_THERE = (
    "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = ? AND c.relname = 'meta'"
)


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself."""

    version: int
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_standbys: str
    is_standby: bool
    followers: int
    pid: int

    def refusal(self) -> str | None:
        """Return why an acknowledged commit could be lost here, and how to mend that."""
        if self.version and self.version < OLDEST:
            return f"is PostgreSQL {self.version // 10_000}: agentguard needs 13 or newer"
        if self.encoding != "UTF8":
            return f"has a database in {self.encoding}: create one with ENCODING 'UTF8'"
        if self.fsync == "off":
            return "runs with fsync=off and loses what it has confirmed: set fsync = on"
        if self.synchronous_commit in ("off", "local"):
            return (
                f"has synchronous_commit={self.synchronous_commit} for this user, which confirms"
                " what can still be lost: set it to on"
            )
        return None

    def warnings(self) -> Iterator[str]:
        """Say what is allowed and dangerous."""
        if self.followers and not self.synchronous_standbys:
            yield (
                "it has standbys and no synchronous_standby_names: a failover can lose starts that"
                " were confirmed, and their effects happen twice"
            )
        if self.full_page_writes == "off":
            yield "full_page_writes=off: a power cut can damage its files"


def look(wire: Wire) -> Server:
    """Ask a server about itself."""
    (row,) = wire.ask(_LOOK).rows
    version, encoding, fsync, pages, commit, standbys, is_standby, followers, pid = row
    return Server(
        int(version or 0),
        encoding,
        fsync,
        pages,
        commit,
        standbys or "",
        is_standby,
        followers,
        pid,
    )


def schema_version(wire: Wire, schema: str) -> int | None:
    """Return the version of the store in the database, or None if there is none.

    The catalogue is asked as a table: what to_regclass says may be older than a lock just taken.
    """
    if not wire.wait(wire.send(_THERE, (schema,))).rows:
        return None
    found = wire.wait(wire.send("SELECT value FROM meta WHERE key = 'schema'")).rows
    return int(found[0][0].removeprefix("version ")) if found else None


def check_schema(wire: Wire, schema: str, shown: str, *, migrate: bool) -> None:
    """Create, migrate or refuse the schema.

    Raises:
        ConfigurationError: the schema is of a newer or an older version than this code's.
        StoreUnavailable: there is no store, and no right to make one.
    """
    version = schema_version(wire, schema)
    _check_version(version, shown, migrate=migrate)
    if version == VERSION:
        return
    wire.send("SELECT pg_advisory_xact_lock(?)", (_MIGRATING,))
    version = schema_version(wire, schema)  # somebody else may have made it meanwhile
    named = wire.wait(wire.send("SELECT 1 FROM pg_namespace WHERE nspname = ?", (schema,))).rows
    if not named:
        wire.send(f"CREATE SCHEMA {schema}")
    for statement in _statements(version, schema):
        wire.send(statement)
    if version != VERSION:
        wire.send(
            "INSERT INTO meta (key, value) VALUES ('schema', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (f"version {VERSION}",),
        )


def _statements(version: int | None, schema: str) -> Iterator[str]:
    if version is None:
        yield from creation(schema)
        return
    for number in range(version, VERSION):
        yield from (definition(text, schema) for text in MIGRATIONS[number])


def _check_version(version: int | None, shown: str, *, migrate: bool) -> None:
    if version is not None and version > VERSION:
        raise ConfigurationError(
            f"{shown} was written by a newer agentguard (schema {version}, this one reads {VERSION}):"
            " upgrade agentguard; nothing was changed"
        )
    if version is not None and version < VERSION and not migrate:
        raise ConfigurationError(
            f"{shown} has the older schema {version}: stop its workers, then run"
            " `agentguard store migrate`"
        )


def damage(tx: Reading, schema: str) -> str:
    """Return `ok`, or what the server says is wrong with its files and our indexes: a query."""
    damaged = tx.row("SELECT sum(checksum_failures) FROM pg_stat_database")
    if damaged and damaged[0]:
        return f"the server counted {damaged[0]} damaged pages: restore it from a backup"
    rows = tx.rows(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ? AND NOT (i.indisvalid AND i.indisready)",
        (schema,),
    )
    broken = ", ".join(name for (name,) in rows)
    return f"indexes are not valid: {broken}; REINDEX them" if broken else "ok"
