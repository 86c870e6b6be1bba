"""What may be opened as a store file, and the sentence for everything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, StoreUnavailable
from .schema import APPLICATION_ID, MIGRATIONS, VERSION

if TYPE_CHECKING:
    import sqlite3

_MAGIC = b"SQLite format 3\x00"
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "9p", "ceph"})


def prepare(path: Path) -> None:
    """Make sure that *path* can hold a store: its folder, its rights, its kind.

    Raises:
        StoreUnavailable: it cannot be written, or its file system does not lock reliably.
        ConfigurationError: it is a file of something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"the store {path} cannot be written ({error.strerror}): give another path or its rights"
        ) from error
    try:
        head = os.read(descriptor, len(_MAGIC))
    except OSError as error:
        raise StoreUnavailable(f"the store {path} cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    if head and head != _MAGIC:
        raise ConfigurationError(
            f"{path} is not a SQLite file: name a new file or an agentguard store"
        )
    kind = file_system(path)
    if kind in _NETWORK:
        raise StoreUnavailable(
            f"{path} lies on a network file system ({kind}), whose locks cannot be trusted:"
            " put the store on a local disk"
        )


def file_system(path: Path) -> str | None:
    """Return the kind of file system that holds *path*, where the kernel tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    real, best, kind = str(path.resolve()), "", None
    for line in mounts.splitlines():
        _, point, name, *_ = line.split(" ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def check_schema(connection: sqlite3.Connection, path: str, *, migrate: bool) -> None:
    """Create, migrate or refuse the schema.

    Raises:
        ConfigurationError: another program's file, or a schema newer or older than this code's.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        _refuse(version, kind, path, empty=empty, migrate=migrate)
        for number in range(version, VERSION):
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _refuse(version: int, kind: int, path: str, *, empty: bool, migrate: bool) -> None:
    if empty:
        return
    if kind != APPLICATION_ID:
        raise ConfigurationError(f"{path} is a database of another program: name a new file")
    if version > VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer agentguard (schema {version}, this one reads {VERSION}):"
            " upgrade agentguard; nothing was changed"
        )
    if version < VERSION and not migrate:
        raise ConfigurationError(
            f"{path} has the older schema {version}: stop its workers, then run"
            " `agentguard store migrate`"
        )
