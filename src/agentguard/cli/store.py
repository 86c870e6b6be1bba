"""`agentguard store`: what the file is, and bringing an older one up to date."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from ..ledger import queries
from ..stores import open_store
from ..stores._files import file_system
from ..stores.schema import APPLICATION_ID, VERSION
from .accepting import accept
from .moving import copy
from .output import Line, show_one
from .shell import CODES, Exit, Failure, Group, busy, careful, confirmed, say, shell
from .text import count, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFO_KEYS = ("url", "path", "bytes", "schema", "newest_schema", "file_system", "server", "counts")


@click.group("store", cls=Group)
def store() -> None:
    """Where the record is kept: info, migrate, roles, copy."""


store.add_command(accept)
store.add_command(copy)


def schema_of(path: Path) -> int:
    """Return the schema version of a store file, also of one this version would not open.

    Raises:
        Failure: it is no store of ours.
    """
    try:
        version, kind = _pragmas(path, "user_version", "application_id")
    except sqlite3.Error as error:
        raise Failure(f"the store {path} cannot be read: {error}") from None
    if kind != APPLICATION_ID:
        raise Failure(f"{path} is a database of another program, not a store")
    return int(version)


def integrity_of(path: Path) -> str:
    """Return `ok`, or what SQLite's own check finds wrong in the file."""
    try:
        return str(_pragmas(path, "integrity_check(1)")[0])
    except sqlite3.Error as error:
        return str(error)


def _pragmas(path: Path, *names: str) -> list[Any]:
    """Read from the file without opening it as a store, which may be refused."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


@store.command("info", epilog=f"JSON keys: {', '.join(INFO_KEYS)}.")
def info() -> None:
    """Show where the store is, how large, of which schema, and what it holds."""
    if shell().on_server:
        from . import server

        found = server.info()
        show_one(found, lambda: _lines(found))
        return
    path = shell().existing()
    schema = schema_of(path)
    with shell().guard() as guard:
        data = {
            "url": shell().url, "path": str(path.absolute()), "bytes": size_of(path),
            "schema": schema, "newest_schema": VERSION, "file_system": file_system(path), "server": None,
            "counts": guard.store.read(queries.counts),
        }  # fmt: skip
    show_one(data, lambda: _lines(data))


def size_of(path: Path) -> int:
    """Return the bytes of the store and of its write-ahead log."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _lines(data: dict[str, Any]) -> Iterator[Line]:
    counts = data["counts"]
    place = data["server"] or data["file_system"] or "an unknown file system"
    yield Line("store", escaped(data["path"] or data["url"]))
    yield Line("size", f"{data['bytes']:,} bytes, on {place}")
    yield Line("schema", f"{data['schema']}, the newest")
    yield Line("holds", ", ".join(
        count(counts[name], name.removesuffix("s")) for name in ("runs", "events", "effects", "approvals")
    ))  # fmt: skip
    yield Line("executing", str(counts["executing"]))
    yield Line("waiting", _with(counts["awaiting_approval"], "approvals list"))
    doubts = counts["in_doubt"]
    yield Line(
        "in doubt", _with(doubts, "effects list --state in_doubt"), "in_doubt" if doubts else ""
    )


def _with(number: int, command: str) -> str:
    return f"{number}: agentguard {command}" if number else "0"


@store.command("migrate", epilog=CODES)
@careful
def migrate(dry_run: bool, yes: bool) -> None:  # noqa: FBT001 - click gives them by name
    """Bring the store's schema up to date. Stop its workers first, and keep a copy of the file."""
    if shell().on_server:
        from . import server

        server.migrate(dry_run=dry_run, yes=yes)
        return
    path = shell().existing()
    schema = schema_of(path)
    if schema == VERSION:
        say(f"{path} has the newest schema, {VERSION}; nothing to do")
        return
    if schema > VERSION:
        raise Failure(
            f"{path} was written by a newer agentguard (schema {schema}, this one knows {VERSION}):"
            " upgrade agentguard"
        )
    what = f"bring {path} from schema {schema} to {VERSION}"
    if confirmed(what, dry_run=dry_run, yes=yes):
        with busy("migrating"):
            open_store(shell().url, migrate=True).close()
        say(f"{path} has schema {VERSION} now")


@store.command("roles")
def roles() -> None:
    """Print SQL that gives PostgreSQL roles no more than they need: for workers, readers, operators."""
    from ..stores._pg_roles import script
    from ..stores._pg_url import parse

    if not shell().on_server:
        raise Failure(
            "roles are PostgreSQL's: name a store with --store postgresql://…", Exit.USAGE
        )
    click.echo(script(parse(shell().url).schema), nl=False)
